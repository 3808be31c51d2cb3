// What the three decoding kernels share: sizes, the workspace, and the keys of candidates.
#pragma once

#include "common.h"

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

#if CM_DEVICE_CODE

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

#endif  // CM_DEVICE_CODE

}  // namespace decode
}  // namespace cm
