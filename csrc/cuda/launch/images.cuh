// SSIM of images with windows of radius at most 5: one march (kernels/strip), one reduction.
#pragma once

#include <cstdint>

#include "choose.cuh"

namespace ssim_fused::cuda {

template <class Storage, int Derivatives, Objective objective, bool Narrow, bool Pixels, class Launcher>
void run_strips(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Results<ComputeOf<Storage>> results, Launcher& launcher) {
  using Call = StripCall<Storage, Derivatives, objective, Narrow, Pass::image, Pixels>;
  using Strips = std::conditional_t<Pixels, PixelStrips<Storage, Derivatives>,
                                    ImageStrips<Storage, Derivatives, objective>>;
  auto params = strip_params(problem, windows, objective != Objective::general);
  const int64_t planes = problem.batch * problem.channels;
  const int abreast = channels_abreast(problem);
  const Plan plan = plan_abreast(plan_call<Call>(params, planes, launcher, Strips{}), planes, abreast);
  const int64_t parts = plan.strips * plan.parts();
  Scratch scratch;
  const size_t sums = scratch.add<double>(BlockSums::size(problem.batch, planes * parts, Call::kSums));
  scratch.keep(launcher);
  params.sums.scratch = scratch.at<double>(sums);
  launch_call<Call>(plan, params, planes, launcher, Strips{}, abreast);
  if constexpr (Pixels) {
    results.pixel_sums.sums = params.sums.blocks(problem.batch) + (Call::kSums - 1);
    results.pixel_sums.blocks = problem.channels * parts;
    results.pixel_sums.stride = Call::kSums;
  }
  reduce(params.sums, problem.batch, problem.channels * parts, Call::kSums, results, launcher);
}

template <class Storage, class Launcher>
void run_images(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const bool is_full = problem.rows.radius == kRadius && problem.columns.radius == kRadius;
  choose_variant(problem, objective, is_full, [&]<int kDerivatives, Objective kObjective, bool kNarrow>() {
    if constexpr (kHasPixelStrips<Storage, kDerivatives> && kObjective == Objective::mean_similarity &&
                  !kNarrow) {
      if (problem.pixels.adds_slopes())
        return run_strips<Storage, kDerivatives, kObjective, kNarrow, true>(problem, windows, results,
                                                                            launcher);
    }
    run_strips<Storage, kDerivatives, kObjective, kNarrow, false>(
        problem, windows, with_pixel_sums(problem, results, launcher), launcher);
  });
}

}  // namespace ssim_fused::cuda
