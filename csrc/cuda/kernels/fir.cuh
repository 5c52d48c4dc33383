// A window as a filter in registers, for kernels whose threads march along an axis: images' columns
// (strip/column.cuh) and volumes' depth (depth.cuh). What a kernel's filters hold is compiled for a radius,
// kRadius below, and windows have at most that.
//
// Positions are counted on the input. An output is named by the position z it is centred on, so the window's
// radius and padding only decide which z exist: radius - pad <= z < n - (radius - pad), always inside the
// input since pad <= radius here. Taps are centred in arrays of 2 kRadius + 1; a shorter window (`Narrow`)
// skips the taps beyond it, because a NaN times zero would be a NaN.
#pragma once

#include "../../math/geometry.h"
#include "device.cuh"
#include "problem.cuh"

namespace ssim_fused::cuda {

// Of the kernels that serve every call; and of those for windows of exactly that radius, which serve what is
// asked most of images: seven taps, the default of several libraries, and a Gaussian of sigma 3, whose
// filters fill the registers.
constexpr int kMarchRadius = 5, kShortRadius = 3, kLongRadius = 11;

constexpr int taps_of(int radius) { return 2 * radius + 1; }

// Whether a window of this radius has tap k. Compiled away but for narrow windows.
template <bool Narrow, int kRadius>
SSIM_DEVICE bool has_tap(int k, int radius) {
  return !Narrow || (k >= kRadius - radius && k <= kRadius + radius);
}

// Transposed FIR: `value` adds to the sums it belongs to, one for each tap, of which the oldest is complete
// and leaves.
template <bool Narrow, int kUnfinished, class T, class TapOf>
SSIM_DEVICE T push(T (&sums)[kUnfinished], T value, int radius, TapOf&& tap) {
  constexpr int kRadius = kUnfinished / 2;
  T complete = sums[0];
  if (has_tap<Narrow, kRadius>(0, radius)) complete += tap(0) * value;
#pragma unroll
  for (int k = 1; k < kUnfinished; ++k) {
    T next = sums[k];
    if (has_tap<Narrow, kRadius>(k, radius)) next += tap(k) * value;
    sums[k - 1] = next;
  }
  sums[kUnfinished - 1] = has_tap<Narrow, kRadius>(kUnfinished, radius) ? tap(kUnfinished) * value : T(0);
  return complete;
}

// The adjoint filter's taps where the reflection folds back: kFoldPlaces sets of taps, for the first and the
// last kRadius outputs along the axis, and for all others.
template <int kRadius>
constexpr int kFoldPlaces = 2 * kRadius + 1;

template <int kRadius>
SSIM_DEVICE int fold_place(const DeviceAxis& axis, int z) {
  const int from_end = z - (axis.n - 2 * kRadius);
  return z >= 0 && z < kRadius ? z : from_end >= kRadius && from_end < 2 * kRadius ? from_end : 2 * kRadius;
}

// How much the derivative at an output z of that place enters the gradient at z - kRadius + k.
template <int kRadius, class T>
SSIM_DEVICE T fold_tap(const DeviceAxis& axis, const T* taps, int place, int k) {
  if (place == 2 * kRadius || !axis.reflects) return taps[k];
  const int z = place < kRadius ? place : axis.n - 2 * kRadius + place;
  const int to = z - kRadius + k;
  const bool is_inside = z >= 0 && to >= 0 && to < axis.n;
  return is_inside ? axis.adjoint_tap(taps + kRadius - axis.radius, to, axis.output_at(z)) : T(0);
}

}  // namespace ssim_fused::cuda
