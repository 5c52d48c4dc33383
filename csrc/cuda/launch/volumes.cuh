// SSIM of volumes with windows of radius at most 5, in three passes over scratch, which holds four fields per
// volume in the compute type (kernels/slices.cuh):
//
//   1. strip      along the rows and down the columns of every slice: four moments
//   2. depth.cuh  along the depth, formula, sums, map; the adjoint along the depth, in place of the moments
//   3. strip      the adjoint down the columns and along the rows of every slice: gradients
//
// Slabs of volumes are processed one at a time, so that scratch is bounded and, for small volumes, stays in
// the L2 cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "../kernels/depth.cuh"
#include "choose.cuh"

namespace ssim_fused::cuda {

// Threads that keep an SM busy along the depth: two warps per scheduler.
constexpr int64_t kDepthThreadsOfSm = 2 * kSchedulers * kWarpSize;

// Chooses the number of splits of the depth that minimizes the number of slices in sequence. `blocks` is the
// number of blocks of a march through the whole depth.
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

template <class Storage, GradientsOf gradients, Objective objective, bool Narrow, class Launcher>
void run_slabs(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
               const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  using T = ComputeOf<Storage>;
  using MomentsCall =
      StripCall<Storage, GradientsOf::none, Objective::mean_similarity, Narrow, Pass::moments>;
  using GradientCall = StripCall<Storage, gradients, Objective::mean_similarity, Narrow, Pass::gradient>;
  using PixelTermGradientCall = StripCall<Storage, gradients, Objective::mean_similarity, true,
                                          Pass::gradient, (gradients != GradientsOf::none)>;
  // Only the general kernel reads and writes pixels along the depth, so only it is compiled for each Storage.
  using DepthStorage = std::conditional_t<objective == Objective::general, Storage, T>;
  using Depth = DepthConfig<DepthStorage, gradients, objective, Narrow>;
  constexpr MomentStrips<Narrow> kMomentStrips;
  // Calls f<Call>(strips) for the pass that computes gradients, if there is one.
  const auto with_gradient_call = [&](auto&& f) {
    if constexpr (gradients != GradientsOf::none) {
      if (problem.pixel_term.adds_slopes())
        return f.template operator()<PixelTermGradientCall>(PixelTermGradientStrips{});
      f.template operator()<GradientCall>(GradientStrips<Storage, gradients, Narrow>{});
    }
  };

  const int64_t volumes = problem.batch * problem.channels, slices = problem.depth.n;
  const SliceLayout layout(problem.rows, problem.columns);
  const int64_t bytes = slices * layout.slice_size() * static_cast<int64_t>(sizeof(T));
  const int64_t busy = ceil_div(launcher.sms() * kDepthThreadsOfSm, layout.pixels);
  const int64_t slab = std::clamp<int64_t>(
      std::max(launcher.l2_bytes() * 2 / 3 / bytes, std::min(busy, kSlabBytes / bytes)), 1, volumes);

  StripParams<Storage> strip = strip_params(problem, windows, true);
  DepthParams<DepthStorage> depth{};
  static_cast<Task<T>&>(depth) = problem;
  if constexpr (objective == Objective::general) static_cast<Problem<Storage>&>(depth) = problem;
  centre(depth.taps, windows.depth);
  const auto sum = [](const std::vector<T>& taps) { return std::accumulate(taps.begin(), taps.end(), T(0)); };
  depth.slice_sum = sum(windows.rows) * sum(windows.columns);
  const int64_t per_sm =
      launcher.template blocks_per_sm<depth_kernel<Depth>>(kDepthThreads, Depth::kSharedBytes);
  plan_depth(depth, slab * layout.blocks(), gradients == GradientsOf::none,
             std::max<int64_t>(1, launcher.sms() * per_sm));
  const int64_t per_volume = layout.blocks() * depth.splits;
  Scratch scratch, kept;
  const size_t fields = scratch.add<T>(slab * slices * layout.slice_size()), pivots = scratch.add<T>(volumes),
               sums = kept.add<double>(BlockSums::size(problem.batch, volumes * per_volume, Depth::kSums));
  scratch.allocate(launcher);
  kept.keep(launcher);
  strip.fields = depth.fields = scratch.at<T>(fields);
  strip.pivots = depth.pivots = scratch.at<T>(pivots);
  depth.sums.scratch = kept.at<double>(sums);
  find_pivots(problem, scratch.at<T>(pivots), launcher);

  const Plan moments = plan_call<MomentsCall>(strip, slab * slices, launcher, kMomentStrips);
  Plan gradient;
  with_gradient_call(
      [&]<class Call>(auto strips) { gradient = plan_call<Call>(strip, slab * slices, launcher, strips); });
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
    with_gradient_call([&]<class Call>(auto strips) {
      launch_call<Call>(gradient, strip, (end - begin) * slices, launcher, strips);
    });
  }
  reduce(depth.sums, problem.batch, problem.channels * per_volume, Depth::kSums,
         with_pixel_term_sums(problem, results, launcher), launcher);
}

template <class Storage, class Launcher>
void run_volumes(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                 Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const bool is_full = problem.depth.radius == kMarchRadius && problem.rows.radius == kMarchRadius &&
                       problem.columns.radius == kMarchRadius;
  choose_variant(problem, objective, is_full,
                 [&]<GradientsOf kGradients, Objective kObjective, bool kNarrow>() {
                   run_slabs<Storage, kGradients, kObjective, kNarrow>(problem, windows, results, launcher);
                 });
}

}  // namespace ssim_fused::cuda
