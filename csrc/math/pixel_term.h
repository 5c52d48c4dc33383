// Per-pixel loss terms that are combined with SSIM: the value phi of a difference x - y, and its slope. For
// host and device.
//
//     value = pixel_weight * mean phi(x - y) + ssim_weight * (1 - SSIM)
//
//     l1: |d|      l2: d^2      charbonnier: sqrt(d^2 + eps^2)
//
// The slope of |d| at 0 is 0. phi is even, so the images may be exchanged; the slope with respect to y is
// minus the slope with respect to x.
//
// To add a term, change this file alone: an enumerator, its name, a case of with_pixel_term and a formula
// (docs/extending.md has an example).
#pragma once

#include <cmath>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "host_device.h"

namespace ssim_fused {

enum class PixelTerm { none, l1, l2, charbonnier };

// The names of the terms in calls, in the order of the enumerators.
inline constexpr std::string_view kPixelTermNames[] = {"none", "l1", "l2", "charbonnier"};

// Returns whether the term uses the constant eps, which then must be positive.
constexpr bool has_eps(PixelTerm term) { return term == PixelTerm::charbonnier; }

// Calls f<term>() for a term that is known at run time, and returns the result. This is the only switch over
// terms. It has no `default`, so that compilers warn of a term without a case.
template <class F>
SSIM_HOST_DEVICE auto with_pixel_term(PixelTerm term, F&& f) {
  switch (term) {
    case PixelTerm::none:
      break;
    case PixelTerm::l1:
      return f.template operator()<PixelTerm::l1>();
    case PixelTerm::l2:
      return f.template operator()<PixelTerm::l2>();
    case PixelTerm::charbonnier:
      return f.template operator()<PixelTerm::charbonnier>();
  }
  return f.template operator()<PixelTerm::none>();
}

// Returns the term with this name, or nullopt if there is none.
inline std::optional<PixelTerm> pixel_term_of(std::string_view name) {
  int term = 0;
  for (std::string_view known : kPixelTermNames) {
    if (name == known) return static_cast<PixelTerm>(term);
    ++term;
  }
  return std::nullopt;
}

// Returns the list of names for error messages: "'l1', 'l2' or 'charbonnier'", starting with 'none' if
// `with_none`.
inline std::string pixel_term_names(bool with_none) {
  std::string text;
  const size_t count = std::size(kPixelTermNames), first = with_none ? 0 : 1;
  for (size_t i = first; i < count; ++i) {
    if (i > first) text += i + 1 == count ? " or " : ", ";
    text.append("'").append(kPixelTermNames[i]).append("'");
  }
  return text;
}

// Returns the square root of a number, or of each lane of a vector.
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

// Returns phi(difference) and its slope. T is float, double, or a vector of either. A NaN in the difference
// gives NaN in the value and the slope, except for PixelTerm::none.
template <PixelTerm term, class T>
SSIM_HOST_DEVICE ValueAndSlope<T> pixel_term(T difference, T eps_squared) {
  if constexpr (term == PixelTerm::none) {
    return {T{}, T{}};
  } else if constexpr (term == PixelTerm::l1) {
    const T one = T{} + 1, minus_one = T{} - 1;
    const T below = difference < 0 ? minus_one : difference;
    return {difference < 0 ? -difference : difference, difference > 0 ? one : below};
  } else if constexpr (term == PixelTerm::l2) {
    return {difference * difference, difference + difference};
  } else {
    static_assert(term == PixelTerm::charbonnier, "this term has no formula");
    const T root = square_root(difference * difference + eps_squared);
    return {root, difference / root};
  }
}

// Returns phi and its slope times `weight`, the mask at this pixel. The difference is replaced by 0 if the
// weight is 0, so that a NaN under the mask has no effect.
template <PixelTerm term, class T>
SSIM_HOST_DEVICE ValueAndSlope<T> masked_pixel_term(T difference, T weight, T eps_squared) {
  const auto phi = pixel_term<term, T>(weight > T{} ? difference : T{}, eps_squared);
  return {weight * phi.value, weight * phi.slope};
}

// Returns phi(difference) and its slope for a term that is known at run time.
template <class T>
SSIM_HOST_DEVICE ValueAndSlope<T> pixel_term(PixelTerm term, T difference, T eps_squared) {
  return with_pixel_term(term,
                         [&]<PixelTerm known>() { return pixel_term<known, T>(difference, eps_squared); });
}

}  // namespace ssim_fused
