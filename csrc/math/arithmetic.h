// Arithmetic for which a device may have its own instruction; cuda/kernels/device.cuh specializes these
// templates. For host and device; T is float, double, or a vector of either.
#pragma once

#include "host_device.h"

namespace ssim_fused {

// Returns the larger of `value` and `bound`. A NaN in `value` is returned as it is, as by x86's maxps(bound,
// NaN).
template <class T>
SSIM_HOST_DEVICE T clamp_below(T value, T bound) {
  return bound > value ? bound : value;
}

// Returns the smaller of `value` and `bound`. A NaN in `value` is returned as it is.
template <class T>
SSIM_HOST_DEVICE T clamp_above(T value, T bound) {
  return bound < value ? bound : value;
}

template <class T>
SSIM_HOST_DEVICE T reciprocal(T value) {
  return 1 / value;
}

}  // namespace ssim_fused
