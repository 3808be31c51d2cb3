// What belongs to no kernel: errors in words, memory for tests and benches, the device's name.
#include "shim.h"

#if CM_LAUNCH_CODE

#include <cstdio>
#include <cstring>

CM_API int cm_abi(void) { return CM_ABI; }

CM_API const char* cm_error_text(int code) {
  switch (code) {
    case CM_OK: return "no error";
    case CM_BAD_TYPE: return "the kernel has no version for this element type";
    case CM_BAD_SHAPE: return "a size is negative, zero or too large";
    case CM_BAD_LAYOUT: return "the channels cannot be packed this way";
    case CM_NULL_POINTER: return "a required pointer is null";
    case CM_OVER_LIMIT: return "more than the kernel's limit";
    case CM_NO_WORKSPACE: return "the workspace is too small";
    case CM_MISALIGNED: return "a pointer is not aligned to 16 bytes";
    case CM_BAD_VALUE: return "a number is not finite or out of its range";
    case CM_HOST_BARRIER: return "threads wait at a barrier that others never reach";
    case CM_HOST_SHARED: return "a block wrote beyond its shared memory";
    default: break;
  }
  return code > 0 ? cm::runtime_error_text(code) : "unknown error";
}

CM_API int cm_memory_alloc(void** memory, size_t bytes) { return cm::memory_alloc(memory, bytes); }
CM_API int cm_memory_free(void* memory) { return cm::memory_free(memory); }
CM_API int cm_memory_upload(void* device, const void* host, size_t bytes) {
  return cm::memory_upload(device, host, bytes);
}
CM_API int cm_memory_download(void* host, const void* device, size_t bytes) {
  return cm::memory_download(host, device, bytes);
}
CM_API int cm_synchronize(void* stream) { return cm::synchronize(stream); }
CM_API int cm_device_name(char* text, size_t bytes) { return cm::device_name(text, bytes); }
CM_API int cm_device_capability(int* capability) { return cm::device_capability(capability); }

CM_API int cm_host_configure(uint32_t order, size_t shared_bytes) {
#if defined(CM_HOST)
  if (shared_bytes > sizeof(cm_host::Machine::shared) - cm_host::kGuard) return CM_BAD_VALUE;
  cm_host::settings().order = order;
  cm_host::settings().shared_limit = shared_bytes;
  return CM_OK;
#else
  (void)order;
  (void)shared_bytes;
  return CM_BAD_VALUE;
#endif
}

#endif  // CM_LAUNCH_CODE
