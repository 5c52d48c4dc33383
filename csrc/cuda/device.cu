// CUDA as a device of operators.h: converts requests to the kernels' problems and launches kernels on the
// current stream, without waiting for the device. It belongs to a separate library, which Python loads if
// torch has CUDA. images.cu, volumes.cu, wide.cu, masked.cu and pyramid.cu compile the kernels.
#include <torch/csrc/stable/library.h>

#include "../api/operators.h"
#include "launch/from_request.cuh"
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

void check_limits(const Request& request) {
  for (const Axis& axis : request.windows.axes) {
    axis_length(axis.n);
    STD_TORCH_CHECK(axis.radius <= kMaxAxis, "a window has radius ", axis.radius, ", expected at most ",
                    kMaxAxis);
    STD_TORCH_CHECK(axis.pad <= kMaxAxis, "pad is ", axis.pad, ", expected at most ", kMaxAxis);
  }
}

struct Cuda {
  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  // The sums that the passes over the levels leave, and the memory that holds them.
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

  // Runs a pass. If `sums_to` is given, stores its sums there instead of reducing them to results.
  static void pass(const Request& request, PassSums* sums_to, CudaLauncher& launcher) {
    check_limits(request);
    with_storage(request.preds, request.target, [&]<class Storage>() {
      using T = ComputeOf<Storage>;
      const WindowTaps<T> windows = window_taps<T>(request);
      Results<T> results = results_of<T>(request);
      results.sums_to = sums_to;
      if (request.mask) return run_masked(masked_problem_of<Storage>(request), windows, results, launcher);
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
    // The images are read only if there is a pixel term.
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

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CUDA, m) { Operators<Cuda>::add_to(m); }

// Defines `prepare` for this library, which has its own table of specs.
STABLE_TORCH_LIBRARY_FRAGMENT(ssim_fused, m) {
  m.def(signatures::Prepare::schema("prepare_cuda", "()").c_str());
}
STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CompositeExplicitAutograd, m) {
  m.impl("prepare_cuda", &signatures::Prepare::boxed<&prepare>);
}

}  // namespace ssim_fused::cuda
