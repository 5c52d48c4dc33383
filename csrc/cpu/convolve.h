// The window along a row and down a ring of rows, a vector of outputs at a time, for several fields at once.
// The radius is compiled (`Radius`) or, where Radius is -1, taken from `radius`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lanes.h"
#include "problem.h"

namespace ssim_fused::cpu {

// One vector of each of N convolutions along a row; row n starts at in + n * stride.
template <int Radius, int N, class V, class T>
SSIM_INLINE void along_row(V (&sum)[N], const T* in, int64_t stride, const T* taps, int64_t radius) {
  unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] = V{}; });
  if constexpr (Radius >= 0) {
    unrolled<2 * Radius + 1>([&](auto k) SSIM_INLINE_LAMBDA {
      unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] += load<V>(in + m * stride + k) * taps[k]; });
    });
  } else {
    for (int64_t k = 0; k <= 2 * radius; ++k) {
      unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] += load<V>(in + m * stride + k) * taps[k]; });
    }
  }
}

// One vector of each of N convolutions down a ring, for kStepRows outputs; output j reads rows j ... j + 2
// radius.
template <int Radius, int N, class V, class T>
SSIM_INLINE void down_rows(V (&sum)[N][kStepRows], const T* in, int64_t row, int64_t field, const T* taps,
                           int64_t radius) {
  unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
    unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA { sum[m][j] = V{}; });
  });
  // A tap outside the window is left out, not multiplied by zero, so that a NaN does not reach beyond it.
  if constexpr (Radius >= 0) {
    unrolled<2 * Radius + kStepRows>([&](auto k) SSIM_INLINE_LAMBDA {
      unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
        const V v = load<V>(in + k * row + m * field);
        unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
          if constexpr (k >= j && k - j <= 2 * Radius) sum[m][j] += v * taps[k - j];
        });
      });
    });
  } else {
    const auto step = [&](int64_t k, auto is_inside) SSIM_INLINE_LAMBDA {
      unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
        const V v = load<V>(in + k * row + m * field);
        unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
          if (is_inside || (k >= j && k - j <= 2 * radius)) sum[m][j] += v * taps[k - j];
        });
      });
    };
    const int64_t size = 2 * radius + 1;
    const int64_t full = std::max<int64_t>(size, kStepRows - 1);  // below it every output reads row k
    for (int64_t k = 0; k < kStepRows - 1; ++k) step(k, std::false_type{});
    for (int64_t k = kStepRows - 1; k < full; ++k) step(k, std::true_type{});
    for (int64_t k = full; k < size + kStepRows - 1; ++k) step(k, std::false_type{});
  }
}

}  // namespace ssim_fused::cpu
