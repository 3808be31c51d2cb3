// Third decoding kernel: the levels of a picture merged, and greedy class-aware NMS.
#pragma once

#include "decode_layout.h"

#if CM_DEVICE_CODE

namespace cm {
namespace decode {

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

#endif  // CM_DEVICE_CODE
