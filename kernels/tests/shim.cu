// Small kernels about the host build itself: what it must compute, and what it must catch.
// Built for the CPU by tests/test_kernels_shim.py; the correct ones are valid CUDA, too.
#include "../src/runtime.cu"

#include "../src/common.h"

namespace {

struct Io {
  const float* in;
  float* out;
  int count;
};

// Every thread publishes a value and reads its neighbour's.
CM_KERNEL(neighbour_kernel)(const Io p) {
  CM_SHARED(shared);
  float* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = p.in[threadIdx.x];
  __syncthreads();
  p.out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

CM_KERNEL(neighbour_without_barrier_kernel)(const Io p) {
  CM_SHARED(shared);
  float* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = p.in[threadIdx.x];
  p.out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

// Reads its neighbour's value, then overwrites its own without waiting for the other reader.
CM_KERNEL(overwrite_without_barrier_kernel)(const Io p) {
  CM_SHARED(shared);
  float* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = p.in[threadIdx.x];
  __syncthreads();
  const float mine = values[(threadIdx.x + 1) % blockDim.x];
  values[threadIdx.x] = 0.0f;
  p.out[threadIdx.x] = mine;
}

CM_KERNEL(some_leave_early_kernel)(const Io p) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  p.out[threadIdx.x] = p.in[threadIdx.x];
}

CM_KERNEL(different_barriers_kernel)(const Io p) {
  if (threadIdx.x % 2)
    __syncthreads();
  else
    __syncwarp();
  p.out[threadIdx.x] = p.in[threadIdx.x];
}

CM_KERNEL(beyond_shared_kernel)(const Io p) {
  CM_SHARED(shared);
  reinterpret_cast<float*>(shared)[blockDim.x] = p.in[0];
  p.out[threadIdx.x] = 0.0f;
}

CM_KERNEL(unwritten_shared_kernel)(const Io p) {
  CM_SHARED(shared);
  p.out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x];
}

// in: one value a lane. out: 6 results a thread.
CM_KERNEL(warp_kernel)(const Io p) {
  const unsigned all = cm::full_warp(), t = threadIdx.x;
  const float v = p.in[t];
  float* out = p.out + 6 * t;
  out[0] = __shfl_sync(all, v, 5);
  out[1] = __shfl_xor_sync(all, v, 3);
  out[2] = __shfl_down_sync(all, v, 4);
  out[3] = __shfl_up_sync(all, v, 4);
  out[4] = float(__popc(__ballot_sync(all, v > 0)));
  float sum = v;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(all, sum, step);
  out[5] = sum;
}

// Which block and thread wrote each element, and how many came by.
CM_KERNEL(places_kernel)(const Io p) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  p.out[1 + block * blockDim.x + threadIdx.x] = float(block * 1000 + threadIdx.x);
  atomicAdd(p.out, 1.0f);
}

// in: floats; out: each through half precision and back.
CM_KERNEL(half_kernel)(const Io p) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < unsigned(p.count)) p.out[i] = __half2float(__float2half_rn(p.in[i]));
}

}  // namespace

#define SHIM_LAUNCH(name, bytes)                                                      \
  CM_API int shim_##name(const float* in, float* out, unsigned threads) {             \
    const Io io = {in, out, int(threads)};                                            \
    return CM_LAUNCH(name##_kernel, (cm_dim{1, 1, 1}), threads, bytes, nullptr, io);  \
  }
SHIM_LAUNCH(neighbour, threads * 4)
SHIM_LAUNCH(neighbour_without_barrier, threads * 4)
SHIM_LAUNCH(overwrite_without_barrier, threads * 4)
SHIM_LAUNCH(some_leave_early, 0)
SHIM_LAUNCH(different_barriers, 0)
SHIM_LAUNCH(beyond_shared, threads * 4)
SHIM_LAUNCH(unwritten_shared, threads * 4)
SHIM_LAUNCH(warp, 0)

CM_API int shim_places(float* out, unsigned x, unsigned y, unsigned z, unsigned threads) {
  const Io io = {nullptr, out, 0};
  return CM_LAUNCH(places_kernel, (cm_dim{x, y, z}), threads, 0, nullptr, io);
}

CM_API int shim_half(const float* in, float* out, int count) {
  const Io io = {in, out, count};
  return CM_LAUNCH(half_kernel, (cm_dim{unsigned(count + 255) / 256, 1, 1}), 256u, 0, nullptr, io);
}

CM_API int shim_too_much_shared(const float* in, float* out, unsigned threads) {
  const Io io = {in, out, int(threads)};
  return CM_LAUNCH(neighbour_kernel, (cm_dim{1, 1, 1}), threads, 1 << 20, nullptr, io);
}
