// Short vectors that the compiler keeps in registers, and loops that are unrolled at compile time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace ssim_fused::cpu {

// Inlines a function into the marches, so that it is compiled for their instruction set.
#define SSIM_INLINE inline __attribute__((always_inline))
#define SSIM_INLINE_LAMBDA __attribute__((always_inline))

template <class T, int Bytes>
struct LanesOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T, int Bytes>
using Lanes = typename LanesOf<T, Bytes>::type;

template <class V, class T>
SSIM_INLINE V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
SSIM_INLINE void store(T* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}

template <class V, class T>
SSIM_INLINE V broadcast(T value) {
  return V{} + value;
}

// Returns the vector 0, 1, 2, ...
template <class V>
SSIM_INLINE V numbers() {
  V v{};
  for (size_t k = 0; k < sizeof v / sizeof v[0]; ++k)
    v[k] = static_cast<std::remove_cvref_t<decltype(v[0])>>(k);
  return v;
}

// Calls f with the constants 0 ... N-1. Each call gets its index as a type, so that arrays of vectors
// indexed by it stay in registers.
template <int N, class F>
SSIM_INLINE void unrolled(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

}  // namespace ssim_fused::cpu
