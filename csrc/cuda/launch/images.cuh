// SSIM of images by one march (kernels/strip) and one reduction: with windows of radius at most 5, and what
// is asked most of windows of radius 11.
#pragma once

#include <cstdint>

#include "choose.cuh"

namespace ssim_fused::cuda {

template <class Storage, int Derivatives, Objective objective, bool Narrow, bool Pixels = false,
          int Radius = kMarchRadius, class Launcher>
void run_strips(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Results<ComputeOf<Storage>> results, Launcher& launcher) {
  using Call = StripCall<Storage, Derivatives, objective, Narrow, Pass::image, Pixels, Radius>;
  using Strips = std::conditional_t<Radius == kWideMarchRadius, WideStrips<Storage, Derivatives>,
                                    std::conditional_t<Pixels, PixelStrips<Storage, Derivatives>,
                                                       ImageStrips<Storage, Derivatives, objective>>>;
  auto params = strip_params<Radius>(problem, windows, objective != Objective::general);
  const int64_t planes = problem.batch * problem.channels;
  const int abreast = channels_abreast(problem);
  const Plan plan = plan_abreast(plan_call<Call>(params, planes, launcher, Strips{}), planes, abreast);
  const int64_t parts = plan.strips * plan.parts();
  Scratch scratch;
  const size_t sums = scratch.add<double>(BlockSums::size(problem.batch, planes * parts, Call::kSums));
  scratch.allocate(launcher);
  params.sums.scratch = scratch.at<double>(sums);
  launch_call<Call>(plan, params, planes, launcher, Strips{}, abreast);
  if constexpr (Pixels) {
    results.pixels.sums = params.sums.blocks(problem.batch) + (Call::kSums - 1);
    results.pixels.blocks = problem.channels * parts;
    results.pixels.stride = Call::kSums;
  }
  reduce(params.sums, problem.batch, problem.channels * parts, Call::kSums, results, launcher);
}

template <class Storage, class Launcher>
void run_images(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  if constexpr (kHasWideMarch<Storage>) {
    const auto run_wide_march = [&]<int kDerivatives>() {
      run_strips<Storage, kDerivatives, Objective::mean_similarity, false, false, kWideMarchRadius>(
          problem, windows, with_pixel_sums(problem, results, launcher), launcher);
    };
    if (fits_wide_march(problem, false, objective))
      return problem.grad_preds.data ? run_wide_march.template operator()<3>()
                                     : run_wide_march.template operator()<0>();
  }
  const bool is_full = problem.rows.radius == kMarchRadius && problem.columns.radius == kMarchRadius;
  choose_variant(problem, objective, is_full, [&]<int kDerivatives, Objective kObjective, bool kNarrow>() {
    if constexpr (kHasPixelStrips<Storage, kDerivatives> && kObjective == Objective::mean_similarity &&
                  !kNarrow) {
      if (problem.pixels.adds_slopes())
        return run_strips<Storage, kDerivatives, kObjective, kNarrow, true>(problem, windows, results,
                                                                            launcher);
    }
    run_strips<Storage, kDerivatives, kObjective, kNarrow>(
        problem, windows, with_pixel_sums(problem, results, launcher), launcher);
  });
}

}  // namespace ssim_fused::cuda
