/* What every kernel's interface shares: element types, layouts, return codes. Plain C. */
#ifndef CENTERMASK_TYPES_H
#define CENTERMASK_TYPES_H

#if defined(__CUDACC_RTC__) /* NVRTC has no system headers; it knows size_t */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

#if defined(__cplusplus)
#define CM_API extern "C" __attribute__((visibility("default")))
#else
#define CM_API
#endif

/* Raised whenever a parameter struct or the meaning of one of its fields changes. */
#define CM_ABI 1

/* Element types, numbered as TensorRT's DataType. */
enum { CM_FLOAT32 = 0, CM_FLOAT16 = 1, CM_INT8 = 2 };

/* Layouts of a [N, C, H, W] tensor are told by one number, `pack`: channel c of a cell lies in
 * plane c / pack at place c % pack, so the tensor is stored as [N, C / pack, H, W, pack].
 *   1 NCHW    C NHWC (torch channels_last; TensorRT HWC8)    4 CHW4    32 CHW32
 * A pack other than 1 divides C and is a multiple of 4. */

/* 0: queued. Positive: a cudaError_t. Negative: the arguments are wrong and nothing was queued. */
enum {
  CM_OK = 0,
  CM_BAD_TYPE = -1,      /* element type this kernel does not have */
  CM_BAD_SHAPE = -2,     /* a size that is negative, zero where it must not be, or too large */
  CM_BAD_LAYOUT = -3,    /* pack does not divide the channels, or is not offered */
  CM_NULL_POINTER = -4,  /* a required pointer is null */
  CM_OVER_LIMIT = -5,    /* more than the kernel's documented limit */
  CM_NO_WORKSPACE = -6,  /* workspace smaller than the kernel's *_workspace() says */
  CM_MISALIGNED = -7,    /* a pointer not aligned to 16 bytes */
  CM_BAD_VALUE = -8,     /* a threshold or scale that is not finite or out of range */
  /* Only from the host build, which checks what hardware leaves undefined. */
  CM_HOST_BARRIER = -20, /* some threads of a block wait at a barrier that others never reach */
  CM_HOST_SHARED = -21   /* a block wrote beyond its shared memory */
};

/* CM_ABI of the library. */
CM_API int cm_abi(void);
/* One line of English for a return code. */
CM_API const char* cm_error_text(int code);

/* Memory and streams for tests and benches, so that they need nothing but this library. In the
 * host build they are malloc and memcpy. Each returns as the kernels do. */
CM_API int cm_memory_alloc(void** memory, size_t bytes);
CM_API int cm_memory_free(void* memory);
CM_API int cm_memory_upload(void* device, const void* host, size_t bytes);
CM_API int cm_memory_download(void* host, const void* device, size_t bytes);
CM_API int cm_synchronize(void* stream);
/* Name of the current device, "host" in the host build. */
CM_API int cm_device_name(char* text, size_t bytes);
/* Compute capability as 10 * major + minor; 0 in the host build. */
CM_API int cm_device_capability(int* capability);

/* Host build only (CM_BAD_VALUE elsewhere). order: 0 threads run in their order, 1 in reverse,
 * other values seed a new random order after every barrier. shared_bytes: shared memory a block
 * may have. A kernel without data races gives the same bits in every order. */
CM_API int cm_host_configure(uint32_t order, size_t shared_bytes);

#endif
