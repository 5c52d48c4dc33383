// A window as a filter in registers, for kernels whose threads march along an axis: images' columns
// (strip/column.cuh) and volumes' depth (depth.cuh). Windows have radius at most kRadius.
//
// Positions are counted on the input. An output is named by the position z it is centred on, so the window's
// radius and padding only decide which z exist: radius - pad <= z < n - (radius - pad), always inside the
// input since pad <= radius here. Taps are centred in arrays of kTaps; a shorter window (`Narrow`) skips the
// taps beyond it, because a NaN times zero would be a NaN.
#pragma once

#include "../../math/geometry.h"
#include "device.cuh"
#include "picture.cuh"

namespace ssim_fused::cuda {

constexpr int kRadius = 5;
constexpr int kTaps = 2 * kRadius + 1;

// Whether a window of this radius has tap k. Compiled away but for narrow windows.
template <bool Narrow>
SSIM_DEVICE bool has_tap(int k, int radius) {
  return !Narrow || (k >= kRadius - radius && k <= kRadius + radius);
}

// Transposed FIR: `value` adds to the kTaps sums it belongs to, of which the oldest is complete and leaves.
template <bool Narrow, class T, class TapOf>
SSIM_DEVICE T take_in(T (&sums)[kTaps - 1], T value, int radius, TapOf&& tap) {
  T complete = sums[0];
  if (has_tap<Narrow>(0, radius)) complete += tap(0) * value;
#pragma unroll
  for (int k = 1; k < kTaps - 1; ++k) {
    T next = sums[k];
    if (has_tap<Narrow>(k, radius)) next += tap(k) * value;
    sums[k - 1] = next;
  }
  sums[kTaps - 2] = has_tap<Narrow>(kTaps - 1, radius) ? tap(kTaps - 1) * value : T(0);
  return complete;
}

// The adjoint filter's taps where the reflection folds back: kFoldPlaces sets of taps, for the first and the
// last kRadius outputs along the axis, and for all others.
constexpr int kFoldPlaces = 2 * kRadius + 1;

SSIM_DEVICE int fold_place(const DeviceAxis& axis, int z) {
  const int from_end = z - (axis.n - 2 * kRadius);
  return z >= 0 && z < kRadius ? z : from_end >= kRadius && from_end < 2 * kRadius ? from_end : 2 * kRadius;
}

// How much the derivative at an output z of that place enters the gradient at z - kRadius + k.
template <class T>
SSIM_DEVICE T fold_tap(const DeviceAxis& axis, const T* taps, int place, int k) {
  if (place == 2 * kRadius || !axis.reflects) return taps[k];
  const int z = place < kRadius ? place : axis.n - 2 * kRadius + place;
  const int to = z - kRadius + k;
  const bool is_inside = z >= 0 && to >= 0 && to < axis.n;
  return is_inside ? axis.adjoint_tap(taps + kRadius - axis.radius, to, axis.output_at(z)) : T(0);
}

}  // namespace ssim_fused::cuda
