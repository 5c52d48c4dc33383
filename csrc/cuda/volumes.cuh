// SSIM of volumes with windows of radius at most 5, in three passes over scratch in the compute type, of four
// volumes for each of preds (slices.cuh):
//
//   1. strip.cuh  along the rows and down the columns of every slice: four moments
//   2. depth.cuh  along the depth, formula, sums, map; the adjoint along the depth in the moments' place
//   3. strip.cuh  the adjoint down the columns and along the rows of every slice: gradients
//
// Slabs of volumes are worked through one after the other, so that scratch stays bounded and, where volumes
// are small, in the L2 cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "depth.cuh"
#include "dispatch.cuh"
#include "pivot.cuh"

namespace ssim_fused {

// Threads that keep an SM busy along the depth: two warps for each scheduler.
constexpr int64_t kDepthThreadsOfSm = 2 * kSchedulers * 32;

// How the depth is cut into splits, where a march through all of it takes so many blocks: for the fewest
// slices one after the other.
template <class Storage>
void plan_depth(DepthParams<Storage>& params, int64_t blocks, bool may_split, int64_t slots) {
  const int64_t depth = params.depth.n;
  int64_t best = -1;
  for (int64_t splits = 1; splits <= (may_split ? std::min<int64_t>(depth, 64) : 1); ++splits) {
    const int64_t slices = ceil_div(depth, splits);
    const int64_t cost = ceil_div(blocks * splits, slots) * (slices + kDepthWarmUp);
    if (best >= 0 && cost >= best) continue;
    best = cost;
    params.slices_of_split = static_cast<int>(slices);
    params.splits = static_cast<int>(ceil_div(depth, slices));
  }
}

// The strips compiled for slices, whose sides are often powers of two; for shorter windows, one.
template <bool Gradient, int Maps>
#if defined(SSIM_SIMT)  // the host's compiler has no need of all
using SliceStripsOfWindow =
    std::conditional_t<Gradient, StripList<Strip<64>, Strip<64, true>, Strip<256, true>>,
                       StripList<Strip<64>, Strip<256>>>;
#else
using SliceStripsOfWindow = std::conditional_t<
    !Gradient, StripList<Strip<64>, Strip<128>, Strip<256>>,
    std::conditional_t<Maps == 3, StripList<Strip<128>, Strip<64, true>, Strip<128, true>, Strip<256, true>>,
                       StripList<Strip<64>, Strip<64, true>, Strip<128, true>>>>;
#endif
template <bool Gradient, int Maps, bool Narrow>
using SliceStrips = std::conditional_t<Narrow, StripList<Strip<64>>, SliceStripsOfWindow<Gradient, Maps>>;

template <class Storage, int Maps, Weights weights, bool Narrow, class Launcher>
void run_slabs(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
               const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  using T = ComputeOf<Storage>;
  using MomentsCall = StripCall<Storage, 0, Weights::mean_similarity, Narrow, Part::moments>;
  using GradientCall = StripCall<Storage, Maps, Weights::mean_similarity, Narrow, Part::gradient>;
  using Depth = DepthConfig<Storage, Maps, weights, Narrow>;
  constexpr SliceStrips<false, 0, Narrow> kMomentStrips;
  constexpr SliceStrips<true, Maps, Narrow> kGradientStrips;

  const int64_t volumes = problem.batch * problem.channels, slices = problem.depth.n;
  const SliceLayout layout(problem.rows, problem.columns);
  const int64_t bytes = slices * layout.slice_size() * static_cast<int64_t>(sizeof(T));
  const int64_t busy = ceil_div(launcher.sms() * kDepthThreadsOfSm, layout.pixels);
  const int64_t slab = std::clamp<int64_t>(
      std::max(launcher.l2_bytes() * 2 / 3 / bytes, std::min(busy, kSlabBytes / bytes)), 1, volumes);

  StripParams<Storage> strip = strip_params(problem, windows, true);
  DepthParams<Storage> depth{problem};
  strip.pivots = depth.pivots = find_pivots(problem, launcher);
  strip.maps = depth.maps = launcher.template scratch<T>(slab * bytes / static_cast<int64_t>(sizeof(T)));
  centre(depth.taps, windows.depth);
  const auto sum = [](const std::vector<T>& taps) { return std::accumulate(taps.begin(), taps.end(), T(0)); };
  depth.slice_sum = sum(windows.rows) * sum(windows.columns);
  const int64_t per_sm =
      launcher.template blocks_per_sm<depth_kernel<Depth>>(kDepthThreads, Depth::kSharedBytes);
  plan_depth(depth, slab * layout.blocks(), Maps == 0, std::max<int64_t>(1, launcher.sms() * per_sm));
  const int64_t per_volume = layout.blocks() * depth.splits;
  depth.partial = launcher.template scratch<double>(volumes * per_volume * Depth::kSums);

  const Plan moments = plan_call<MomentsCall>(strip, slab * slices, launcher, kMomentStrips);
  Plan gradient;
  if constexpr (Maps > 0) gradient = plan_call<GradientCall>(strip, slab * slices, launcher, kGradientStrips);
  for (int64_t begin = 0; begin < volumes; begin += slab) {
    const int64_t end = std::min(volumes, begin + slab);
    strip.first_volume = depth.slab_volume = begin;
    strip.first_plane = begin * slices;
    launch_call<MomentsCall>(moments, strip, (end - begin) * slices, launcher, kMomentStrips);
    const int64_t volumes_of_launch = std::max<int64_t>(1, kMaxBlocks / per_volume);
    for (depth.first_volume = begin; depth.first_volume < end; depth.first_volume += volumes_of_launch) {
      launcher.template launch<depth_kernel<Depth>>(
          std::min(end - depth.first_volume, volumes_of_launch) * per_volume, kDepthThreads,
          Depth::kSharedBytes, depth);
    }
    if constexpr (Maps > 0) {
      launch_call<GradientCall>(gradient, strip, (end - begin) * slices, launcher, kGradientStrips);
    }
  }
  reduce(depth.partial, problem.batch, problem.channels * per_volume, Depth::kSums, results, launcher);
}

template <class Storage, int Maps, class Launcher>
void run_volume_maps(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
                     Weights weights, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  // double makes do with the one kernel that does everything.
  if constexpr (!std::is_same_v<Storage, double>) {
    if (problem.depth.radius == kRadius && problem.rows.radius == kRadius &&
        problem.columns.radius == kRadius) {
      if (problem.map.data || problem.wants_constants || (Maps > 0 && weights == Weights::general)) {
        return run_slabs<Storage, Maps, Weights::general, false>(problem, windows, results, launcher);
      }
      if constexpr (Maps > 0) {
        if (weights == Weights::mean_contrast) {
          return run_slabs<Storage, Maps, Weights::mean_contrast, false>(problem, windows, results, launcher);
        }
      }
      return run_slabs<Storage, Maps, Weights::mean_similarity, false>(problem, windows, results, launcher);
    }
  }
  run_slabs<Storage, Maps, Weights::general, true>(problem, windows, results, launcher);
}

template <class Storage, class Launcher>
void run_volumes(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
                 const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  if (!fits_strip(problem.depth) || !fits_strip(problem.rows) || !fits_strip(problem.columns))
    return run_wide(problem, windows, results, launcher);
  if (problem.grad_target.data)
    return run_volume_maps<Storage, 4>(problem, windows, weights, results, launcher);
  if (problem.grad_preds.data)
    return run_volume_maps<Storage, 3>(problem, windows, weights, results, launcher);
  run_volume_maps<Storage, 0>(problem, windows, weights, results, launcher);
}

}  // namespace ssim_fused
