// Functions that both the host and the device compiler see, always inlined so that the CPU kernels'
// instruction set (cpu/march/march.h) reaches into them.
#pragma once

#if defined(__HIP__)
#include <hip/hip_runtime.h>
#endif

#if defined(__CUDACC__) || defined(__HIP__)
#define SSIM_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
#define SSIM_HOST_DEVICE inline __attribute__((always_inline))
#else
#define SSIM_HOST_DEVICE inline
#endif
