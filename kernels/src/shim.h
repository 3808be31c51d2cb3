// The one door between a kernel and what runs it: CUDA, or the CPU of the host build.
//
// A kernel is a function of one parameter struct, named CM_KERNEL(name), launched with CM_LAUNCH
// over one-dimensional blocks. Its shared memory is dynamic (CM_SHARED), so that the host build
// can poison it and watch its end.
//
// A source holds device code under CM_DEVICE_CODE and the C function that launches it under
// CM_LAUNCH_CODE. nvcc and the host build take both; NVRTC takes the first, and a plain C++
// compiler with CM_DRIVER the second, which then launches by name through the CUDA driver.
#pragma once

#if defined(__CUDACC_RTC__)
#define CM_DEVICE_CODE 1
#define CM_LAUNCH_CODE 0
#elif defined(CM_DRIVER)
#define CM_DEVICE_CODE 0
#define CM_LAUNCH_CODE 1
#else
#define CM_DEVICE_CODE 1
#define CM_LAUNCH_CODE 1
#endif

#include "centermask/types.h"

#if defined(CM_HOST)

#include "host_shim.h"

using cm_dim = cm_host::Dim;
#define CM_KERNEL(name) static void name
#define CM_BOTH inline  // for the launcher and the kernel
#define CM_SHARED(name) unsigned char* name = cm_host::machine().shared
#define CM_LAUNCH(kernel, grid, threads, shared, stream, params) \
  cm_host::launch(kernel, grid, threads, shared, stream, params)

namespace cm {
inline size_t shared_limit() { return cm_host::settings().shared_limit; }
inline int zero(void* memory, size_t bytes, void*) {
  std::memset(memory, 0, bytes);
  return CM_OK;
}
inline int memory_alloc(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *memory ? CM_OK : CM_OVER_LIMIT;
}
inline int memory_free(void* memory) {
  std::free(memory);
  return CM_OK;
}
inline int memory_upload(void* device, const void* host, size_t bytes) {
  std::memcpy(device, host, bytes);
  return CM_OK;
}
inline int memory_download(void* host, const void* device, size_t bytes) {
  std::memcpy(host, device, bytes);
  return CM_OK;
}
inline int synchronize(void*) { return CM_OK; }
inline int device_name(char* text, size_t bytes) {
  std::snprintf(text, bytes, "host");
  return CM_OK;
}
inline int device_capability(int* capability) {
  *capability = 0;
  return CM_OK;
}
inline const char* runtime_error_text(int) { return "unknown error"; }
}  // namespace cm

#elif defined(CM_DRIVER)

#include "driver_shim.h"

#else

#include <cuda_fp16.h>
#if defined(__CUDACC_RTC__)
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#define INT32_MAX 2147483647
#else
#include <cuda_runtime.h>

#include <cstdio>
#endif

using cm_dim = dim3;
#define CM_KERNEL(name) extern "C" __global__ void name
#define CM_BOTH __host__ __device__ __forceinline__  // for the launcher and the kernel
#define CM_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define CM_LAUNCH(kernel, grid, threads, shared, stream, params) \
  cm::launch(kernel, grid, threads, shared, stream, params)

#if !defined(__CUDACC_RTC__)
namespace cm {

// Shared memory that a block of the current device may have when it asks for it.
inline size_t shared_limit() {
  int device = 0, bytes = 48 * 1024;
  if (cudaGetDevice(&device) != cudaSuccess) return 48 * 1024;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return size_t(bytes);
}

inline int zero(void* memory, size_t bytes, void* stream) {
  return int(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)));
}

template <class Params>
int launch(void (*kernel)(Params), dim3 grid, unsigned threads, size_t shared, void* stream,
           const Params& params) {
  if (shared > 48 * 1024) {
    const cudaError_t raised = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
        int(shared));
    if (raised != cudaSuccess) return int(raised);
  }
  kernel<<<grid, threads, shared, static_cast<cudaStream_t>(stream)>>>(params);
  return int(cudaGetLastError());
}

inline int memory_alloc(void** memory, size_t bytes) { return int(cudaMalloc(memory, bytes)); }
inline int memory_free(void* memory) { return int(cudaFree(memory)); }
inline int memory_upload(void* device, const void* host, size_t bytes) {
  return int(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}
inline int memory_download(void* host, const void* device, size_t bytes) {
  return int(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
inline int synchronize(void* stream) {
  return int(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}
inline int device_name(char* text, size_t bytes) {
  int device = 0;
  cudaDeviceProp properties;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaGetDeviceProperties(&properties, device);
  if (code == cudaSuccess) std::snprintf(text, bytes, "%s", properties.name);
  return int(code);
}
inline int device_capability(int* capability) {
  int device = 0, major = 0, minor = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  *capability = 10 * major + minor;
  return int(code);
}
inline const char* runtime_error_text(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

}  // namespace cm
#endif

#endif
