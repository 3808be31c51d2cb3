// Machine code that NVRTC made, inside the library; see src/driver_shim.h.
#include "embedded.h"

#if defined(CM_DRIVER)

#include <mutex>

#include "centermask/types.h"

CM_API int cm_driver_load(const void* cubin);

__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    "cm_embedded_cubin:\n"
    ".incbin \"" CM_CUBIN
    "\"\n"
    ".popsection\n");
extern "C" __attribute__((visibility("hidden"))) const unsigned char cm_embedded_cubin[];

int cm_plugin::load_embedded_kernels() {
  static std::mutex lock;
  static bool loaded = false;
  const std::lock_guard<std::mutex> hold(lock);
  const int code = loaded ? CM_OK : cm_driver_load(cm_embedded_cubin);
  loaded = loaded || code == CM_OK;
  return code;
}

#else

int cm_plugin::load_embedded_kernels() { return 0; }

#endif
