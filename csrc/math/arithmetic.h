// Arithmetic for which a device may have an instruction of its own: cuda/kernels/device.cuh specializes it.
// Host and device; T is float, double, or a vector of either.
#pragma once

#include "host_device.h"

namespace ssim_fused {

// The larger of the two; a NaN in `value` passes through (max(bound, NaN) in the sense of x86's maxps).
template <class T>
SSIM_HOST_DEVICE T clamp_below(T value, T bound) {
  return bound > value ? bound : value;
}

// The smaller of the two; a NaN in `value` passes through.
template <class T>
SSIM_HOST_DEVICE T clamp_above(T value, T bound) {
  return bound < value ? bound : value;
}

template <class T>
SSIM_HOST_DEVICE T reciprocal(T value) {
  return 1 / value;
}

}  // namespace ssim_fused
