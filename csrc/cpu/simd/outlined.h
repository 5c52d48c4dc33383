// Stages of a march as functions of their own, each in the march's instruction set: inlined into one, they
// would share too few registers.
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

// Calls f, which is inlined nowhere else, in the instruction set that vectors of so many bytes belong to.
template <int Bytes, class F>
SSIM_INLINE void outlined(const F& f) {
  Outlined<Bytes>::call(f);
}

// What p points to is nothing that the compiler knows.
template <class T>
SSIM_INLINE void hide(const T*& p) {
  asm("" : "+r"(p));
}

}  // namespace ssim_fused::cpu
