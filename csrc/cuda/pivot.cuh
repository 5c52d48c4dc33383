// One pivot for each volume, or plane, where several kernels need the same.
#pragma once

#include <cstdint>

#include "device.cuh"
#include "picture.cuh"

namespace ssim_fused {

template <class Storage>
struct PivotParams {
  Picture<const Storage> target;
  int64_t channels;
  int depth, rows, columns;
  ComputeOf<Storage>* pivots;  // [B C]
};

// One warp for each volume. Every slice needs the same pivot, since the window mixes their moments.
template <class Storage>
SSIM_KERNEL(32, 1)
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
  }
  const auto pivot = median_or_zero<kSamples>(sample, lane);
  if (lane == 0) p.pivots[volume] = pivot;
}

template <class Storage, class Launcher>
ComputeOf<Storage>* find_pivots(const Problem<Storage>& problem, Launcher& launcher) {
  const int64_t planes = problem.batch * problem.channels;
  auto* const pivots = launcher.template scratch<ComputeOf<Storage>>(planes);
  launcher.template launch<pivot_kernel<Storage>>(
      planes, 32, 0,
      PivotParams<Storage>{problem.target, problem.channels, problem.depth.n, problem.rows.n,
                           problem.columns.n, pivots});
  return pivots;
}

}  // namespace ssim_fused
