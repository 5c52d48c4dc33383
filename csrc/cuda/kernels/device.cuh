// The GPU features that kernels use beyond plain C++: warps, shared memory, asynchronous copies, 16-bit
// floats, fast arithmetic. HIP (device_hip.cuh) and the host build of the kernels (tests/simt/simt.h) define
// the same names. This is the only kernel file with PTX, NVIDIA's warp intrinsics or the warp size, which
// tests/test_sources.py checks.
#pragma once

#include <cstdint>

#include "../../math/arithmetic.h"

namespace ssim_fused::cuda {

// Lanes of a warp: 32 on NVIDIA GPUs, 64 on AMD's data center GPUs. The tests compile the kernels for both.
#if !defined(SSIM_FUSED_WARP_SIZE)
#define SSIM_FUSED_WARP_SIZE 32
#endif
constexpr int kWarpSize = SSIM_FUSED_WARP_SIZE;

}  // namespace ssim_fused::cuda

#if defined(SSIM_SIMT)
#include "simt.h"
#elif defined(__HIP__)
#include "device_hip.cuh"
#elif defined(SSIM_DECLARED)
#include "declared.h"
#else

#include <cuda_runtime.h>

#include <type_traits>

#define SSIM_DEVICE __device__ __forceinline__
#define SSIM_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define SSIM_PARAMS const __grid_constant__
// Parameters and arguments for functions that contain a barrier, by which the host harness learns the call
// site (tests/simt/sites.h). Empty on a GPU.
#define SSIM_CALLER_PARAM
#define SSIM_CALLER

namespace ssim_fused {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// One instruction each, and NaN is propagated; fmaxf and fminf would drop it.
template <>
SSIM_HOST_DEVICE float clamp_below(float value, float bound) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(value), "f"(bound));
  return result;
}
template <>
SSIM_HOST_DEVICE float clamp_above(float value, float bound) {
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(value), "f"(bound));
  return result;
}
#endif

#if defined(__CUDA_ARCH__)
// One MUFU instruction, accurate to 1 ulp. The formula (math/ssim.h) does not need a correctly rounded
// quotient.
template <>
SSIM_HOST_DEVICE float reciprocal(float value) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
#endif

}  // namespace ssim_fused

namespace ssim_fused::cuda {

// A set of lanes of a warp, one bit each.
using LaneMask = std::conditional_t<kWarpSize == 64, uint64_t, uint32_t>;
constexpr LaneMask kAllLanes = ~LaneMask{0};
static_assert(8 * sizeof(LaneMask) == kWarpSize);

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

SSIM_DEVICE double to_compute(double value) { return value; }
SSIM_DEVICE float to_compute(float value) { return value; }
SSIM_DEVICE float to_compute(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}
SSIM_DEVICE float to_compute(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

SSIM_DEVICE void store_as(double& out, double value) { out = value; }
SSIM_DEVICE void store_as(float& out, float value) { out = value; }
SSIM_DEVICE void store_as(Half& out, float value) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
}
SSIM_DEVICE void store_as(BFloat16& out, float value) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
#else
  const uint32_t bits = __float_as_uint(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out.bits = is_nan ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
#endif
}

// Returns `number`, but hides it from the optimizer. Values computed from the result are recomputed instead
// of being kept in registers, and the result is not recomputed from the origin of `number`.
SSIM_DEVICE unsigned opaque(unsigned number) {
  unsigned same;
  asm volatile("mov.b32 %0, %1;" : "=r"(same) : "r"(number));
  return same;
}

SSIM_DEVICE uint64_t opaque(uint64_t number) {
  uint64_t same;
  asm volatile("mov.b64 %0, %1;" : "=l"(same) : "l"(number));
  return same;
}

SSIM_DEVICE void sync_warp() { __syncwarp(kAllLanes); }

// Converts an address in global memory to a pointer that the compiler knows to be global.
template <class T>
SSIM_DEVICE T* global_memory(uint64_t address) {
  return static_cast<T*>(__cvta_global_to_generic(address));
}

SSIM_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

// Writes Bytes bytes to global memory in one instruction; the compiler may split an assignment. `global` must
// be aligned to Bytes.
template <int Bytes>
SSIM_DEVICE void store_vector(void* global, const void* values) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  const size_t address = __cvta_generic_to_global(global);
  const uint32_t* const word = static_cast<const uint32_t*>(values);
  if constexpr (Bytes == 16) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(word[0]), "r"(word[1]),
                 "r"(word[2]), "r"(word[3])
                 : "memory");
  } else if constexpr (Bytes == 8) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(address), "r"(word[0]), "r"(word[1]) : "memory");
  } else {
    asm volatile("st.global.b32 [%0], %1;" ::"l"(address), "r"(word[0]) : "memory");
  }
}

// Copies Bytes bytes from global to shared memory. The block sees them after wait_for_copies and a barrier.
template <int Bytes>
SSIM_DEVICE void copy_async(void* shared, const void* global) {
  static_assert(Bytes == 2 || Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 2) {  // there is no asynchronous copy of 2 bytes
    *static_cast<uint16_t*>(shared) = *static_cast<const uint16_t*>(global);
  } else {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    if constexpr (Bytes == 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(global));
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(address), "l"(global), "n"(Bytes));
    }
#else
    if constexpr (Bytes == 16) *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
    if constexpr (Bytes == 8) *static_cast<uint2*>(shared) = *static_cast<const uint2*>(global);
    if constexpr (Bytes == 4) *static_cast<uint32_t*>(shared) = *static_cast<const uint32_t*>(global);
#endif
  }
}

SSIM_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}

// Ends a group of copies. wait_for_copies_before_last waits for all groups except the last one.
SSIM_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
SSIM_DEVICE void wait_for_copies_before_last() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group 1;\n" ::: "memory");
#endif
}

// Returns 0, 1, 2, ... to the blocks of a launch in the order of their calls. Data that a block wrote before
// its call may be read by load_fresh in blocks with a higher ticket.
SSIM_DEVICE unsigned next_ticket(unsigned* counter) {
  __threadfence();
  const unsigned ticket = atomicAdd(counter, 1u);
  __threadfence();
  return ticket;
}
SSIM_DEVICE double load_fresh(const double* place) { return __ldcg(place); }

template <class T>
SSIM_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
template <class T>
SSIM_DEVICE T shuffle_down(T value, int lanes) {
  return __shfl_down_sync(kAllLanes, value, lanes);
}

}  // namespace ssim_fused::cuda

#endif  // SSIM_SIMT
