// From dense predictions to the best K boxes, in three kernels and no host synchronisation.
//
//   scan    every logit once; what passes the threshold joins the list of its picture and level
//   select  a block per picture and level: the best top-k of the list by radix selection, sorted
//   suppress a block per picture: merges the levels' lists, greedy NMS until K are kept
//
// Each candidate is one 64-bit key, inverted product above flat index, so that keys are unique and
// ascending order is the order of centermask/decode_nms.h. The scan appends with atomics in any
// order; nothing after it depends on that order.
//
// Bytes: all logits once (3.2 MB at 608 x 800 with 80 classes in fp32); centre-ness, boxes and lists
// only for candidates. Arithmetic: one comparison a logit, a sigmoid for the few that pass it. Time
// is the scan's bandwidth and the latency of the two small kernels; at most 2048 keys are sorted in
// 16 KB of shared memory, and NMS ends with the K-th box it keeps. Sizes come from counting, not
// from a GPU: bench/results/ says which figures exist.
#include "checks.h"
#include "decode_layout.h"
#include "decode_select.h"
#include "decode_suppress.h"
#include "sigmoid.h"

#if CM_DEVICE_CODE

namespace cm {
namespace decode {

// The key of an anchor of one level, or all ones where it is no candidate.
template <class T>
__device__ __forceinline__ Key candidate(const Params& p, int image, int level, int anchor,
                                         int first, float logit) {
  const Key none = ~Key(0);
  const float probability = pinned_sigmoid(logit);
  if (!(probability > p.score_threshold)) return none;
  const int cell = anchor % cells(p, level);
  const float centre = at<T>(p.centerness[level], size_t(image) * cells(p, level) + cell);
  const float quality = __fmul_rn(probability, pinned_sigmoid(centre));
  return quality > 0.0f ? make_key(quality, first + anchor) : none;
}

// Grid: chunks of the largest level x levels x images.
template <class T>
__device__ __forceinline__ void scan(const Params& p) {
  const int level = int(blockIdx.y), image = int(blockIdx.z), total = anchors(p, level);
  const int first = offset(p, level), lane = int(threadIdx.x) % kWarpSize;
  const Workspace w = workspace(p);
  Key* list = w.list + size_t(image) * offset(p, p.levels) + first;
  unsigned* counter = w.found + image * p.levels + level;
  const size_t base = size_t(image) * total;
  const long long start = (long long)(blockIdx.x) * (kScanThreads * kPerThread) + threadIdx.x;
  // Below this no logit passes, however the last bits of the sigmoid fall.
  const float hopeless = logf(p.score_threshold / (1.0f - p.score_threshold)) - 0.01f;
  float logit[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {  // all reads before the first use
    const long long anchor = start + i * (long long)(kScanThreads);
    logit[i] = anchor < total ? at<T>(p.logits[level], base + size_t(anchor)) : -INFINITY;
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int anchor = int(start + i * (long long)(kScanThreads));
    Key key = ~Key(0);
    if (logit[i] > hopeless) key = candidate<T>(p, image, level, anchor, first, logit[i]);
    // One atomic for all candidates of a warp.
    const unsigned who = __ballot_sync(full_warp(), key != ~Key(0));
    if (who == 0) continue;  // the same for the whole warp
    unsigned place = 0;
    if (lane == 0) place = atomicAdd(counter, unsigned(__popc(who)));
    place = __shfl_sync(full_warp(), place, 0);
    if (key != ~Key(0)) list[place + __popc(who & ((1u << lane) - 1u))] = key;
  }
}

}  // namespace decode
}  // namespace cm

CM_KERNEL(cm_decode_scan_f32)(const cm_decode_nms_params p) { cm::decode::scan<float>(p); }
CM_KERNEL(cm_decode_scan_f16)(const cm_decode_nms_params p) { cm::decode::scan<__half>(p); }
CM_KERNEL(cm_decode_select_f32)(const cm_decode_nms_params p) {
  CM_SHARED(shared);
  cm::decode::select<float>(p, shared);
}
CM_KERNEL(cm_decode_select_f16)(const cm_decode_nms_params p) {
  CM_SHARED(shared);
  cm::decode::select<__half>(p, shared);
}
CM_KERNEL(cm_decode_suppress)(const cm_decode_nms_params p) {
  CM_SHARED(shared);
  cm::decode::suppress(p, shared);
}

#endif  // CM_DEVICE_CODE

#if CM_LAUNCH_CODE

namespace cm {
namespace decode {

inline int check_sizes(const Params& p) {
  if (p.type != CM_FLOAT32 && p.type != CM_FLOAT16) return CM_BAD_TYPE;
  if (!usable_index(p.index_bytes)) return CM_BAD_TYPE;
  if (p.levels < 1 || p.images < 1 || p.classes < 1) return CM_BAD_SHAPE;
  if (p.pre_nms_topk < 1 || p.max_detections < 1) return CM_BAD_SHAPE;
  if (p.levels > kMaxLevels || p.pre_nms_topk > CM_DECODE_MAX_TOPK) return CM_OVER_LIMIT;
  if (p.max_detections > CM_DECODE_MAX_DETECTIONS || p.images > 65535) return CM_OVER_LIMIT;
  double total = 0;
  for (int l = 0; l < p.levels; ++l) {
    if (p.height[l] < 1 || p.width[l] < 1 || p.stride[l] < 1) return CM_BAD_SHAPE;
    total += double(p.height[l]) * p.width[l] * p.classes;
    // Centres must be whole in float32.
    if (double(p.width[l]) * p.stride[l] > 1 << 24) return CM_OVER_LIMIT;
    if (double(p.height[l]) * p.stride[l] > 1 << 24) return CM_OVER_LIMIT;
  }
  return total > INT32_MAX ? CM_OVER_LIMIT : CM_OK;
}

inline int check(const Params& p) {
  if (const int code = check_sizes(p)) return code;
  if (!(p.score_threshold >= 0 && p.score_threshold < 1)) return CM_BAD_VALUE;
  if (!(p.nms_threshold >= 0 && p.nms_threshold <= 1)) return CM_BAD_VALUE;
  for (int l = 0; l < p.levels; ++l)
    if (!p.logits[l] || !p.reg[l] || !p.centerness[l]) return CM_NULL_POINTER;
  if (!p.boxes || !p.scores || !p.classes_out || !p.count || !p.workspace) return CM_NULL_POINTER;
  if (!aligned16(p.workspace)) return CM_MISALIGNED;
  return p.workspace_bytes < workspace(p).bytes ? CM_NO_WORKSPACE : CM_OK;
}

}  // namespace decode
}  // namespace cm

CM_API size_t cm_decode_nms_params_size(void) { return sizeof(cm_decode_nms_params); }

CM_API size_t cm_decode_nms_workspace(const cm_decode_nms_params* params) {
  if (!params || cm::decode::check_sizes(*params)) return 0;
  return cm::decode::workspace(*params).bytes;
}

CM_API int cm_decode_nms(const cm_decode_nms_params* params, void* stream) {
  if (!params) return CM_NULL_POINTER;
  const cm_decode_nms_params& p = *params;
  if (const int code = cm::decode::check(p)) return code;
  int largest = 0;
  for (int l = 0; l < p.levels; ++l)
    largest = cm::decode::anchors(p, l) > largest ? cm::decode::anchors(p, l) : largest;
  const cm::decode::Workspace w = cm::decode::workspace(p);
  if (const int code = cm::zero(p.workspace, w.counters, stream)) return code;
  const unsigned levels = unsigned(p.levels), images = unsigned(p.images);
  const unsigned chunk = cm::decode::kScanThreads * cm::decode::kPerThread;
  const cm_dim chunks = {(unsigned(largest) + chunk - 1) / chunk, levels, images};
  const unsigned scanning = cm::decode::kScanThreads, threads = cm::decode::kBlockThreads;
  const bool half = p.type == CM_FLOAT16;
  int code = half ? CM_LAUNCH(cm_decode_scan_f16, chunks, scanning, 0, stream, p)
                  : CM_LAUNCH(cm_decode_scan_f32, chunks, scanning, 0, stream, p);
  if (code) return code;
  size_t sorted = 1;
  while (sorted < size_t(p.pre_nms_topk)) sorted *= 2;
  const size_t selection = (cm::decode::kDigits + 4 + 2 * sorted) * sizeof(unsigned);
  const cm_dim lists = {levels, images, 1};
  code = half ? CM_LAUNCH(cm_decode_select_f16, lists, threads, selection, stream, p)
              : CM_LAUNCH(cm_decode_select_f32, lists, threads, selection, stream, p);
  if (code) return code;
  const size_t kept = (5 * size_t(p.max_detections) + 1) * sizeof(float);
  const size_t order = size_t(p.levels) * p.pre_nms_topk * sizeof(unsigned);
  const cm_dim pictures = {images, 1, 1};
  return CM_LAUNCH(cm_decode_suppress, pictures, threads, kept + order, stream, p);
}

#endif  // CM_LAUNCH_CODE
