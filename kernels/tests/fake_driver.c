/* A CUDA driver that launches nothing and writes down what it was asked, for machines without a
 * GPU: tests/test_kernels_nvrtc.py puts it in place of libcuda.so.1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE* record(void) {
  static FILE* file = 0;
  const char* path = getenv("FAKE_DRIVER_LOG");
  if (!file) file = path ? fopen(path, "a") : stderr;
  return file;
}

static char names[64][64];
static int known = 0;

int cuInit(unsigned flags) {
  fprintf(record(), "init %u\n", flags);
  return getenv("FAKE_DRIVER_BROKEN") ? 100 : 0;
}
int cuGetErrorString(int code, const char** text) {
  *text = code == 100 ? "no CUDA-capable device is detected" : "another error";
  return 0;
}
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuCtxGetCurrent(void** context) { *context = 0; return 0; }
int cuCtxGetDevice(int* device) { *device = 0; return 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) {
  fprintf(record(), "retain %d\n", device);
  *context = (void*)1;
  return 0;
}
int cuCtxSetCurrent(void* context) { return context ? 0 : 1; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : attribute == 97 ? 101376 : 0;
  return 0;
}
int cuDeviceGetName(char* name, int bytes, int device) {
  (void)device;
  snprintf(name, (size_t)bytes, "Fake GPU");
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  fprintf(record(), "load %.4s\n", (const char*)image + 1);
  *module = (void*)2;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  (void)module;
  strncpy(names[known], name, 63);
  *function = names[known++];
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  fprintf(record(), "attribute %s %d %d\n", (const char*)function, attribute, value);
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** arguments, void** extra) {
  fprintf(record(), "launch %s %u %u %u %u %u %u %u %p %p %d\n", (const char*)function, gx, gy, gz,
          bx, by, bz, shared, stream, *(void**)arguments[0], extra == 0);
  fflush(record());
  return 0;
}
int cuMemAlloc_v2(unsigned long long* memory, size_t bytes) {
  *memory = (unsigned long long)aligned_alloc(256, (bytes + 255) / 256 * 256);
  return 0;
}
int cuMemFree_v2(unsigned long long memory) { free((void*)memory); return 0; }
int cuMemcpyHtoD_v2(unsigned long long to, const void* from, size_t bytes) {
  memcpy((void*)to, from, bytes);
  return 0;
}
int cuMemcpyDtoH_v2(void* to, unsigned long long from, size_t bytes) {
  memcpy(to, (void*)from, bytes);
  return 0;
}
int cuMemsetD8Async(unsigned long long memory, unsigned char value, size_t bytes, void* stream) {
  (void)stream;
  memset((void*)memory, value, bytes);
  return 0;
}
int cuStreamSynchronize(void* stream) { (void)stream; return 0; }
