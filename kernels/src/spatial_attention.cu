// Spatial attention in one pass: a block holds one RoI in shared memory, so X is read once and Y
// written once.
//
// Bytes: 2 * channels * cells * element size a RoI (100 KB for 128 x 14 x 14 half); arithmetic:
// about three operations an element, far below what memory allows, so time is bytes over bandwidth.
// Three steps: pool over channels; gate every cell with 3 x 3 of both maps; multiply.
// NCHW and CHW4 pool with a thread a cell (neighbouring threads, neighbouring banks), the wide
// packings with a warp a cell (neighbouring threads, neighbouring channels).
// A RoI that does not fit is read twice, the second time mostly from L2: fp32 of 128 x 14 x 14 fits
// on sm_80 and later, not on sm_75.
// 512 threads leave room for four half-precision RoIs on a multiprocessor with 228 KB; counted, not
// measured: bench/results/ says which figures exist.
#include "checks.h"
#include "common.h"

#include "centermask/spatial_attention.h"

namespace cm {
namespace sam {

constexpr unsigned kThreads = 512;
constexpr int kWidestByCell = 16;  // largest pack that pools with a thread a cell

// How many slices of the channels are pooled side by side.
CM_BOTH int slices(int cells) {
  const int fit = int(kThreads) / cells;
  return fit < 1 ? 1 : fit;
}

}  // namespace sam
}  // namespace cm

#if CM_DEVICE_CODE

namespace cm {
namespace sam {

using Params = cm_spatial_attention_params;

struct Maps {  // in shared memory, floats
  float *sum, *high;   // [slices, cells]; slice 0 ends as mean and max over all channels
  float* gate;         // [cells]
  unsigned char* tile;  // the RoI, where it fits
};

__device__ __forceinline__ Maps maps(unsigned char* shared, int cells) {
  Maps m;
  const int parts = slices(cells) * cells;
  m.sum = reinterpret_cast<float*>(shared);
  m.high = m.sum + parts;
  m.gate = m.high + parts;
  m.tile = shared + (size_t(2 * parts + cells) * sizeof(float) + 15) / 16 * 16;
  return m;
}

// Sum and maximum over the channels seen so far.
struct Pool {
  float sum, high;
  __device__ __forceinline__ void add(float v) {
    sum += v;
    high = fmaxf(high, v);  // loses NaN, but the mean beside it does not: the gate is NaN anyway
  }
};
__device__ __forceinline__ Pool nothing_pooled() { return {0.0f, -INFINITY}; }

template <class T>
__device__ __forceinline__ void pool_by_cell(const Params& p, const T* x, const Maps& m,
                                             int cells) {
  const int parts = slices(cells), planes = p.channels / p.pack;
  const int each = (planes + parts - 1) / parts, step = cells * p.pack;
  for (int item = int(threadIdx.x); item < parts * cells; item += int(blockDim.x)) {
    const int cell = item % cells, from = item / cells * each;
    const int to = from + each < planes ? from + each : planes;
    const T* at = x + cell * p.pack + size_t(from) * step;
    Pool pool = nothing_pooled();
    if (p.pack == 1) {
#pragma unroll 8
      for (int plane = from; plane < to; ++plane, at += step) pool.add(load(at, p.x_scale));
    } else {
      for (int plane = from; plane < to; ++plane, at += step)
        for (int k = 0; k < p.pack; ++k) pool.add(load(at + k, p.x_scale));
    }
    m.sum[item] = pool.sum;
    m.high[item] = pool.high;
  }
  __syncthreads();
  for (int cell = int(threadIdx.x); cell < cells; cell += int(blockDim.x)) {
    float sum = m.sum[cell], high = m.high[cell];
    for (int s = 1; s < parts; ++s) {
      sum += m.sum[s * cells + cell];
      high = fmaxf(high, m.high[s * cells + cell]);
    }
    m.sum[cell] = sum / float(p.channels);
    m.high[cell] = high;
  }
}

template <class T>
__device__ __forceinline__ void pool_by_warp(const Params& p, const T* x, const Maps& m,
                                             int cells) {
  const int lane = int(threadIdx.x) % kWarpSize, warps = int(blockDim.x) / kWarpSize;
  const int step = cells * p.pack;
  for (int cell = int(threadIdx.x) / kWarpSize; cell < cells; cell += warps) {
    const T* plane = x + cell * p.pack;
    Pool pool = nothing_pooled();
    int place = lane;
    for (int c = lane; c < p.channels; c += kWarpSize, place += kWarpSize) {
      for (; place >= p.pack; place -= p.pack) plane += step;
      pool.add(load(plane + place, p.x_scale));
    }
    for (int gap = kWarpSize / 2; gap > 0; gap /= 2) {
      pool.sum += __shfl_xor_sync(full_warp(), pool.sum, gap);
      pool.high = fmaxf(pool.high, __shfl_xor_sync(full_warp(), pool.high, gap));
    }
    if (lane == 0) {
      m.sum[cell] = pool.sum / float(p.channels);
      m.high[cell] = pool.high;
    }
  }
}

__device__ __forceinline__ float weight_at(const Params& p, int i) {
  return p.weight_type == CM_FLOAT16 ? __half2float(static_cast<const __half*>(p.weight)[i])
                                     : static_cast<const float*>(p.weight)[i];
}

__device__ __forceinline__ void open_gates(const Params& p, const Maps& m, int cells) {
  for (int cell = int(threadIdx.x); cell < cells; cell += int(blockDim.x)) {
    const int y = cell / p.width, x = cell % p.width;
    float response = 0.0f;
    for (int dy = -1; dy <= 1; ++dy)
      for (int dx = -1; dx <= 1; ++dx) {
        if (y + dy < 0 || y + dy >= p.height || x + dx < 0 || x + dx >= p.width) continue;
        const int near = cell + dy * p.width + dx, tap = (dy + 1) * 3 + dx + 1;
        response += weight_at(p, tap) * m.sum[near];
        response += weight_at(p, 9 + tap) * m.high[near];
      }
    m.gate[cell] = 1.0f / (1.0f + expf(-response));
  }
}

// Steps through the RoI in storage order, kCount elements at a time.
template <class T, int kCount>
__device__ __forceinline__ void multiply(const Params& p, const T* x, T* y, const Maps& m,
                                         int cells) {
  const int total = p.channels * cells / kCount;
  for (int i = int(threadIdx.x); i < total; i += int(blockDim.x)) {
    Vector<T, kCount> v = reinterpret_cast<const Vector<T, kCount>*>(x)[i];
    int cell = i * kCount / p.pack % cells, place = i * kCount % p.pack;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      store(v.value + k, load(v.value + k, p.x_scale) * m.gate[cell], p.y_scale);
      if (++place == p.pack) {
        place = 0;
        cell = cell + 1 == cells ? 0 : cell + 1;
      }
    }
    reinterpret_cast<Vector<T, kCount>*>(y)[i] = v;
  }
}

// kCount elements make 16 bytes; kHeld: the RoI is kept in shared memory.
template <class T, int kCount, bool kHeld>
__device__ __forceinline__ void run(const Params& p, unsigned char* shared) {
  const int cells = p.height * p.width;
  const size_t elements = size_t(p.channels) * cells;
  const Maps m = maps(shared, cells);
  const T* x = static_cast<const T*>(p.x) + blockIdx.x * elements;
  T* y = static_cast<T*>(p.y) + blockIdx.x * elements;
  if (kHeld) {
    T* tile = reinterpret_cast<T*>(m.tile);
    for (int i = int(threadIdx.x); i < int(elements) / kCount; i += int(blockDim.x))
      reinterpret_cast<Vector<T, kCount>*>(tile)[i] =
          reinterpret_cast<const Vector<T, kCount>*>(x)[i];
    x = tile;
    __syncthreads();
  }
  if (p.pack <= kWidestByCell)
    pool_by_cell(p, x, m, cells);
  else
    pool_by_warp(p, x, m, cells);
  __syncthreads();
  open_gates(p, m, cells);
  __syncthreads();
  multiply<T, kCount>(p, x, y, m, cells);
}

}  // namespace sam
}  // namespace cm

#define CM_SPATIAL_ATTENTION(name, type, count, held)         \
  CM_KERNEL(name)(const cm_spatial_attention_params p) {      \
    CM_SHARED(shared);                                        \
    cm::sam::run<type, count, held>(p, shared);               \
  }
CM_SPATIAL_ATTENTION(cm_spatial_attention_held_f32, float, 4, true)
CM_SPATIAL_ATTENTION(cm_spatial_attention_held_f16, __half, 8, true)
CM_SPATIAL_ATTENTION(cm_spatial_attention_held_i8, signed char, 16, true)
CM_SPATIAL_ATTENTION(cm_spatial_attention_twice_f32, float, 1, false)
CM_SPATIAL_ATTENTION(cm_spatial_attention_twice_f16, __half, 1, false)
CM_SPATIAL_ATTENTION(cm_spatial_attention_twice_i8, signed char, 1, false)

#endif  // CM_DEVICE_CODE

#if CM_LAUNCH_CODE

namespace cm {
namespace sam {

inline int check(const cm_spatial_attention_params& p) {
  if (p.type != CM_FLOAT32 && p.type != CM_FLOAT16 && p.type != CM_INT8) return CM_BAD_TYPE;
  if (p.weight_type != CM_FLOAT32 && p.weight_type != CM_FLOAT16) return CM_BAD_TYPE;
  if (p.rois < 0 || p.channels < 1 || p.height < 1 || p.width < 1) return CM_BAD_SHAPE;
  if (int64_t(p.height) * p.width > CM_SPATIAL_ATTENTION_MAX_CELLS) return CM_OVER_LIMIT;
  if (p.channels > (1 << 16)) return CM_OVER_LIMIT;
  if (!usable_pack(p.pack, p.channels)) return CM_BAD_LAYOUT;
  if (p.type == CM_INT8 && !(usable_scale(p.x_scale) && usable_scale(p.y_scale)))
    return CM_BAD_VALUE;
  return p.rois > 0 && !(p.x && p.weight && p.y) ? CM_NULL_POINTER : CM_OK;
}

}  // namespace sam
}  // namespace cm

CM_API size_t cm_spatial_attention_params_size(void) {
  return sizeof(cm_spatial_attention_params);
}

CM_API int cm_spatial_attention(const cm_spatial_attention_params* params, void* stream) {
  if (!params) return CM_NULL_POINTER;
  const cm_spatial_attention_params& p = *params;
  if (const int code = cm::sam::check(p)) return code;
  if (p.rois == 0) return CM_OK;
  const int cells = p.height * p.width, parts = cm::sam::slices(cells) * cells;
  const size_t element = p.type == CM_FLOAT32 ? 4 : p.type == CM_FLOAT16 ? 2 : 1;
  const size_t map_bytes = (size_t(2 * parts + cells) * sizeof(float) + 15) / 16 * 16;
  const size_t roi_bytes = size_t(p.channels) * cells * element;
  const bool whole = roi_bytes % 16 == 0 && cm::aligned16(p.x) && cm::aligned16(p.y);
  const bool held = whole && map_bytes + roi_bytes <= cm::shared_limit();
  const size_t shared = held ? map_bytes + roi_bytes : map_bytes;
  const cm_dim grid = {unsigned(p.rois), 1, 1};
  const unsigned threads = cm::sam::kThreads;
  if (p.type == CM_FLOAT32)
    return held ? CM_LAUNCH(cm_spatial_attention_held_f32, grid, threads, shared, stream, p)
                : CM_LAUNCH(cm_spatial_attention_twice_f32, grid, threads, shared, stream, p);
  if (p.type == CM_FLOAT16)
    return held ? CM_LAUNCH(cm_spatial_attention_held_f16, grid, threads, shared, stream, p)
                : CM_LAUNCH(cm_spatial_attention_twice_f16, grid, threads, shared, stream, p);
  return held ? CM_LAUNCH(cm_spatial_attention_held_i8, grid, threads, shared, stream, p)
              : CM_LAUNCH(cm_spatial_attention_twice_i8, grid, threads, shared, stream, p);
}

#endif  // CM_LAUNCH_CODE
