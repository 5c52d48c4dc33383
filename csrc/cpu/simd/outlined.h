// Compiles the stages of a march as separate functions for the march's instruction set. Inlined into one
// function they would share too few registers.
#pragma once

#include "instruction_set.h"
#include "lanes.h"

namespace ssim_fused::cpu {

template <int Bytes>
struct Outlined {
  template <class F>
  __attribute__((noinline)) static void call(const F& f) {
    f();
  }
};

#if defined(SSIM_X86_TARGETS)
template <>
struct Outlined<32> {
  template <class F>
  __attribute__((noinline)) SSIM_TARGET_AVX2 static void call(const F& f) {
    f();
  }
};

template <>
struct Outlined<64> {
  template <class F>
  __attribute__((noinline)) SSIM_TARGET_AVX512 static void call(const F& f) {
    f();
  }
};
#endif

// Calls f in a function that is not inlined and is compiled for the instruction set whose vectors have
// `Bytes` bytes.
template <int Bytes, class F>
SSIM_INLINE void outlined(const F& f) {
  Outlined<Bytes>::call(f);
}

// Hides the value of p from the optimizer, so that what p points to is loaded again instead of kept in
// registers.
template <class T>
SSIM_INLINE void hide(const T*& p) {
  asm("" : "+r"(p));
}

}  // namespace ssim_fused::cpu
