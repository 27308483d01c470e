// As little as needs a kernel, CUDA's runtime, cuBLAS and the driver, and a library that is none of them.
#include <cublas_v2.h>
#include <cuda.h>
#include <omp.h>
#include <cstdio>

__global__ void kernel() {}

int main() {
  kernel<<<1, 1>>>();
  printf("runtime: %s\n", cudaGetErrorString(cudaGetLastError()));
  cublasHandle_t handle;
  printf("cublas: %s\n", cublasGetStatusString(cublasCreate(&handle)));
  printf("driver: %d\n", cuInit(0));
  printf("threads: %d\n", omp_get_max_threads() > 0);
}
