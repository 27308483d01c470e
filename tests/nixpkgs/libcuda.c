// A driver that finds no graphics card: what a program linked with CUDA can be built and started with where there is
// none. NVIDIA's wheels bring no stub of libcuda.so.1.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100, VERSION = 13000 };

int cuInit(unsigned flags) {
  // The tests' proof that a program got this far.
  fprintf(stderr, "libcuda stub: cuInit\n");
  return NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
  *version = VERSION;
  return SUCCESS;
}

static int no_device(void) { return NO_DEVICE; }

// CUDA's runtime library takes every function from here, this one first.
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
  int itself = !strcmp(symbol, "cuGetProcAddress") && version >= 12000;
  void *own = dlsym(RTLD_DEFAULT, itself ? "cuGetProcAddress_v2" : symbol);
  *function = own ? own : (void *)no_device;
  if (status) *status = 0;
  return SUCCESS;
}

int cuGetErrorString(int error, const char **text) {
  *text = "no CUDA-capable device is detected";
  return SUCCESS;
}

// What ggml links with by name.
#define FAILS(name) int name(void) { return NO_DEVICE; }
FAILS(cuDeviceGet)
FAILS(cuDeviceGetAttribute)
FAILS(cuMemAddressFree)
FAILS(cuMemAddressReserve)
FAILS(cuMemCreate)
FAILS(cuMemGetAllocationGranularity)
FAILS(cuMemMap)
FAILS(cuMemRelease)
FAILS(cuMemSetAccess)
FAILS(cuMemUnmap)
