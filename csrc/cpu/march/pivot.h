// What is subtracted from pixels and from their differences before moments are taken, so that these stay
// small.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "../../math/ssim.h"
#include "../pass_spec.h"

namespace ssim_fused::cpu {

// For target's pixels, a value near the mean of its slices and of columns [begin, end): the median of a few,
// so that neither an outlier nor a NaN can be chosen, nor a pixel that is masked. For differences, the least
// of those of the same pixels. Zero, from which nothing is rounded, where they lie on both sides of it, or
// where windows may see nothing but zero padding. It does not depend on the rows of a march.
template <class T>
Pivots<T> choose_pivots(const PassSpec<T>& spec, Plane plane, int64_t slices, int64_t begin, int64_t end) {
  if (!spec.columns.reflects && spec.columns.pad > spec.columns.radius) return {};
  std::array<T, 27> pixels, differences;
  size_t count = 0;
  for (int64_t k = 1; k <= (slices > 1 ? 3 : 1); ++k) {
    if (slices > 1) plane.slice = slices * k / 4;
    for (int64_t i = 1; i <= 3; ++i) {
      for (int64_t j = 1; j <= 3; ++j) {
        T x, y, weight = T(1);
        const int64_t row = spec.rows.n * i / 4, column = begin + (end - begin) * j / 4;
        spec.preds.read_into(&x, spec.preds.offset(plane), row, column, 1);
        spec.target.read_into(&y, spec.target.offset(plane), row, column, 1);
        if (spec.mask) spec.mask.read_into(&weight, spec.mask.offset(plane), row, column, 1);
        if (!std::isfinite(x - y) || !(weight > 0)) continue;
        pixels[count] = y;
        differences[count++] = x - y;
      }
    }
  }
  if (count == 0) return {};
  const auto lie_on_both_sides = [&](const std::array<T, 27>& samples) {
    const auto [low, high] = std::minmax_element(samples.begin(), samples.begin() + count);
    return *low <= 0 && *high >= 0;
  };
  Pivots<T> pivots{};
  if (!lie_on_both_sides(pixels)) {
    std::nth_element(pixels.begin(), pixels.begin() + count / 2, pixels.begin() + count);
    pivots.pixels = pixels[count / 2];
  }
  if (!lie_on_both_sides(differences)) {
    pivots.differences = *std::min_element(differences.begin(), differences.begin() + count,
                                           [](T a, T b) { return std::abs(a) < std::abs(b); });
  }
  return pivots;
}

}  // namespace ssim_fused::cpu
