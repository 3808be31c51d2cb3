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
#include "common.h"
#include "sigmoid.h"

#include "centermask/decode_nms.h"

namespace cm {
namespace decode {

using Params = cm_decode_nms_params;
using Key = unsigned long long;

constexpr unsigned kScanThreads = 256, kBlockThreads = 1024;
constexpr int kPerThread = 4;  // logits a thread of the scan reads
constexpr int kDigits = 256;   // of the radix selection, 8 bits at a time
constexpr int kMaxLevels = CM_DECODE_MAX_LEVELS;

CM_BOTH int cells(const Params& p, int level) { return p.height[level] * p.width[level]; }
CM_BOTH int anchors(const Params& p, int level) { return cells(p, level) * p.classes; }
CM_BOTH int offset(const Params& p, int level) {
  int sum = 0;
  for (int l = 0; l < level; ++l) sum += anchors(p, l);
  return sum;
}

// What lies where in the workspace; every part starts at a multiple of 16 bytes.
struct Workspace {
  unsigned* found;  // [images, levels] candidates of the scan
  unsigned* taken;  // [images, levels] of them, selected
  Key* list;        // [images, all anchors] the scan's candidates, by level
  Key* best;        // [images, levels, topk] selected, sorted
  float* box;       // [images, levels, topk, 4]
  size_t counters, bytes;
};

CM_BOTH Workspace workspace(const Params& p) {
  Workspace w;
  const size_t lists = size_t(p.images) * p.levels, slots = lists * p.pre_nms_topk;
  unsigned char* base = static_cast<unsigned char*>(p.workspace);
  w.counters = (lists * 2 * sizeof(unsigned) + 15) / 16 * 16;
  const size_t list_bytes = (size_t(p.images) * offset(p, p.levels) * sizeof(Key) + 15) / 16 * 16;
  const size_t best_bytes = (slots * sizeof(Key) + 15) / 16 * 16;
  w.found = reinterpret_cast<unsigned*>(base);
  w.taken = w.found + lists;
  w.list = reinterpret_cast<Key*>(base + w.counters);
  w.best = reinterpret_cast<Key*>(base + w.counters + list_bytes);
  w.box = reinterpret_cast<float*>(base + w.counters + list_bytes + best_bytes);
  w.bytes = w.counters + list_bytes + best_bytes + slots * 4 * sizeof(float);
  return w;
}

}  // namespace decode
}  // namespace cm

#if CM_DEVICE_CODE

namespace cm {
namespace decode {

__device__ __forceinline__ Key make_key(float quality, int index) {
  return Key(~__float_as_uint(quality)) << 32 | unsigned(index);
}
__device__ __forceinline__ float quality_of(Key key) {
  return __uint_as_float(~unsigned(key >> 32));
}
__device__ __forceinline__ int index_of(Key key) { return int(unsigned(key)); }

template <class T>
__device__ __forceinline__ float at(const void* p, size_t i) {
  return load(static_cast<const T*>(p) + i, 1.0f);
}

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

// Shared memory of the selection.
struct Selection {
  unsigned* histogram;  // [kDigits]
  Key* prefix;          // digits of the boundary key found so far
  unsigned* wanted;     // keys still to be taken among those with that prefix
  unsigned* taken;
  Key* keys;            // [power of two >= topk]
};

__device__ __forceinline__ Selection selection(unsigned char* shared) {
  Selection s;
  s.histogram = reinterpret_cast<unsigned*>(shared);
  s.prefix = reinterpret_cast<Key*>(s.histogram + kDigits);
  s.wanted = reinterpret_cast<unsigned*>(s.prefix + 1);
  s.taken = s.wanted + 1;
  s.keys = reinterpret_cast<Key*>(s.taken + 1);
  return s;
}

// The count-th smallest key of the list, for count < size; all threads of the block take part.
__device__ __forceinline__ Key boundary(const Selection& s, const Key* list, unsigned size,
                                        unsigned count) {
  if (threadIdx.x == 0) {
    *s.prefix = 0;
    *s.wanted = count;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (unsigned d = threadIdx.x; d < kDigits; d += blockDim.x) s.histogram[d] = 0;
    __syncthreads();
    const Key prefix = *s.prefix;
    for (unsigned i = threadIdx.x; i < size; i += blockDim.x) {
      const Key key = list[i];
      if (shift == 56 || key >> (shift + 8) == prefix)
        atomicAdd(s.histogram + unsigned(key >> shift & 255), 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned left = *s.wanted, digit = 0;
      while (s.histogram[digit] < left) left -= s.histogram[digit++];
      *s.wanted = left;
      *s.prefix = prefix << 8 | digit;
    }
    __syncthreads();
  }
  return *s.prefix;
}

// Ascending bitonic sort of `size` keys, a power of two.
__device__ __forceinline__ void sort(Key* keys, unsigned size) {
  for (unsigned length = 2; length <= size; length *= 2)
    for (unsigned gap = length / 2; gap > 0; gap /= 2) {
      for (unsigned i = threadIdx.x; i < size; i += blockDim.x) {
        const unsigned other = i ^ gap;
        if (other <= i) continue;
        const Key a = keys[i], b = keys[other];
        if ((a > b) == ((i & length) == 0)) {
          keys[i] = b;
          keys[other] = a;
        }
      }
      __syncthreads();
    }
}

template <class T>
__device__ __forceinline__ void write_box(const Params& p, int image, int level, int anchor,
                                          float* box) {
  const int area = cells(p, level), cell = anchor % area, stride = p.stride[level];
  const float x = float(cell % p.width[level] * stride + stride / 2);
  const float y = float(cell / p.width[level] * stride + stride / 2);
  float side[4];
  for (int k = 0; k < 4; ++k) {
    const size_t place = (size_t(image) * 4 + k) * area + cell;
    side[k] = __fmul_rn(at<T>(p.reg[level], place), float(stride));
  }
  box[0] = __fsub_rn(x, side[0]);
  box[1] = __fsub_rn(y, side[1]);
  box[2] = __fadd_rn(x, side[2]);
  box[3] = __fadd_rn(y, side[3]);
}

// Grid: levels x images.
template <class T>
__device__ __forceinline__ void select(const Params& p, unsigned char* shared) {
  const int level = int(blockIdx.x), image = int(blockIdx.y), slot = image * p.levels + level;
  const Workspace w = workspace(p);
  const Selection s = selection(shared);
  const int first = offset(p, level);
  const Key* list = w.list + size_t(image) * offset(p, p.levels) + first;
  const unsigned size = w.found[slot], topk = unsigned(p.pre_nms_topk);
  const unsigned kept = size < topk ? size : topk;
  unsigned padded = 1;
  while (padded < kept) padded *= 2;
  const Key last = size > topk ? boundary(s, list, size, topk) : ~Key(0);
  if (threadIdx.x == 0) *s.taken = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < size; i += blockDim.x)
    if (list[i] <= last) s.keys[atomicAdd(s.taken, 1u)] = list[i];
  for (unsigned i = kept + threadIdx.x; i < padded; i += blockDim.x) s.keys[i] = ~Key(0);
  __syncthreads();
  sort(s.keys, padded);
  if (threadIdx.x == 0) w.taken[slot] = kept;
  for (unsigned i = threadIdx.x; i < kept; i += blockDim.x) {
    const size_t place = size_t(slot) * topk + i;
    w.best[place] = s.keys[i];
    write_box<T>(p, image, level, index_of(s.keys[i]) - first, w.box + place * 4);
  }
}

struct Kept {  // in shared memory
  float* box;      // [max_detections, 4]
  int* label;      // [max_detections]
  unsigned* order; // [levels * topk] place of the n-th best in `best`
  int* first;      // the first of the chunk that is still alive
};

__device__ __forceinline__ Kept kept_boxes(unsigned char* shared, int max_detections) {
  Kept k;
  k.box = reinterpret_cast<float*>(shared);
  k.label = reinterpret_cast<int*>(k.box + 4 * max_detections);
  k.first = k.label + max_detections;
  k.order = reinterpret_cast<unsigned*>(k.first + 1);
  return k;
}

// Minimum, maximum and clamp that keep NaN, as numpy's do.
__device__ __forceinline__ float lower(float a, float b) { return a < b || a != a ? a : b; }
__device__ __forceinline__ float upper(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float not_negative(float a) { return a < 0.0f ? 0.0f : a; }

__device__ __forceinline__ float box_area(const float* b) {
  return __fmul_rn(not_negative(__fsub_rn(b[2], b[0])), not_negative(__fsub_rn(b[3], b[1])));
}

// Whether a suppresses b; the same float32 operations as centermask_edge.boxes.iou. A box with a
// NaN overlaps nothing.
__device__ __forceinline__ bool overlaps(const float* a, const float* b, float threshold) {
  const float w = not_negative(__fsub_rn(lower(a[2], b[2]), upper(a[0], b[0])));
  const float h = not_negative(__fsub_rn(lower(a[3], b[3]), upper(a[1], b[1])));
  const float shared = __fmul_rn(w, h);
  const float both = __fsub_rn(__fadd_rn(box_area(a), box_area(b)), shared);
  return both > 0.0f && __fdiv_rn(shared, both) > threshold;
}

// Where each level's candidates come in the order of the whole picture: its own rank plus, in every
// other level, the number of smaller keys.
__device__ __forceinline__ int merge(const Params& p, const Workspace& w, int image,
                                     unsigned* order) {
  const unsigned topk = unsigned(p.pre_nms_topk);
  const Key* best = w.best + size_t(image) * p.levels * topk;
  const unsigned* taken = w.taken + image * p.levels;
  int total = 0;
  for (int level = 0; level < p.levels; ++level) {
    total += int(taken[level]);
    for (unsigned i = threadIdx.x; i < taken[level]; i += blockDim.x) {
      const Key key = best[level * topk + i];
      unsigned rank = i;
      for (int other = 0; other < p.levels; ++other) {
        if (other == level) continue;
        unsigned low = 0, high = taken[other];
        while (low < high) {
          const unsigned middle = (low + high) / 2;
          if (best[other * topk + middle] < key)
            low = middle + 1;
          else
            high = middle;
        }
        rank += low;
      }
      order[rank] = unsigned(level) * topk + i;
    }
  }
  return total;
}

__device__ __forceinline__ void write_detection(const Params& p, int image, int place, Key key,
                                                const float* box, int label) {
  const size_t slot = size_t(image) * p.max_detections + place;
  for (int k = 0; k < 4; ++k) p.boxes[slot * 4 + k] = box ? box[k] : 0.0f;
  p.scores[slot] = box ? __fsqrt_rn(quality_of(key)) : 0.0f;
  write_index(p.classes_out, slot, p.index_bytes, label);
  if (p.indices) p.indices[slot] = box ? index_of(key) : -1;
}

// A block per picture. Candidates come in chunks of one a thread; the first alive is kept, and
// every thread compares its own with it.
__device__ __forceinline__ void suppress(const Params& p, unsigned char* shared) {
  const int image = int(blockIdx.x), limit = p.max_detections;
  const Workspace w = workspace(p);
  const Kept k = kept_boxes(shared, limit);
  const int total = merge(p, w, image, k.order);
  const size_t base = size_t(image) * p.levels * p.pre_nms_topk;
  int count = 0;
  __syncthreads();
  for (int start = 0; start < total && count < limit; start += int(blockDim.x)) {
    const int mine = start + int(threadIdx.x);
    float box[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int label = -1;
    Key key = 0;
    bool alive = mine < total;
    if (alive) {
      const size_t place = base + k.order[mine];
      const int level = int(k.order[mine]) / p.pre_nms_topk;
      key = w.best[place];
      label = (index_of(key) - offset(p, level)) / cells(p, level);
      for (int i = 0; i < 4; ++i) box[i] = w.box[place * 4 + i];
      for (int i = 0; i < count && alive; ++i)
        alive = k.label[i] != label || !overlaps(k.box + 4 * i, box, p.nms_threshold);
    }
    while (count < limit) {
      __syncthreads();
      if (threadIdx.x == 0) *k.first = int(blockDim.x);
      __syncthreads();
      if (alive) atomicMin(k.first, int(threadIdx.x));
      __syncthreads();
      const int winner = *k.first;
      if (winner == int(blockDim.x)) break;  // the same for the whole block
      if (winner == int(threadIdx.x)) {
        for (int i = 0; i < 4; ++i) k.box[4 * count + i] = box[i];
        k.label[count] = label;
        write_detection(p, image, count, key, box, label);
        alive = false;
      }
      __syncthreads();
      if (alive && k.label[count] == label)
        alive = !overlaps(k.box + 4 * count, box, p.nms_threshold);
      ++count;
    }
    __syncthreads();
  }
  for (int i = count + int(threadIdx.x); i < limit; i += int(blockDim.x))
    write_detection(p, image, i, 0, nullptr, 0);
  if (threadIdx.x == 0) write_index(p.count, image, p.index_bytes, count);
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
