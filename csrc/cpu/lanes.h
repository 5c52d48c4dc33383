// A short vector of T that the compiler keeps in registers, and the loops that are unrolled at compile time.
// GCC and Clang have the type; for other compilers a plain array with loops stands in.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "../math/host_device.h"

namespace ssim_fused {

#if defined(__GNUC__) && !defined(SSIM_FUSED_PLAIN_LANES)
template <class T, int Bytes>
struct LanesOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
#else
template <class T, int Bytes>
struct LanesOf {
  struct type {
    static constexpr int size = Bytes / static_cast<int>(sizeof(T));
    T lane[size];

    template <class F>
    static type map(F f) {
      type r;
      for (int i = 0; i < size; ++i) r.lane[i] = f(i);
      return r;
    }
    T operator[](int i) const { return lane[i]; }
    friend type operator+(const type& x, const type& y) {
      return map([&](int i) { return x.lane[i] + y.lane[i]; });
    }
    friend type operator+(const type& x, T y) {
      return map([&](int i) { return x.lane[i] + y; });
    }
    friend type operator-(const type& x, const type& y) {
      return map([&](int i) { return x.lane[i] - y.lane[i]; });
    }
    friend type operator*(const type& x, const type& y) {
      return map([&](int i) { return x.lane[i] * y.lane[i]; });
    }
    friend type operator*(const type& x, T y) {
      return map([&](int i) { return x.lane[i] * y; });
    }
    friend type operator*(int x, const type& y) { return y * static_cast<T>(x); }
    friend type operator-(int x, const type& y) {
      return map([&](int i) { return x - y.lane[i]; });
    }
    friend type operator/(int x, const type& y) {
      return map([&](int i) { return x / y.lane[i]; });
    }
    friend type operator-(const type& x) {
      return map([&](int i) { return -x.lane[i]; });
    }
    type& operator+=(const type& y) { return *this = *this + y; }
    friend type clamp_below(const type& value, const type& bound) {
      return map([&](int i) { return bound.lane[i] > value.lane[i] ? bound.lane[i] : value.lane[i]; });
    }
  };
};
#endif

template <class T, int Bytes>
using Lanes = typename LanesOf<T, Bytes>::type;

template <class V, class T>
SSIM_HOST_DEVICE V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
SSIM_HOST_DEVICE void store(T* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}

template <class V, class T>
SSIM_HOST_DEVICE V broadcast(T value) {
  return V{} + value;
}

// Calls f with the constants 0 ... N-1: each call sees its index as a type, so arrays of vectors indexed by
// it stay in registers.
template <int N, class F>
SSIM_HOST_DEVICE void unrolled(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

}  // namespace ssim_fused
