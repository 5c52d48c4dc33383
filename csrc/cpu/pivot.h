// What is subtracted from pixels before their moments are taken, so that these stay small.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "problem.h"

namespace ssim_fused::cpu {

// A value near the mean of target's slices and of columns [begin, end): the median of a few pixels, so that
// neither an outlier nor a NaN can be chosen, nor a pixel that is masked. Zero, from which no pixel is
// rounded, where they lie on both sides of it, or where windows may see nothing but zero padding. It does not
// depend on the rows of a march.
template <class T>
T choose_pivot(const Problem<T>& problem, Plane plane, int64_t slices, int64_t begin, int64_t end) {
  if (!problem.columns.reflects && problem.columns.pad > problem.columns.radius) return T(0);
  const Image<T>& target = problem.target;
  std::array<T, 27> samples;
  size_t count = 0;
  for (int64_t k = 1; k <= (slices > 1 ? 3 : 1); ++k) {
    if (slices > 1) plane.slice = slices * k / 4;
    for (int64_t i = 1; i <= 3; ++i) {
      for (int64_t j = 1; j <= 3; ++j) {
        T sample, weight = T(1);
        const int64_t row = problem.rows.n * i / 4, column = begin + (end - begin) * j / 4;
        target.read_into(&sample, target.offset(plane), row, column, 1);
        if (problem.mask) problem.mask.read_into(&weight, problem.mask.offset(plane), row, column, 1);
        if (std::isfinite(sample) && weight > 0) samples[count++] = sample;
      }
    }
  }
  if (count == 0) return T(0);
  const auto [low, high] = std::minmax_element(samples.begin(), samples.begin() + count);
  if (*low <= 0 && *high >= 0) return T(0);
  std::nth_element(samples.begin(), samples.begin() + count / 2, samples.begin() + count);
  return samples[count / 2];
}

}  // namespace ssim_fused::cpu
