// The operators on the CPU: check, allocate, march, reduce.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

#include "../args.h"
#include "march_all.h"
#include "tensor_image.h"

namespace ssim_fused {
namespace {

using torch::headeronly::IntHeaderOnlyArrayRef;

template <class T>
Problem<T> problem_of(const Tensor& preds, const Tensor& target, const Arguments& arguments, double c1,
                      double c2, const std::optional<Tensor>& constants) {
  Problem<T> problem{};
  problem.preds = image_of<T>(preds, false);
  problem.target = image_of<T>(target, false);
  problem.rows = arguments.rows();
  problem.columns = arguments.columns();
  for (size_t d = 0; d < 2; ++d) {
    const std::vector<double>& taps = arguments.taps[1 + d];
    problem.taps[d].assign(taps.begin(), taps.end());
    problem.reversed[d].assign(taps.rbegin(), taps.rend());
  }
  problem.crop_rows = problem.rows.pad;
  problem.crop_columns = problem.columns.pad;
  problem.c1 = static_cast<T>(c1);
  problem.c2 = static_cast<T>(c2);
  if (constants) {
    const T* values = static_cast<const T*>(constants->const_data_ptr());
    problem.c1 = values[0];
    problem.c2 = values[1];
  }
  return problem;
}

// Which gradients are wanted, and the marching that yields them: SSIM is symmetric, so the gradient for
// target alone is the gradient for preds with the images exchanged.
template <class T>
std::vector<Sums> march_with_gradients(Problem<T>& problem, const Arguments& arguments,
                                       const Tensor& grad_preds, const Tensor& grad_target,
                                       bool want_grad_preds, bool want_grad_target,
                                       bool want_grad_constants) {
  problem.wants_constants = want_grad_constants;
  if (want_grad_preds) {
    problem.grad_preds = image_of<T>(grad_preds, true);
    if (want_grad_target) problem.grad_target = image_of<T>(grad_target, true);
  } else if (want_grad_target) {
    std::swap(problem.preds, problem.target);
    problem.grad_preds = image_of<T>(grad_target, true);
  }
  const int gradients = int{want_grad_preds} + int{want_grad_target};
  const int maps = gradients == 0 ? 0 : 2 + gradients;
  return (arguments.is_volume ? march_volumes<T> : march_images<T>)(problem, arguments, maps);
}

// [B] or, for derivatives by the constants, [B, 2], in the compute type.
template <class T, class F>
Tensor per_image(const Tensor& like, const std::vector<Sums>& sums, int64_t values, F&& value) {
  const int64_t shape[] = {static_cast<int64_t>(sums.size()), values};
  Tensor result = torch::stable::new_empty(like, IntHeaderOnlyArrayRef(shape, values == 1 ? 1 : 2),
                                           compute_type(like.scalar_type()));
  T* out = static_cast<T*>(result.mutable_data_ptr());
  for (const Sums& sum : sums) {
    for (int64_t v = 0; v < values; ++v) *out++ = static_cast<T>(value(sum, v));
  }
  return result;
}

template <class T>
Tensor constant_gradients(const Tensor& like, const std::vector<Sums>& sums) {
  return per_image<T>(like, sums, 2,
                      [](const Sums& sum, int64_t v) { return v == 0 ? sum.by_c1 : sum.by_c2; });
}

template <class T>
SimilarityOutputs similarity_of(const Tensor& preds, const Tensor& target, const Arguments& arguments,
                                double c1, double c2, const std::optional<Tensor>& constants,
                                Objective objective, double grad_scale, bool want_map, bool want_grad_preds,
                                bool want_grad_target, bool want_grad_constants) {
  Problem<T> problem = problem_of<T>(preds, target, arguments, c1, c2, constants);
  const double outputs = static_cast<double>(arguments.channels * arguments.output_pixels());
  const double cropped = static_cast<double>(arguments.channels * arguments.cropped_pixels());
  const bool of_similarity = objective == Objective::mean_similarity;
  problem.grad_similarity.assign(arguments.batch, static_cast<T>(of_similarity ? grad_scale / outputs : 0));
  problem.grad_contrast.assign(arguments.batch, static_cast<T>(of_similarity ? 0 : grad_scale / cropped));

  Tensor map = absent(preds);
  if (want_map) {
    map = new_image(preds, arguments.output_shape());
    problem.map = image_of<T>(map, true);
  }
  const Tensor grad_preds = empty_if(want_grad_preds, preds);
  const Tensor grad_target = empty_if(want_grad_target, target);
  const auto sums = march_with_gradients(problem, arguments, grad_preds, grad_target, want_grad_preds,
                                         want_grad_target, want_grad_constants);
  return {per_image<T>(preds, sums, 1, [&](const Sums& sum, int64_t) { return sum.similarity / outputs; }),
          per_image<T>(preds, sums, 1,
                       [&](const Sums& sum, int64_t) { return sum.contrast_sensitivity / cropped; }),
          map,
          grad_preds,
          grad_target,
          want_grad_constants ? constant_gradients<T>(preds, sums) : absent(preds)};
}

SimilarityOutputs similarity(const Tensor& preds, const Tensor& target, const std::vector<double>& taps,
                             const std::vector<int64_t>& sizes, const std::vector<int64_t>& pad,
                             const std::string& padding_mode, double c1, double c2,
                             const std::optional<Tensor>& constants, const std::string& objective,
                             double grad_scale, bool want_map, bool want_grad_preds, bool want_grad_target,
                             bool want_grad_constants) {
  const Arguments arguments = check_arguments(preds, target, taps, sizes, pad, padding_mode, constants);
  const auto run = preds.scalar_type() == ScalarType::Double ? similarity_of<double> : similarity_of<float>;
  return run(preds, target, arguments, c1, c2, constants, parse_objective(objective), grad_scale, want_map,
             want_grad_preds, want_grad_target, want_grad_constants);
}

// Weights of one mean for each image: upstream gradient [B] over the number of outputs.
template <class T>
std::vector<T> mean_weights(const std::optional<Tensor>& gradient, int64_t batch, int64_t count) {
  std::vector<T> weights(batch, T(0));
  if (!gradient) return weights;
  const T* values = static_cast<const T*>(gradient->const_data_ptr());
  for (int64_t b = 0; b < batch; ++b) {
    weights[b] =
        static_cast<T>(static_cast<double>(values[b * gradient->stride(0)]) / static_cast<double>(count));
  }
  return weights;
}

template <class T>
BackwardOutputs backward_of(const Tensor& preds, const Tensor& target, const Arguments& arguments, double c1,
                            double c2, const std::optional<Tensor>& constants,
                            const std::optional<Tensor>& grad_similarity,
                            const std::optional<Tensor>& grad_contrast, const std::optional<Tensor>& grad_map,
                            bool want_grad_preds, bool want_grad_target, bool want_grad_constants) {
  Problem<T> problem = problem_of<T>(preds, target, arguments, c1, c2, constants);
  problem.grad_similarity =
      mean_weights<T>(grad_similarity, arguments.batch, arguments.channels * arguments.output_pixels());
  problem.grad_contrast =
      mean_weights<T>(grad_contrast, arguments.batch, arguments.channels * arguments.cropped_pixels());
  if (grad_map) problem.grad_map = image_of<T>(*grad_map, false);
  const Tensor grad_preds = empty_if(want_grad_preds, preds);
  const Tensor grad_target = empty_if(want_grad_target, target);
  const auto sums = march_with_gradients(problem, arguments, grad_preds, grad_target, want_grad_preds,
                                         want_grad_target, want_grad_constants);
  return {grad_preds, grad_target, want_grad_constants ? constant_gradients<T>(preds, sums) : absent(preds)};
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
  const auto run = preds.scalar_type() == ScalarType::Double ? backward_of<double> : backward_of<float>;
  return run(preds, target, arguments, c1, c2, constants, grad_similarity, grad_contrast, grad_map,
             want_grad_preds, want_grad_target, want_grad_constants);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CPU, m) {
  m.impl("similarity", TORCH_BOX(&similarity));
  m.impl("similarity_backward", TORCH_BOX(&similarity_backward));
}

}  // namespace ssim_fused
