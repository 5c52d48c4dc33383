// Runs all launches of a call. If only the gradient of target is requested, the caller exchanges the images,
// since SSIM is symmetric.
#pragma once

#include "images.cuh"
#include "volumes.cuh"
#include "wide.cuh"

namespace ssim_fused::cuda {

template <class Storage, class Launcher>
void run(const Problem<Storage>& problem, bool is_volume, const WindowTaps<ComputeOf<Storage>>& windows,
         Objective objective, const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  // Marches choose a pivot among the pixels, which does not suit windows that see mostly padding.
  if (!marches(problem, is_volume, objective) || see_padding(problem, windows))
    return run_wide(problem, windows, results, launcher);
  if (is_volume) return run_volumes(problem, windows, objective, results, launcher);
  run_images(problem, windows, objective, results, launcher);
}

}  // namespace ssim_fused::cuda
