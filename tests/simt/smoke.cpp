// Runs a case of images, volumes or masked images (driver.h, masked_case.h) with a few kernels that together
// reach every synchronization site except the pyramid's. It is compiled for float32 alone, in a fraction of
// the time that images.cpp and volumes.cpp take.
#include <stdexcept>

#include "driver.h"
#include "masked_case.h"

namespace {

using ssim_fused::GradientsOf;

// Calls run<gradients, objective, narrow>() for the kernel that serves the problem: values or the gradient of
// preds with the default window, or the general kernel with the gradients of both images.
template <class Storage, class Run>
void choose_kernel(const Problem<Storage>& problem, Objective objective, Run&& run) {
  const auto is_full = [](const auto& axis) { return axis.radius == kMarchRadius; };
  const bool is_plain = is_full(problem.rows) && is_full(problem.columns) &&
                        (problem.depth.n == 1 || is_full(problem.depth)) && !problem.map.data &&
                        !problem.wants_constants && !problem.grad_target.data &&
                        objective == Objective::mean_similarity;
  if (!is_plain && (!problem.grad_preds.data || !problem.grad_target.data))
    throw std::runtime_error("smoke.cpp has no kernel for this case: request both gradients");
  if (!is_plain) return run.template operator()<GradientsOf::both, Objective::general, true>();
  if (problem.grad_preds.data)
    return run.template operator()<GradientsOf::preds, Objective::mean_similarity, false>();
  run.template operator()<GradientsOf::none, Objective::mean_similarity, false>();
}

template <class Storage>
void run_smoke(const Case& c) {
  const bool is_volume = c.list<int64_t>("shape").size() == 5;
  run_case<Storage>(c, [&](const auto& problem, const auto& windows, Objective objective, const auto& results,
                           HostLauncher& launcher) {
    if (c.has("mask")) return run_masked_case<Storage>(c, problem, windows, results, launcher);
    choose_kernel<Storage>(
        problem, objective, [&]<GradientsOf kGradients, Objective kObjective, bool kNarrow>() {
          is_volume ? run_slabs<Storage, kGradients, kObjective, kNarrow>(problem, windows, results, launcher)
                    : run_strips<Storage, kGradients, kObjective, kNarrow>(
                          problem, windows, with_pixel_term_sums(problem, results, launcher), launcher);
        });
  });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     [](const Case& c, auto storage) { run_smoke<typename decltype(storage)::type>(c); });
}
