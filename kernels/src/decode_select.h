// Second decoding kernel: the best top-k candidates of a level, sorted, and their boxes.
#pragma once

#include "decode_layout.h"

#if CM_DEVICE_CODE

namespace cm {
namespace decode {

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

}  // namespace decode
}  // namespace cm

#endif  // CM_DEVICE_CODE
