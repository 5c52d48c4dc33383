// What the kernels need of a GPU beyond plain C++: warps, shared memory, asynchronous copies, 16-bit floats,
// fast arithmetic. The host build of the kernels (tests/simt/simt.h) and HIP (device_hip.cuh) define the same
// names. Nothing else in the kernels is specific to CUDA: this is the only file with PTX, NVIDIA's intrinsics
// of warps and the size of a warp (tests/test_sources.py).
#pragma once

#include <cstdint>

#include "../../math/arithmetic.h"

namespace ssim_fused::cuda {

// Lanes of a warp: 32 on NVIDIA's GPUs, 64 on AMD's for data centers. The tests compile the kernels for both.
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
// A function that runs a barrier for its caller takes, and passes on, the place of the call: only the host's
// harness has one (tests/simt/sites.h).
#define SSIM_CALLER_PARAM
#define SSIM_CALLER

namespace ssim_fused {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// One instruction each; plain fmaxf and fminf would swallow the NaN.
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
// One MUFU instruction, within 1 ulp; the formula (math/ssim.h) does not need a correctly rounded quotient.
template <>
SSIM_HOST_DEVICE float reciprocal(float value) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
#endif

}  // namespace ssim_fused

namespace ssim_fused::cuda {

// A set of a warp's lanes, and the whole warp.
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

// The same number, of which the compiler does not know it: what is computed from it need not stay in a
// register, or is not computed again from what the number came from.
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

// Global memory, of which the compiler then knows that it is.
template <class T>
SSIM_DEVICE T* global_memory(uint64_t address) {
  return static_cast<T*>(__cvta_global_to_generic(address));
}

SSIM_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

// Writes Bytes bytes to global memory, which is aligned to them, in one instruction: what the compiler makes
// of an assignment may be several.
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

// Copies Bytes bytes from global to shared memory, visible to the block after wait_for_copies and a barrier.
template <int Bytes>
SSIM_DEVICE void copy_async(void* shared, const void* global) {
  static_assert(Bytes == 2 || Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 2) {  // smaller than the hardware's asynchronous copies
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

// Copies belong together up to the next of these; then one may wait for all but the last such group.
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

// Numbers for the blocks of a launch in the order in which they ask: what one wrote before it asked, those
// that ask later may read by load_fresh.
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
