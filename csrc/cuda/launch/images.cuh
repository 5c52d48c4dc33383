// SSIM of images by one launch of the strip march (kernels/strip) and one of the reduction: for windows of
// radius at most 5, and for the most frequent requests with windows of radius 11.
#pragma once

#include <cstdint>

#include "choose.cuh"

namespace ssim_fused::cuda {

template <class Storage, GradientsOf gradients, Objective objective, bool Narrow, bool HasPixelTerm = false,
          int Radius = kMarchRadius, class Launcher>
void run_strips(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Results<ComputeOf<Storage>> results, Launcher& launcher) {
  using Call = StripCall<Storage, gradients, objective, Narrow, Pass::image, HasPixelTerm, Radius>;
  using Strips = std::conditional_t<Radius != kMarchRadius, ExactStrips<Storage, gradients, Radius>,
                                    std::conditional_t<HasPixelTerm, PixelTermStrips<Storage, gradients>,
                                                       ImageStrips<Storage, gradients, objective>>>;
  auto params = strip_params<Radius>(problem, windows, objective != Objective::general);
  const int64_t planes = problem.batch * problem.channels;
  const int abreast = channels_abreast(problem);
  const Plan plan = plan_abreast(plan_call<Call>(params, planes, launcher, Strips{}), planes, abreast);
  const int64_t parts = plan.strips * plan.parts();
  Scratch scratch;
  const size_t sums = scratch.add<double>(BlockSums::size(problem.batch, planes * parts, Call::kSums));
  scratch.keep(launcher);
  params.sums.scratch = scratch.at<double>(sums);
  launch_call<Call>(plan, params, planes, launcher, Strips{}, abreast);
  if constexpr (HasPixelTerm) {
    results.pixel_term_sums.sums = params.sums.blocks(problem.batch) + (Call::kSums - 1);
    results.pixel_term_sums.blocks = problem.channels * parts;
    results.pixel_term_sums.stride = Call::kSums;
  }
  reduce(params.sums, problem.batch, problem.channels * parts, Call::kSums, results, launcher);
}

// Runs the kernels for windows of exactly this radius, or returns false if they do not serve the problem.
template <int Radius, class Storage, class Launcher>
bool run_exactly(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                 Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  if (!fits_exactly<Radius>(problem, objective)) return false;
  const auto all_results = with_pixel_term_sums(problem, results, launcher);
  const auto run = [&]<GradientsOf kGradients>() {
    if constexpr (kHasExactStrips<Storage, kGradients>)
      run_strips<Storage, kGradients, Objective::mean_similarity, false, false, Radius>(
          problem, windows, all_results, launcher);
  };
  problem.grad_preds.data ? run.template operator()<GradientsOf::preds>()
                          : run.template operator()<GradientsOf::none>();
  return true;
}

template <class Storage, class Launcher>
void run_images(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  if (run_exactly<kShortRadius>(problem, windows, objective, results, launcher) ||
      run_exactly<kLongRadius>(problem, windows, objective, results, launcher))
    return;
  const bool is_full = problem.rows.radius == kMarchRadius && problem.columns.radius == kMarchRadius;
  choose_variant(problem, objective, is_full,
                 [&]<GradientsOf kGradients, Objective kObjective, bool kNarrow>() {
                   if constexpr (kHasPixelTermStrips<Storage, kGradients> &&
                                 kObjective == Objective::mean_similarity && !kNarrow) {
                     if (problem.pixel_term.adds_slopes())
                       return run_strips<Storage, kGradients, kObjective, kNarrow, true>(problem, windows,
                                                                                         results, launcher);
                   }
                   run_strips<Storage, kGradients, kObjective, kNarrow>(
                       problem, windows, with_pixel_term_sums(problem, results, launcher), launcher);
                 });
}

}  // namespace ssim_fused::cuda
