// Selects one of two numbers, or of two vectors lane by lane. For host and device.
#pragma once

#include <limits>
#include <type_traits>

#include "host_device.h"

namespace ssim_fused {

// Returns `chosen` if `first` or `second` is not zero, else `other`. The value that is not selected has no
// effect, even if it is NaN. Vectors are selected by their bits, because GCC compiles `!=` on 64-byte vectors
// to scalar comparisons.
template <class T>
SSIM_HOST_DEVICE T where_any(T first, T second, T chosen, T other) {
  if constexpr (std::is_arithmetic_v<T>) {
    return first != T{} || second != T{} ? chosen : other;
  } else {
    using Bits = decltype(first < second);  // a vector of integers of the same lane size
    using Lane = std::remove_cvref_t<decltype(Bits{}[0])>;
    const Bits magnitude = (reinterpret_cast<Bits>(first) | reinterpret_cast<Bits>(second)) &
                           (Bits{} + std::numeric_limits<Lane>::max());
    const Bits any = (Bits{} - magnitude) >> std::numeric_limits<Lane>::digits;  // all ones or zero
    return reinterpret_cast<T>((reinterpret_cast<Bits>(chosen) & any) |
                               (reinterpret_cast<Bits>(other) & ~any));
  }
}

}  // namespace ssim_fused
