// The choice of the pivot that is subtracted from pixels before moments are computed: for a strip, by the
// block that marches down it; for a volume or a plane that several kernels process, by a separate kernel.
#pragma once

#include <cmath>
#include <cstdint>

#include "device.cuh"
#include "mask.cuh"
#include "problem.cuh"

namespace ssim_fused::cuda {

// Returns the median of the samples of a warp's first kSamples lanes, in every lane. Neither an outlier nor a
// NaN can be chosen. Returns zero if there are samples on both sides of it, because subtracting zero rounds
// no pixel.
template <int kSamples, class T>
SSIM_DEVICE T median_or_zero(T sample, int lane) {
  const int finite = lane < kSamples && sample - sample == T(0);
  int count = 0, rank = 0;
  bool some_below = false, some_above = false;
  for (int k = 0; k < kSamples; ++k) {
    const T other = shuffle(sample, k);
    if (!shuffle(finite, k)) continue;  // `finite` of lane k, the same for all lanes
    ++count;
    some_below |= other <= T(0);
    some_above |= other >= T(0);
    rank += other < sample || (other == sample && k < lane);
  }
  T pivot = T(0);
  for (int k = 0; k < kSamples; ++k) {
    const T candidate = shuffle(sample, k);
    if (shuffle(finite && rank == count / 2 ? 1 : 0, k)) pivot = candidate;
  }
  return some_below && some_above ? T(0) : pivot;
}

// Returns a value near the mean of the target in the rectangle [row, row + rows) x [column, column +
// columns), from nine of its pixels. Called by one warp.
template <class T, class Plane>
SSIM_DEVICE T choose_pivot(const Plane& plane, int64_t row_stride, int64_t column_stride, int row, int rows,
                           int column, int columns, int lane) {
  constexpr int kSamples = 9;
  T sample = T(0);
  if (lane < kSamples) {
    const int64_t i = row + static_cast<int64_t>(rows) * (lane / 3 + 1) / 4;
    const int64_t j = column + static_cast<int64_t>(columns) * (lane % 3 + 1) / 4;
    sample = to_compute(plane[i * row_stride + j * column_stride]);
  }
  return median_or_zero<kSamples>(sample, lane);
}

template <class Storage>
struct PivotParams {
  DeviceImage<const Storage> target;
  int64_t channels;
  int depth, rows, columns;
  ComputeOf<Storage>* pivots;  // [B * C]
  Weights mask;                // pixels under the mask are not sampled
};

// Chooses the pivot of each volume, one warp per volume. Its slices share the pivot, since the window along
// the depth mixes their moments.
template <class Storage>
SSIM_KERNEL(kWarpSize, 1)
pivot_kernel(SSIM_PARAMS PivotParams<Storage> p) {
  constexpr int kSamples = 27;
  const int lane = threadIdx.x;
  const int64_t volume = blockIdx.x;
  ComputeOf<Storage> sample{};
  if (lane < kSamples) {
    const int64_t slice = static_cast<int64_t>(p.depth) * (lane / 9 + 1) / 4,
                  row = static_cast<int64_t>(p.rows) * (lane / 3 % 3 + 1) / 4,
                  column = static_cast<int64_t>(p.columns) * (lane % 3 + 1) / 4;
    sample = to_compute(p.target.plane(
        volume / p.channels, volume % p.channels)[slice * p.target.slice_stride + row * p.target.stride[2] +
                                                  column * p.target.stride[3]]);
    if (p.mask.data) {
      const int64_t at = p.mask.offset(volume / p.channels, volume % p.channels, slice, row, column);
      if (p.mask.template at<ComputeOf<Storage>>(at) == 0) sample = INFINITY;
    }
  }
  const auto pivot = median_or_zero<kSamples>(sample, lane);
  if (lane == 0) p.pivots[volume] = pivot;
}

}  // namespace ssim_fused::cuda
