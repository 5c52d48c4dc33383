// A loss term of single pixels next to SSIM: its value for a difference x - y, and the slope. Host and
// device.
//
//     value = pixel_weight * mean phi(x - y) + ssim_weight * (1 - SSIM)
//
//     L1: |d|      L2: d^2      Charbonnier: sqrt(d^2 + eps^2)
//
// The slope of |d| at 0 is 0. phi is even, so the images may be exchanged; the slope by y is minus that by x.
//
// A new term is added in this file alone, as docs/extending.md shows: an enumerator, its name, a case of
// with_pixel_term, a formula.
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

// The terms' names in calls, in the order of the enumerators.
inline constexpr std::string_view kPixelTermNames[] = {"none", "l1", "l2", "charbonnier"};

// Whether the term has the constant eps, which then has to be positive.
constexpr bool has_eps(PixelTerm term) { return term == PixelTerm::charbonnier; }

// Returns f<term>() for a term that is known at run time. This is the only switch over terms, without a
// default: compilers warn of a term that has no case.
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

// The term of this name, if there is one.
inline std::optional<PixelTerm> pixel_term_of(std::string_view name) {
  int term = 0;
  for (std::string_view known : kPixelTermNames) {
    if (name == known) return static_cast<PixelTerm>(term);
    ++term;
  }
  return std::nullopt;
}

// For error messages: 'l1', 'l2' or 'charbonnier', after 'none' if `with_none`.
inline std::string pixel_term_names(bool with_none) {
  std::string text;
  const size_t count = std::size(kPixelTermNames), first = with_none ? 0 : 1;
  for (size_t i = first; i < count; ++i) {
    if (i > first) text += i + 1 == count ? " or " : ", ";
    text.append("'").append(kPixelTermNames[i]).append("'");
  }
  return text;
}

// The square root of a number, or of each lane of a vector.
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

// T is float, double, or a vector of either. A NaN in the difference is a NaN in value and slope, unless
// there is no term.
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

// The same times the weight that a mask gives a pixel. What is masked is selected away, whatever it is.
template <PixelTerm term, class T>
SSIM_HOST_DEVICE ValueAndSlope<T> masked_pixel_term(T difference, T weight, T eps_squared) {
  const auto phi = pixel_term<term, T>(weight > T{} ? difference : T{}, eps_squared);
  return {weight * phi.value, weight * phi.slope};
}

// The same as pixel_term<term> for a term that is known at run time.
template <class T>
SSIM_HOST_DEVICE ValueAndSlope<T> pixel_term(PixelTerm term, T difference, T eps_squared) {
  return with_pixel_term(term,
                         [&]<PixelTerm known>() { return pixel_term<known, T>(difference, eps_squared); });
}

}  // namespace ssim_fused
