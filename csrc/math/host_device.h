// SSIM_HOST_DEVICE marks functions compiled for the host and for the device. They are always inlined, so that
// on the CPU they are compiled for the instruction set of the kernel that calls them (cpu/march/march.h).
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
