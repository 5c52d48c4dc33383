// What is subtracted from pixels and from their differences before moments are taken, so that these stay
// small.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "../math/ssim.h"
#include "problem.h"

namespace ssim_fused::cpu {

// What a sample of choose_pivot_of_flat_areas has seen of the window around it, about the pixel at its
// centre.
class SampledWindow {
 public:
  void add(double x, double y) {
    count_ += 1;
    for_both(x, y, [](double value, double& sum, double& squares) {
      sum += value;
      squares += value * value;
    });
  }
  // Of both images' variances. Not finite if a pixel is not.
  double variances() {
    double total = 0;
    for_both(0, 0, [&](double, double sum, double squares) {
      const double mean = sum / count_;
      total += squares / count_ - mean * mean;
    });
    return total;
  }

 private:
  template <class F>
  void for_both(double x, double y, F&& f) {
    f(x, sums_[0], squares_[0]);
    f(y, sums_[1], squares_[1]);
  }
  double count_ = 0, sums_[2] = {}, squares_[2] = {};
};

// The pivot of target's pixels if these spread so far that the covariance is rounded by more than a fraction
// of c2, as 8-bit pixels with a range of 1 do. Rounding grows with the square of the distance from the pivot,
// and matters where B2 is small: where both images are flat. So this is the mean of samples that are weighted
// by 1 / B2 of the windows around them, rounded to eleven bits of the spread: products of 8-bit pixels stay
// exact in float32. Zero if every sample is masked or not finite.
// `spread`: of the samples of choose_pivots.
template <class T>
T choose_pivot_of_flat_areas(const Problem<T>& problem, Plane plane, int64_t slices, int64_t begin,
                             int64_t end, T spread) {
  constexpr int64_t kAcross = 8;               // samples of a slice, along either axis
  constexpr int64_t kRows = 5, kColumns = 15;  // of a window that are seen, at most
  const Axis &rows = problem.rows, &columns = problem.columns;
  const double c2 = static_cast<double>(problem.c2[static_cast<size_t>(plane.batch)]);
  const double rounding = static_cast<double>(spread) * static_cast<double>(spread) *
                          static_cast<double>(std::numeric_limits<T>::epsilon());
  const int64_t reach = std::min(columns.radius, kColumns / 2);
  double weights = 0, sum = 0;
  const auto sample = [&](int64_t row, int64_t column) {
    const auto read = [&](const Image<T>& image, int64_t line, int64_t from, int64_t to, T* out) {
      image.read_into(out, image.offset(plane), line, from, to - from);
    };
    T centre, is_seen = T(1);
    read(problem.target, row, column, column + 1, &centre);
    if (problem.mask) read(problem.mask, row, column, column + 1, &is_seen);
    if (!std::isfinite(centre) || !(is_seen > 0)) return;
    const int64_t from = std::max<int64_t>(0, column - reach), to = std::min(columns.n, column + reach + 1);
    std::array<T, kColumns> x, y, seen;
    seen.fill(T(1));
    SampledWindow window;
    for (int64_t k = 0; k < kRows; ++k) {
      const int64_t line = row + rows.radius * (2 * k - (kRows - 1)) / (kRows - 1);
      if (line < 0 || line >= rows.n) continue;
      read(problem.preds, line, from, to, x.data());
      read(problem.target, line, from, to, y.data());
      if (problem.mask) read(problem.mask, line, from, to, seen.data());
      for (size_t i = 0; i < static_cast<size_t>(to - from); ++i) {
        if (seen[i] > 0)
          window.add(static_cast<double>(x[i]) - static_cast<double>(centre),
                     static_cast<double>(y[i]) - static_cast<double>(centre));
      }
    }
    const double variances = window.variances();
    if (!std::isfinite(variances)) return;
    const double weight = 1 / (std::max(variances, 0.0) + c2 + rounding);
    weights += weight;
    sum += weight * static_cast<double>(centre);
  };
  for (int64_t k = 1; k <= (slices > 1 ? 3 : 1); ++k) {
    if (slices > 1) plane.slice = slices * k / 4;
    for (int64_t i = 1; i <= kAcross; ++i) {
      for (int64_t j = 1; j <= kAcross; ++j)
        sample(rows.n * i / (kAcross + 1), begin + (end - begin) * j / (kAcross + 1));
    }
  }
  const double quantum = std::ldexp(1.0, std::ilogb(spread) - 10), pivot = sum / weights;
  return std::isfinite(pivot) ? static_cast<T>(std::nearbyint(pivot / quantum) * quantum) : T(0);
}

// For target's pixels, a value near the mean of its slices and of columns [begin, end): the median of a few,
// so that neither an outlier nor a NaN can be chosen, nor a pixel that is masked. For differences, the least
// of those of the same pixels. Zero, from which nothing is rounded, where they lie on both sides of it, or
// where windows see zero padding for the most part. It does not depend on the rows of a march.
template <class T>
Pivots<T> choose_pivots(const Problem<T>& problem, Plane plane, int64_t slices, int64_t begin, int64_t end) {
  if (problem.sees_padding) return {};
  std::array<T, 27> pixels, differences;
  size_t count = 0;
  for (int64_t k = 1; k <= (slices > 1 ? 3 : 1); ++k) {
    if (slices > 1) plane.slice = slices * k / 4;
    for (int64_t i = 1; i <= 3; ++i) {
      for (int64_t j = 1; j <= 3; ++j) {
        T x, y, weight = T(1);
        const int64_t row = problem.rows.n * i / 4, column = begin + (end - begin) * j / 4;
        problem.preds.read_into(&x, problem.preds.offset(plane), row, column, 1);
        problem.target.read_into(&y, problem.target.offset(plane), row, column, 1);
        if (problem.mask) problem.mask.read_into(&weight, problem.mask.offset(plane), row, column, 1);
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
  const auto [least, most] = std::minmax_element(pixels.begin(), pixels.begin() + count);
  const T spread = *most - *least, c2 = problem.c2[static_cast<size_t>(plane.batch)];
  constexpr T kFraction =
      T(64) * std::numeric_limits<T>::epsilon();  // of c2: a spread of 11 ranges in float32
  if (spread * spread * kFraction > c2) {
    pivots.pixels = choose_pivot_of_flat_areas(problem, plane, slices, begin, end, spread);
  } else if (!lie_on_both_sides(pixels)) {
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
