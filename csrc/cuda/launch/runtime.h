// The GPU's runtime: CUDA's, or HIP's under those of CUDA's names that the launchers and torch's
// STD_CUDA_CHECK use.
#pragma once

#if !defined(__HIP__)

#include <cuda_runtime.h>

#else

#include <hip/hip_runtime.h>

using cudaDeviceAttr = hipDeviceAttribute_t;
using cudaError_t = hipError_t;
using cudaStream_t = hipStream_t;

constexpr hipError_t cudaSuccess = hipSuccess;
constexpr hipDeviceAttribute_t cudaDevAttrL2CacheSize = hipDeviceAttributeL2CacheSize;
constexpr hipDeviceAttribute_t cudaDevAttrMultiProcessorCount = hipDeviceAttributeMultiprocessorCount;
// HIP has no opt-in limit above the usual one, which is 64 KiB on all AMD GPUs so far.
constexpr hipDeviceAttribute_t cudaDevAttrMaxSharedMemoryPerBlockOptin =
    hipDeviceAttributeMaxSharedMemoryPerBlock;
constexpr hipFuncAttribute cudaFuncAttributeMaxDynamicSharedMemorySize =
    hipFuncAttributeMaxDynamicSharedMemorySize;
constexpr hipFuncAttribute cudaFuncAttributePreferredSharedMemoryCarveout =
    hipFuncAttributePreferredSharedMemoryCarveout;
constexpr int cudaSharedmemCarveoutMaxShared = 100;

inline hipError_t cudaGetLastError() { return hipGetLastError(); }
inline hipError_t cudaSetDevice(int device) { return hipSetDevice(device); }
inline hipError_t cudaDeviceGetAttribute(int* value, hipDeviceAttribute_t name, int device) {
  return hipDeviceGetAttribute(value, name, device);
}
template <class Kernel>
hipError_t cudaFuncSetAttribute(Kernel* kernel, hipFuncAttribute name, int value) {
  return hipFuncSetAttribute(reinterpret_cast<const void*>(kernel), name, value);
}
template <class Kernel>
hipError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int threads,
                                                         size_t shared_bytes) {
  return hipOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, threads, shared_bytes);
}

#endif
