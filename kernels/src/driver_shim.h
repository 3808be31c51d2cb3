// Launching by name through the CUDA driver, for machines with a GPU and no CUDA toolkit: NVRTC
// compiles the device code, a plain C++ compiler compiles the launchers with -DCM_DRIVER.
//
// libcuda is opened at run time, so that the library builds and loads where there is no driver.
// Only entry points with a stable ABI are used; their types are declared here as plain integers.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "centermask/types.h"

namespace cm_driver {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

constexpr int kNotFound = 500, kNotInitialized = 3;  // CUDA_ERROR_NOT_FOUND, _NOT_INITIALIZED
constexpr int kMaxSharedAttribute = 8;        // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kSharedOptin = 97;              // CU_DEVICE_ATTRIBUTE_MAX_SHARED_..._OPTIN
constexpr int kMajor = 75, kMinor = 76;       // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...

// The loaded cubin and the kernels already looked up in it; the primary context of device 0
// unless the calling thread has a context of its own.
struct State {
  std::mutex lock;
  void* driver = nullptr;
  void* module = nullptr;
  int device = 0;
  std::map<std::string, void*> kernels;
};

inline State& state() {
  static State instance;
  return instance;
}

template <class... Arguments>
int call(const char* name, Arguments... arguments) {
  State& s = state();
  void* entry = s.driver ? dlsym(s.driver, name) : nullptr;
  return entry ? reinterpret_cast<int (*)(Arguments...)>(entry)(arguments...) : kNotInitialized;
}

inline int enter_context() {
  State& s = state();
  void* context = nullptr;
  if (const int code = call("cuCtxGetCurrent", &context)) return code;
  if (context) return call("cuCtxGetDevice", &s.device);
  if (const int code = call("cuDevicePrimaryCtxRetain", &context, s.device)) return code;
  return call("cuCtxSetCurrent", context);
}

// The cubin must stay in memory until it is loaded, no longer.
inline int load(const void* cubin) {
  State& s = state();
  const std::lock_guard<std::mutex> hold(s.lock);
  if (!s.driver) s.driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (const int code = call("cuInit", 0u)) return code;
  if (const int code = enter_context()) return code;
  s.kernels.clear();
  return cubin ? call("cuModuleLoadData", &s.module, cubin) : CM_OK;
}

inline int find(const char* name, void** kernel) {
  State& s = state();
  const std::lock_guard<std::mutex> hold(s.lock);
  const auto known = s.kernels.find(name);
  if (known != s.kernels.end()) {
    *kernel = known->second;
    return CM_OK;
  }
  if (!s.module) return kNotInitialized;
  if (const int code = call("cuModuleGetFunction", kernel, s.module, name)) return code;
  s.kernels[name] = *kernel;
  return CM_OK;
}

template <class Params>
int launch(const char* name, Dim grid, unsigned threads, size_t shared, void* stream,
           const Params& params) {
  void* kernel = nullptr;
  if (const int code = enter_context()) return code;
  if (const int code = find(name, &kernel)) return code;
  if (shared > 48 * 1024)
    if (const int code = call("cuFuncSetAttribute", kernel, kMaxSharedAttribute, int(shared)))
      return code;
  void* arguments[] = {const_cast<Params*>(&params)};
  return call("cuLaunchKernel", kernel, grid.x, grid.y, grid.z, threads, 1u, 1u, unsigned(shared),
              stream, static_cast<void**>(arguments), static_cast<void**>(nullptr));
}

}  // namespace cm_driver

using cm_dim = cm_driver::Dim;
#define CM_BOTH inline
#define CM_LAUNCH(kernel, grid, threads, shared, stream, params) \
  cm_driver::launch(#kernel, grid, threads, shared, stream, params)

// Makes the kernels of a cubin those that are launched. Null: only finds out about the device.
CM_API int cm_driver_load(const void* cubin);
CM_API int cm_driver_load(const void* cubin) { return cm_driver::load(cubin); }

namespace cm {

using Address = unsigned long long;

inline Address address(const void* p) { return reinterpret_cast<Address>(p); }
inline int attribute(int which, int* value) {
  return cm_driver::call("cuDeviceGetAttribute", value, which, cm_driver::state().device);
}
inline size_t shared_limit() {
  int bytes = 0;
  return attribute(cm_driver::kSharedOptin, &bytes) ? 48 * 1024 : size_t(bytes);
}
inline int zero(void* memory, size_t bytes, void* stream) {
  return cm_driver::call("cuMemsetD8Async", address(memory), static_cast<unsigned char>(0), bytes,
                         stream);
}
inline int memory_alloc(void** memory, size_t bytes) {
  Address found = 0;
  const int code = cm_driver::call("cuMemAlloc_v2", &found, bytes);
  *memory = reinterpret_cast<void*>(found);
  return code;
}
inline int memory_free(void* memory) { return cm_driver::call("cuMemFree_v2", address(memory)); }
inline int memory_upload(void* device, const void* host, size_t bytes) {
  return cm_driver::call("cuMemcpyHtoD_v2", address(device), host, bytes);
}
inline int memory_download(void* host, const void* device, size_t bytes) {
  return cm_driver::call("cuMemcpyDtoH_v2", host, address(device), bytes);
}
inline int synchronize(void* stream) { return cm_driver::call("cuStreamSynchronize", stream); }
inline int device_name(char* text, size_t bytes) {
  return cm_driver::call("cuDeviceGetName", text, int(bytes), cm_driver::state().device);
}
inline int device_capability(int* capability) {
  int major = 0, minor = 0;
  int code = attribute(cm_driver::kMajor, &major);
  if (!code) code = attribute(cm_driver::kMinor, &minor);
  *capability = 10 * major + minor;
  return code;
}
inline const char* runtime_error_text(int code) {
  const char* text = nullptr;
  if (cm_driver::call("cuGetErrorString", code, &text) || !text)
    return "the CUDA driver (libcuda.so.1) is missing or does not answer";
  return text;
}

}  // namespace cm
