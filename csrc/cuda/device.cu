// The operators on CUDA: check, allocate, launch on the current stream, reduce. Nothing waits for the device.
// A library of its own, without pybind11, which Python loads where torch has CUDA.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../args.h"
#include "dispatch.cuh"
#include "launcher.cuh"

namespace ssim_fused {
namespace {

// ---------------------------------------------------------------------------------------------------------
// From tensors to a problem

DeviceAxis device_axis(const Axis& axis) {
  STD_TORCH_CHECK(axis.radius <= kMaxAxis, "a window has radius ", axis.radius, ", expected at most ",
                  kMaxAxis);
  STD_TORCH_CHECK(axis.pad <= kMaxAxis, "pad is ", axis.pad, ", expected at most ", kMaxAxis);
  return {axis_length(axis.n), static_cast<int>(axis.radius), static_cast<int>(axis.pad), axis.reflects};
}

// What both operators are given.
struct Call {
  const Tensor& preds;
  const Tensor& target;
  const Arguments& arguments;
  double c1, c2;
  const std::optional<Tensor>& constants;
  bool wants_grad_preds, wants_grad_target, wants_grad_constants;

  double outputs() const {  // of one image, over which the similarity is averaged
    return static_cast<double>(arguments.channels * arguments.output_pixels());
  }
  double cropped() const { return static_cast<double>(arguments.channels * arguments.cropped_pixels()); }
};

template <class Storage>
Problem<Storage> problem_of(const Call& call, const Tensor& grad_preds, const Tensor& grad_target) {
  using T = ComputeOf<Storage>;
  Problem<Storage> problem{};
  problem.preds = input_picture<Storage>(call.preds);
  problem.target = input_picture<Storage>(call.target);
  if (call.wants_grad_preds) {
    problem.grad_preds = output_picture<Storage>(grad_preds);
    if (call.wants_grad_target) problem.grad_target = output_picture<Storage>(grad_target);
  } else if (call.wants_grad_target) {  // the gradient for preds with the images exchanged
    std::swap(problem.preds, problem.target);
    problem.grad_preds = output_picture<Storage>(grad_target);
  }
  problem.depth = device_axis(call.arguments.depth());
  problem.rows = device_axis(call.arguments.rows());
  problem.columns = device_axis(call.arguments.columns());
  problem.batch = call.arguments.batch;
  problem.channels = call.arguments.channels;
  problem.c1 = static_cast<T>(call.c1);
  problem.c2 = static_cast<T>(call.c2);
  if (call.constants) problem.constants = static_cast<const T*>(call.constants->const_data_ptr());
  problem.wants_constants = call.wants_grad_constants;
  return problem;
}

// [B] or, for derivatives by the constants, [B, 2], in the compute type.
Tensor per_image(const Call& call, int64_t values) {
  const int64_t shape[] = {call.arguments.batch, values};
  return torch::stable::new_empty(call.preds, IntHeaderOnlyArrayRef(shape, values == 1 ? 1 : 2),
                                  compute_type(call.preds.scalar_type()));
}

template <class Storage>
void run_on_device(const Call& call, const Problem<Storage>& problem, Weights weights,
                   Results<ComputeOf<Storage>> results, const Tensor& grad_constants) {
  using T = ComputeOf<Storage>;
  if (call.arguments.batch == 0) return;
  const auto& taps = call.arguments.taps;
  const auto window = [&](const std::vector<double>& axis) {
    return std::vector<T>(axis.begin(), axis.end());
  };
  const Windows<T> windows{window(taps[0]), window(taps[1]), window(taps[2])};
  results.outputs = call.outputs();
  results.cropped = call.cropped();
  if (call.wants_grad_constants) results.grad_constants = static_cast<T*>(grad_constants.mutable_data_ptr());
  CudaLauncher launcher(call.preds);
  if (call.arguments.is_volume) return run_volumes(problem, windows, weights, results, launcher);
  run(problem, windows, weights, results, launcher);
}

// ---------------------------------------------------------------------------------------------------------
// Operators

SimilarityOutputs similarity(const Tensor& preds, const Tensor& target, const std::vector<double>& taps,
                             const std::vector<int64_t>& sizes, const std::vector<int64_t>& pad,
                             const std::string& padding_mode, double c1, double c2,
                             const std::optional<Tensor>& constants, const std::string& objective,
                             double grad_scale, bool want_map, bool want_grad_preds, bool want_grad_target,
                             bool want_grad_constants) {
  const Arguments arguments = check_arguments(preds, target, taps, sizes, pad, padding_mode, constants);
  const bool of_similarity = parse_objective(objective) == Objective::mean_similarity;
  const torch::stable::accelerator::DeviceGuard guard(preds.get_device_index());
  const Call call{preds,           target,           arguments,          c1, c2, constants,
                  want_grad_preds, want_grad_target, want_grad_constants};
  const Tensor similarity = per_image(call, 1), contrast = per_image(call, 1);
  const Tensor grad_preds = empty_if(want_grad_preds, preds),
               grad_target = empty_if(want_grad_target, target);
  const Tensor grad_constants = want_grad_constants ? per_image(call, 2) : absent(preds);
  const Tensor map = want_map ? new_image(preds, arguments.output_shape()) : absent(preds);

  with_storage(preds.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    Problem<Storage> problem = problem_of<Storage>(call, grad_preds, grad_target);
    if (of_similarity) problem.of_similarity.scale = grad_scale / call.outputs();
    if (!of_similarity) problem.of_contrast.scale = grad_scale / call.cropped();
    if (want_map) problem.map = output_picture<Storage>(map);
    Results<T> results;
    results.similarity = static_cast<T*>(similarity.mutable_data_ptr());
    results.contrast_sensitivity = static_cast<T*>(contrast.mutable_data_ptr());
    run_on_device(call, problem, of_similarity ? Weights::mean_similarity : Weights::mean_contrast, results,
                  grad_constants);
  });
  return {similarity, contrast, map, grad_preds, grad_target, grad_constants};
}

BackwardOutputs similarity_backward(const Tensor& preds, const Tensor& target,
                                    const std::vector<double>& taps, const std::vector<int64_t>& sizes,
                                    const std::vector<int64_t>& pad, const std::string& padding_mode,
                                    double c1, double c2, const std::optional<Tensor>& constants,
                                    const std::optional<Tensor>& grad_similarity,
                                    const std::optional<Tensor>& grad_contrast,
                                    const std::optional<Tensor>& grad_map, bool want_grad_preds,
                                    bool want_grad_target, bool want_grad_constants) {
  const Arguments arguments = check_arguments(preds, target, taps, sizes, pad, padding_mode, constants);
  check_upstream(arguments, preds, grad_similarity, grad_contrast, grad_map);
  const torch::stable::accelerator::DeviceGuard guard(preds.get_device_index());
  const Call call{preds,           target,           arguments,          c1, c2, constants,
                  want_grad_preds, want_grad_target, want_grad_constants};
  const Tensor grad_preds = empty_if(want_grad_preds, preds),
               grad_target = empty_if(want_grad_target, target);
  const Tensor grad_constants = want_grad_constants ? per_image(call, 2) : absent(preds);

  with_storage(preds.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    Problem<Storage> problem = problem_of<Storage>(call, grad_preds, grad_target);
    const auto weight = [](const std::optional<Tensor>& gradient, double count) {
      if (!gradient) return Weight<T>{};
      return Weight<T>{static_cast<const T*>(gradient->const_data_ptr()), gradient->stride(0), 1 / count};
    };
    problem.of_similarity = weight(grad_similarity, call.outputs());
    problem.of_contrast = weight(grad_contrast, call.cropped());
    if (grad_map) problem.grad_map = input_picture<Storage>(*grad_map);
    const Weights weights = grad_map || (grad_similarity && grad_contrast) ? Weights::general
                            : grad_contrast                                ? Weights::mean_contrast
                                                                           : Weights::mean_similarity;
    run_on_device(call, problem, weights, Results<T>{}, grad_constants);
  });
  return {grad_preds, grad_target, grad_constants};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CUDA, m) {
  m.impl("similarity", TORCH_BOX(&similarity));
  m.impl("similarity_backward", TORCH_BOX(&similarity_backward));
}

}  // namespace ssim_fused
