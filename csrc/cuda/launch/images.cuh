// SSIM of images with windows of radius at most 5: one march (kernels/strip), one reduction.
#pragma once

#include <cstdint>

#include "choose.cuh"

namespace ssim_fused::cuda {

template <class Storage, int Derivatives, Objective objective, bool Narrow, class Launcher>
void run_strips(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  using Call = StripCall<Storage, Derivatives, objective, Narrow>;
  using Strips = ImageStrips<Storage, Derivatives, objective>;
  auto params = strip_params(problem, windows, objective != Objective::general);
  const int64_t planes = problem.batch * problem.channels;
  const Plan plan = plan_call<Call>(params, planes, launcher, Strips{});
  const int64_t parts = plan.strips * plan.parts();
  Scratch scratch;
  const size_t sums = scratch.add<double>(BlockSums::size(problem.batch, planes * parts, Call::kSums));
  scratch.allocate(launcher);
  params.sums.scratch = scratch.at<double>(sums);
  launch_call<Call>(plan, params, planes, launcher, Strips{});
  reduce(params.sums, problem.batch, problem.channels * parts, Call::kSums, results, launcher);
}

template <class Storage, class Launcher>
void run_images(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const bool is_full = problem.rows.radius == kRadius && problem.columns.radius == kRadius;
  choose_variant(problem, objective, is_full, [&]<int kDerivatives, Objective kObjective, bool kNarrow>() {
    run_strips<Storage, kDerivatives, kObjective, kNarrow>(problem, windows, results, launcher);
  });
}

}  // namespace ssim_fused::cuda
