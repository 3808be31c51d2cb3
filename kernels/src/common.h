// Arithmetic that several kernels share: element types, quantisation, layouts, the sigmoid.
#pragma once

#include "shim.h"

#if CM_DEVICE_CODE

namespace cm {

constexpr int kWarpSize = 32;

__device__ __forceinline__ unsigned full_warp() { return 0xffffffffu; }

// One element as float, and back. int8 is symmetric: value = scale * code.
__device__ __forceinline__ float load(const float* p, float) { return *p; }
__device__ __forceinline__ float load(const __half* p, float) { return __half2float(*p); }
__device__ __forceinline__ float load(const signed char* p, float scale) {
  return __fmul_rn(float(*p), scale);
}
__device__ __forceinline__ void store(float* p, float v, float) { *p = v; }
__device__ __forceinline__ void store(__half* p, float v, float) { *p = __float2half_rn(v); }
__device__ __forceinline__ void store(signed char* p, float v, float scale) {
  int code = __float2int_rn(__fdiv_rn(v, scale));  // to nearest even, as TensorRT quantises
  code = code > 127 ? 127 : code;
  *p = static_cast<signed char>(code < -128 ? -128 : code);
}

// `kCount` neighbouring elements moved as one access of 4, 8 or 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T value[kCount];
};

// Index of a cell's first element in [N, C / pack, H, W, pack], for channels from `channel` on.
__device__ __forceinline__ size_t packed_offset(int image, int channel, int cell, int channels,
                                                int cells, int pack) {
  const size_t plane = size_t(image) * (channels / pack) + channel / pack;
  return (plane * cells + cell) * pack + channel % pack;
}

// A count or an index stored as 4 or 8 bytes.
__device__ __forceinline__ int read_index(const void* p, size_t i, int bytes) {
  return bytes == 8 ? int(static_cast<const long long*>(p)[i]) : static_cast<const int*>(p)[i];
}
__device__ __forceinline__ void write_index(void* p, size_t i, int bytes, int value) {
  if (bytes == 8)
    static_cast<long long*>(p)[i] = value;
  else
    static_cast<int*>(p)[i] = value;
}

}  // namespace cm

#endif  // CM_DEVICE_CODE
