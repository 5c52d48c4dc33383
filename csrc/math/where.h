// A choice between two numbers, or lane by lane between two vectors. Host and device.
#pragma once

#include <limits>
#include <type_traits>

#include "host_device.h"

namespace ssim_fused {

// `chosen` where `first` or `second` is not zero, else `other`, whatever the one that is not taken is. Of
// vectors by their bits: where they have 64 bytes, GCC compares with != lane by lane.
template <class T>
SSIM_HOST_DEVICE T where_any(T first, T second, T chosen, T other) {
  if constexpr (std::is_arithmetic_v<T>) {
    return first != T{} || second != T{} ? chosen : other;
  } else {
    using Bits = decltype(first < second);  // a vector of integers
    using Lane = std::remove_cvref_t<decltype(Bits{}[0])>;
    const Bits magnitude = (reinterpret_cast<Bits>(first) | reinterpret_cast<Bits>(second)) &
                           (Bits{} + std::numeric_limits<Lane>::max());
    const Bits any = (Bits{} - magnitude) >> std::numeric_limits<Lane>::digits;  // the sign, in every bit
    return reinterpret_cast<T>((reinterpret_cast<Bits>(chosen) & any) |
                               (reinterpret_cast<Bits>(other) & ~any));
  }
}

}  // namespace ssim_fused
