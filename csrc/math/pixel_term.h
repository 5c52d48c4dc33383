// A term of single pixels beside SSIM: what it makes of a difference x - y, with its slope. Host and device.
//
//     value = pixel_weight * mean phi(x - y) + ssim_weight * (1 - SSIM)
//
//     L1: |d|      L2: d^2      Charbonnier: sqrt(d^2 + eps^2)
//
// The slope of |d| at 0 is 0. phi is even, so the images may be exchanged; the slope by y is minus that by x.
#pragma once

#include <cmath>
#include <type_traits>

#include "host_device.h"

namespace ssim_fused {

enum class PixelTerm { none, l1, l2, charbonnier };

// Of a number, or of each lane of a vector.
template <class T>
SSIM_HOST_DEVICE T square_root(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::sqrt(value);
  } else {
    for (unsigned k = 0; k < sizeof value / sizeof value[0]; ++k) value[k] = std::sqrt(value[k]);
    return value;
  }
}

template <class T>
struct ValueAndSlope {
  T value, slope;
};

// A NaN stays one, in both. T is float, double, or a vector of either.
template <PixelTerm term, class T>
SSIM_HOST_DEVICE ValueAndSlope<T> pixel_term(T difference, T eps_squared) {
  if constexpr (term == PixelTerm::l1) {
    const T one = T{} + 1, minus_one = T{} - 1;
    const T below = difference < 0 ? minus_one : difference;
    return {difference < 0 ? -difference : difference, difference > 0 ? one : below};
  } else if constexpr (term == PixelTerm::l2) {
    return {difference * difference, difference + difference};
  } else {
    const T root = square_root(difference * difference + eps_squared);
    return {root, difference / root};
  }
}

// The same times the weight that a mask gives a pixel. What is masked is selected away, whatever it is.
template <PixelTerm term, class T>
SSIM_HOST_DEVICE ValueAndSlope<T> masked_pixel_term(T difference, T weight, T eps_squared) {
  const auto phi = pixel_term<term, T>(weight > T{} ? difference : T{}, eps_squared);
  return {weight * phi.value, weight * phi.slope};
}

// The same for a term that is known when it runs.
template <class T>
SSIM_HOST_DEVICE ValueAndSlope<T> pixel_term(PixelTerm term, T difference, T eps_squared) {
  switch (term) {
    case PixelTerm::l1:
      return pixel_term<PixelTerm::l1>(difference, eps_squared);
    case PixelTerm::l2:
      return pixel_term<PixelTerm::l2>(difference, eps_squared);
    case PixelTerm::charbonnier:
      return pixel_term<PixelTerm::charbonnier>(difference, eps_squared);
    default:
      return {T(0), T(0)};
  }
}

}  // namespace ssim_fused
