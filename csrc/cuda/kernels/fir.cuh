// The window as a transposed FIR filter in registers, for kernels whose threads march along an axis: down the
// columns of images (strip/column.cuh) and along the depth of volumes (depth.cuh). The number of sums is
// fixed at compile time by kRadius; windows may be shorter.
//
// Positions count inputs. An output is identified by the input position z that it is centred on, so the
// window's radius and padding only determine which z exist: radius - pad <= z < n - (radius - pad), all
// inside the input because pad <= radius here. Taps are centred in arrays of 2 kRadius + 1. For shorter
// windows (`Narrow`) the taps outside the window are skipped, because a NaN times a zero tap would be a NaN.
#pragma once

#include "../../math/geometry.h"
#include "device.cuh"
#include "problem.cuh"

namespace ssim_fused::cuda {

// Radii that kernels are compiled for. kMarchRadius serves all calls with windows of at most this radius. The
// others serve frequent requests on images whose windows have exactly that radius: kShortRadius for seven
// taps, the default of several libraries, kLongRadius for a Gaussian of sigma 3, whose filters fill the
// registers.
constexpr int kMarchRadius = 5, kShortRadius = 3, kLongRadius = 11;

constexpr int taps_of(int radius) { return 2 * radius + 1; }

// Returns whether a window of this radius has tap k. Constant at compile time unless Narrow.
template <bool Narrow, int kRadius>
SSIM_DEVICE bool has_tap(int k, int radius) {
  return !Narrow || (k >= kRadius - radius && k <= kRadius + radius);
}

// Adds `value` to the kUnfinished sums that it belongs to, each times its tap, and starts a new sum. Returns
// the oldest sum, which is then complete.
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

// The number of sets of taps of the adjoint filter, in which reflection folds taps back: one set for each of
// the first and the last kRadius outputs of the axis, and one for all others.
template <int kRadius>
constexpr int kFoldPlaces = 2 * kRadius + 1;

// Returns the set of taps for output z.
template <int kRadius>
SSIM_DEVICE int fold_place(const DeviceAxis& axis, int z) {
  const int from_end = z - (axis.n - 2 * kRadius);
  return z >= 0 && z < kRadius ? z : from_end >= kRadius && from_end < 2 * kRadius ? from_end : 2 * kRadius;
}

// Returns the weight of the derivative at an output z of this set in the gradient at z - kRadius + k.
template <int kRadius, class T>
SSIM_DEVICE T fold_tap(const DeviceAxis& axis, const T* taps, int place, int k) {
  if (place == 2 * kRadius || !axis.reflects) return taps[k];
  const int z = place < kRadius ? place : axis.n - 2 * kRadius + place;
  const int to = z - kRadius + k;
  const bool is_inside = z >= 0 && to >= 0 && to < axis.n;
  return is_inside ? axis.adjoint_tap(taps + kRadius - axis.radius, to, axis.output_at(z)) : T(0);
}

}  // namespace ssim_fused::cuda
