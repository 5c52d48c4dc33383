// The names of device.cuh for AMD's GPUs, compiled by HIP. Experimental: compiled in the tests, not yet run.
//
// A wavefront, here a warp, has 64 lanes on GPUs for data centers (gfx9) and 32 on others (gfx10 and later).
// The host's code depends on that number too, so a build is for one of them: setup.py defines
// SSIM_FUSED_WARP_SIZE. These GPUs have no equivalent of cp.async.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>
#include <type_traits>

#define SSIM_DEVICE __device__ __forceinline__
// `blocks` is ignored. It limits registers, so that this many blocks fit an NVIDIA SM. On AMD GPUs the 64 KiB
// of shared memory of a compute unit limit the blocks of the large kernels, and the compiler takes this into
// account when it allocates registers.
#define SSIM_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads)
#define SSIM_PARAMS const
#define SSIM_CALLER_PARAM
#define SSIM_CALLER

namespace ssim_fused {

#if defined(__HIP_DEVICE_COMPILE__)
// One instruction, within 1 ulp.
template <>
SSIM_HOST_DEVICE float reciprocal(float value) {
  return __builtin_amdgcn_rcpf(value);
}
#endif

}  // namespace ssim_fused

namespace ssim_fused::cuda {

#if defined(__HIP_DEVICE_COMPILE__) && defined(__GFX9__)
static_assert(kWarpSize == 64, "SSIM_FUSED_WARP_SIZE is not the size of a wavefront of gfx9");
#elif defined(__HIP_DEVICE_COMPILE__)
static_assert(kWarpSize == 32, "SSIM_FUSED_WARP_SIZE is not the size of a wavefront here");
#endif

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

SSIM_DEVICE double to_compute(double value) { return value; }
SSIM_DEVICE float to_compute(float value) { return value; }
SSIM_DEVICE float to_compute(Half value) { return static_cast<float>(__builtin_bit_cast(_Float16, value)); }
SSIM_DEVICE float to_compute(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

SSIM_DEVICE void store_as(double& out, double value) { out = value; }
SSIM_DEVICE void store_as(float& out, float value) { out = value; }
SSIM_DEVICE void store_as(Half& out, float value) {
  out = __builtin_bit_cast(Half, static_cast<_Float16>(value));
}
SSIM_DEVICE void store_as(BFloat16& out, float value) {
  const uint32_t bits = __float_as_uint(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out.bits = is_nan ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Hides the value from the optimizer.
template <class Number>
SSIM_DEVICE Number opaque(Number number) {
  asm volatile("" : "+v"(number));
  return number;
}
SSIM_DEVICE unsigned opaque(decltype(threadIdx.x) number) { return opaque<unsigned>(number); }

// The lanes of a wavefront run in lockstep: only the compiler must not move accesses to memory.
SSIM_DEVICE void sync_warp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

// Pointers of this type are known to point to global memory.
template <class T>
using Global = __attribute__((address_space(1))) T;

template <class T>
SSIM_DEVICE T* global_memory(uint64_t address) {
  return (T*)(Global<T>*)address;  // NOLINT: no C++ cast leaves an address space
}

SSIM_DEVICE char* shared_memory() {
  extern __shared__ char memory[] __attribute__((aligned(16)));
  return memory;
}

template <int Bytes>
using Words = uint32_t __attribute__((ext_vector_type(Bytes / 4)));

template <int Bytes>
SSIM_DEVICE void store_vector(void* global, const void* values) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 4) {
    *static_cast<uint32_t*>(global) = *static_cast<const uint32_t*>(values);
  } else {
    const uint32_t* const word = static_cast<const uint32_t*>(values);
    Words<Bytes> vector;
    for (int i = 0; i < Bytes / 4; ++i) vector[i] = word[i];
    *static_cast<Words<Bytes>*>(global) = vector;
  }
}

// The copy is done when the function returns; a barrier makes it visible to the block.
template <int Bytes>
SSIM_DEVICE void copy_async(void* shared, const void* global) {
  static_assert(Bytes == 2 || Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 2) {
    *static_cast<uint16_t*>(shared) = *static_cast<const uint16_t*>(global);
  } else if constexpr (Bytes == 4) {
    *static_cast<uint32_t*>(shared) = *static_cast<const uint32_t*>(global);
  } else {
    *static_cast<Words<Bytes>*>(shared) = *static_cast<const Words<Bytes>*>(global);
  }
}
SSIM_DEVICE void wait_for_copies() {}
SSIM_DEVICE void commit_copies() {}
SSIM_DEVICE void wait_for_copies_before_last() {}

SSIM_DEVICE unsigned next_ticket(unsigned* counter) {
  __threadfence();
  const unsigned ticket = atomicAdd(counter, 1u);
  __threadfence();
  return ticket;
}
// Reads what other compute units wrote: not from the compute unit's own cache.
SSIM_DEVICE double load_fresh(const double* place) {
  return __hip_atomic_load(place, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

template <class T>
SSIM_DEVICE T shuffle(T value, int lane) {
  return __shfl(value, lane, kWarpSize);
}
template <class T>
SSIM_DEVICE T shuffle_down(T value, int lanes) {
  return __shfl_down(value, lanes, kWarpSize);
}

}  // namespace ssim_fused::cuda
