// Pivots: values that are subtracted from pixels and from their differences before moments are taken, so
// that the moments are small and lose few digits to rounding.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "../../math/ssim.h"
#include "../pass_spec.h"

namespace ssim_fused::cpu {

// Statistics of the window around a sample of choose_pivot_of_flat_areas. Pixels are added as differences
// from the pixel at the centre.
class SampledWindow {
 public:
  void add(double x, double y) {
    count_ += 1;
    for_both(x, y, [](double value, double& sum, double& squares) {
      sum += value;
      squares += value * value;
    });
  }
  // Returns the sum of both images' variances. It is not finite if a pixel is not.
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

// Returns a pivot for pixels with a spread so large that the covariance would have a rounding error of more
// than a fraction of c2. An example is 8-bit pixels with a data_range of 1.
//
// Rounding grows with the square of the distance from the pivot, and it matters where B2 is small: where
// both images are flat. So the pivot is the mean of target at sampled pixels, weighted by 1 / B2 of the
// windows around them. It is rounded to eleven bits of the spread, so that products of 8-bit pixels stay
// exact in float32. Returns zero if every sample is masked or not finite. `spread` is that of the samples
// of choose_pivots.
template <class T>
T choose_pivot_of_flat_areas(const PassSpec<T>& spec, Plane plane, int64_t slices, int64_t begin, int64_t end,
                             T spread) {
  constexpr int64_t kAcross = 8;  // samples of a slice along each axis
  // Rows and columns of a sample's window that are read, at most.
  constexpr int64_t kRows = 5, kColumns = 15;
  const Axis &rows = spec.rows, &columns = spec.columns;
  const double c2 = static_cast<double>(spec.c2[static_cast<size_t>(plane.batch)]);
  const double rounding = static_cast<double>(spread) * static_cast<double>(spread) *
                          static_cast<double>(std::numeric_limits<T>::epsilon());
  const int64_t reach = std::min(columns.radius, kColumns / 2);
  double weights = 0, sum = 0;
  const auto sample = [&](int64_t row, int64_t column) {
    const auto read = [&](const ImageRows<T>& image, int64_t line, int64_t from, int64_t to, T* out) {
      image.read_into(out, image.offset(plane), line, from, to - from);
    };
    T centre, is_seen = T(1);
    read(spec.target, row, column, column + 1, &centre);
    if (spec.mask) read(spec.mask, row, column, column + 1, &is_seen);
    if (!std::isfinite(centre) || !(is_seen > 0)) return;
    const int64_t from = std::max<int64_t>(0, column - reach), to = std::min(columns.n, column + reach + 1);
    std::array<T, kColumns> x, y, seen;
    seen.fill(T(1));
    SampledWindow window;
    for (int64_t k = 0; k < kRows; ++k) {
      const int64_t line = row + rows.radius * (2 * k - (kRows - 1)) / (kRows - 1);
      if (line < 0 || line >= rows.n) continue;
      read(spec.preds, line, from, to, x.data());
      read(spec.target, line, from, to, y.data());
      if (spec.mask) read(spec.mask, line, from, to, seen.data());
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

// Chooses the pivots for columns [begin, end) of `slices` slices. They do not depend on the rows of a
// march, so that the division into tasks does not change results.
//
// The pivot of the pixels is the median of a few of target's pixels, so that neither an outlier nor a NaN
// nor a masked pixel is chosen. The pivot of the differences is the smallest difference, by magnitude, at
// the same pixels. A pivot is zero, which costs no rounding, if the samples have both signs. Both are zero
// if windows see mostly zero padding.
template <class T>
Pivots<T> choose_pivots(const PassSpec<T>& spec, Plane plane, int64_t slices, int64_t begin, int64_t end) {
  if (spec.sees_padding) return {};
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
  const auto [least, most] = std::minmax_element(pixels.begin(), pixels.begin() + count);
  const T spread = *most - *least, c2 = spec.c2[static_cast<size_t>(plane.batch)];
  // Rounding changes the covariance by about spread^2 epsilon, which is tolerated up to c2 / 64. In float32
  // that is a spread of 11 times data_range.
  constexpr T kFraction = T(64) * std::numeric_limits<T>::epsilon();
  if (spread * spread * kFraction > c2) {
    pivots.pixels = choose_pivot_of_flat_areas(spec, plane, slices, begin, end, spread);
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
