// CUDA as a device of operators.h: from requests to the kernels' problems, launched on the current stream.
// Nothing waits for the device. A library of its own, which Python loads where torch has CUDA; images.cu,
// volumes.cu, wide.cu and pyramid.cu compile the kernels.
#include <torch/csrc/stable/library.h>

#include "../operators.h"
#include "launch/launcher.cuh"
#include "launch/pyramid.cuh"
#include "launch/run.cuh"

namespace ssim_fused::cuda {

extern template void run_product<float>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
extern template void run_product<double>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
#define SSIM_ELSEWHERE(name, Storage, scalar)                                                                \
  extern template void run_images(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                                  const Results<ComputeOf<Storage>>&, CudaLauncher&);                        \
  extern template void run_volumes(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&,           \
                                   Objective, const Results<ComputeOf<Storage>>&, CudaLauncher&);            \
  extern template void run_wide(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&,              \
                                const Results<ComputeOf<Storage>>&, CudaLauncher&);                          \
  extern template void run_masked(const MaskedProblem<Storage>&, const WindowTaps<ComputeOf<Storage>>&,      \
                                  const Results<ComputeOf<Storage>>&, CudaLauncher&);                        \
  extern template void run_downsample<Storage>(const std::vector<HalvingRequest>&, CudaLauncher&);           \
  extern template void run_gather<Storage>(const GatherRequest&, CudaLauncher&);
#define SSIM_MULTIPLIED_ELSEWHERE(name, Storage, scalar) \
  extern template void run_multiply<Storage>(const View&, const Upstream&, const View&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_ELSEWHERE)
SSIM_FOR_FLOAT_PIXELS(SSIM_MULTIPLIED_ELSEWHERE)

namespace {

DeviceAxis device_axis(const Axis& axis) {
  STD_TORCH_CHECK(axis.radius <= kMaxAxis, "a window has radius ", axis.radius, ", expected at most ",
                  kMaxAxis);
  STD_TORCH_CHECK(axis.pad <= kMaxAxis, "pad is ", axis.pad, ", expected at most ", kMaxAxis);
  return {axis_length(axis.n), static_cast<int>(axis.radius), static_cast<int>(axis.pad), axis.reflects};
}

// The formula's derivatives are those of similarity and contrast sensitivity, the request's those of
// distances.
template <class T>
Weight<T> weight_of(const Upstream& upstream) {
  return {static_cast<const T*>(upstream.values), upstream.stride, -upstream.scale};
}

template <class Storage>
Problem<Storage> problem_of(const Request& request) {
  using T = ComputeOf<Storage>;
  Problem<Storage> problem{};
  problem.depth = device_axis(request.windows.axes[0]);
  problem.rows = device_axis(request.windows.axes[1]);
  problem.columns = device_axis(request.windows.axes[2]);
  problem.batch = request.preds.batch();
  problem.channels = request.preds.channels();
  const Constants& constants = request.constants;
  problem.constants = {constants.c1, constants.c2, static_cast<const T*>(constants.data),
                       constants.image_stride, constants.stride};
  problem.of_similarity = weight_of<T>(request.of_similarity);
  problem.of_contrast = weight_of<T>(request.of_contrast);
  problem.wants_constants = request.wants_constants();
  problem.pixel_term = pixel_term_params<T>(request.pixels);
  problem.preds = device_image<const Storage>(request.preds);
  problem.target = device_image<const Storage>(request.target);
  problem.grad_map = device_image<const KeptAs<Storage>>(request.grad_map);
  problem.map = device_image<KeptAs<Storage>>(request.map);
  problem.grad_preds = device_image<KeptAs<Storage>>(request.grad_preds);
  problem.grad_target = device_image<KeptAs<Storage>>(request.grad_target);
  return problem;
}

template <class T>
Results<T> results_of(const Request& request) {
  Results<T> results;
  const bool is_reduced = request.reduction != Reduction::none;
  T* const similarity = static_cast<T*>(request.similarity);
  (is_reduced ? results.batch_similarity : results.similarity) = similarity;
  if (request.reduction == Reduction::mean) results.scale = 1 / static_cast<double>(request.preds.batch());
  results.contrast = static_cast<T*>(request.contrast);
  results.grad_constants = static_cast<T*>(request.grad_constants);
  results.as_distance = request.as_distance;
  results.outputs = request.outputs();
  results.cropped = request.cropped_outputs();
  results.pixel_term = pixel_term_results<T>(request.pixels);
  results.pixel_term_sums.pixels = request.pixels_of_image();
  return results;
}

struct Cuda {
  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  // What the passes over the levels leave, in memory that is kept with it.
  struct LevelResults {
    explicit LevelResults(int levels) : sums(static_cast<size_t>(levels)) {}
    std::vector<PassSums> sums;
    std::vector<Tensor> memory;
  };

  static void similarity(const Request& request, const Tensor& like) {
    CudaLauncher launcher(like);
    pass(request, nullptr, launcher);
  }

  static void level(const Request& request, int number, LevelResults& levels, const Tensor& like) {
    CudaLauncher launcher(like, &levels.memory);
    pass(request, &levels.sums[static_cast<size_t>(number)], launcher);
  }

  // `sums_to`: where its sums are left, if not reduced to results.
  static void pass(const Request& request, PassSums* sums_to, CudaLauncher& launcher) {
    with_storage(request.preds, request.target, [&]<class Storage>() {
      using T = ComputeOf<Storage>;
      const WindowTaps<T> windows{request.windows.taps_as<T>(0), request.windows.taps_as<T>(1),
                                  request.windows.taps_as<T>(2)};
      Results<T> results = results_of<T>(request);
      results.sums_to = sums_to;
      if (request.mask) {
        const MaskedProblem<Storage> masked{problem_of<Storage>(request), weights(request.mask.view),
                                            request.mask.weighs_windows(), nullptr};
        return run_masked(masked, windows, results, launcher);
      }
      run(problem_of<Storage>(request), request.is_volume, windows, request.objective, results, launcher);
    });
  }

  static void downsample(const std::vector<HalvingRequest>& levels, const Tensor& like) {
    CudaLauncher launcher(like);
    with_storage(levels[0].from[0], levels[0].from[1],
                 [&]<class Storage>() { run_downsample<Storage>(levels, launcher); });
  }

  static void product(const ProductRequest& request, const LevelResults& levels, const Tensor& like) {
    CudaLauncher launcher(like);
    (request.type == ScalarType::Double ? run_product<double> : run_product<float>)(request, levels.sums,
                                                                                    launcher);
  }

  static void gather(const GatherRequest& request, const Tensor& like) {
    CudaLauncher launcher(like);
    // Without a pixel term the images are not read.
    const bool reads = static_cast<bool>(request.pixels);
    with_storage(reads ? request.image : request.finest, reads ? request.other : request.finest,
                 [&]<class Storage>() { run_gather<Storage>(request, launcher); });
  }

  static void multiply(const View& gradient, const Upstream& factor, const View& result, const Tensor& like) {
    CudaLauncher launcher(like);
    with_storage(gradient.type,
                 [&]<class Storage>() { run_multiply<Storage>(gradient, factor, result, launcher); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CUDA, m) { register_operators<Cuda>(m); }

}  // namespace ssim_fused::cuda
