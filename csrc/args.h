// The operators' arguments, checked once for both devices. Messages name the argument, its value and what
// would be right; the Python layer checks the same earlier, these are for direct callers of
// torch.ops.ssim_fused.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "math/geometry.h"
#include "math/pass.h"

namespace ssim_fused {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// similarity [B], contrast_sensitivity [B], map, grad_preds, grad_target, grad_constants [B, 2]; an output
// that was not asked for is empty, [0].
using SimilarityOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
// grad_preds, grad_target, grad_constants [B, 2]
using BackwardOutputs = std::tuple<Tensor, Tensor, Tensor>;

// What every operator takes, in the terms of the kernels. An image is a volume of one slice, whose window has
// one tap along the depth.
struct Arguments {
  int64_t batch, channels;
  bool is_volume;                           // [B, C, D, H, W]
  std::array<Axis, 3> axes;                 // depth, rows, columns
  std::array<std::vector<double>, 3> taps;  // one window per axis, [2 radius + 1]

  const Axis& depth() const { return axes[0]; }
  const Axis& rows() const { return axes[1]; }
  const Axis& columns() const { return axes[2]; }
  int64_t planes() const { return batch * channels; }
  int64_t output_pixels() const {  // of one channel
    return depth().output_length() * rows().output_length() * columns().output_length();
  }
  std::vector<int64_t> output_shape() const {
    std::vector<int64_t> shape{batch, channels};
    for (const Axis& axis : axes) {
      if (is_volume || &axis != &depth()) shape.push_back(axis.output_length());
    }
    return shape;
  }
  // Outputs that count for the mean contrast sensitivity: `pad` cropped from both ends of each axis.
  int64_t cropped_pixels() const {
    int64_t pixels = 1;
    for (const Axis& axis : axes) pixels *= std::max<int64_t>(axis.output_length() - 2 * axis.pad, 0);
    return pixels;
  }
};

inline std::string to_text(torch::headeronly::IntHeaderOnlyArrayRef values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

inline bool is_supported(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

// The type the arithmetic and the per-image results have.
inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Objective parse_objective(const std::string& objective) {
  STD_TORCH_CHECK(objective == "similarity" || objective == "contrast_sensitivity", "objective is '",
                  objective, "', expected 'similarity' or 'contrast_sensitivity'");
  return objective == "similarity" ? Objective::mean_similarity : Objective::mean_contrast;
}

// An output that was not asked for.
inline Tensor absent(const Tensor& like) {
  const int64_t shape[] = {0};
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(shape, 1));
}

inline Tensor empty_if(bool wanted, const Tensor& like) {
  return wanted ? torch::stable::empty_like(like) : absent(like);
}

inline Tensor new_image(const Tensor& like, const std::vector<int64_t>& shape) {
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(shape.data(), shape.size()));
}

// Of a tensor [B, C, H, W] or [B, C, D, H, W], the strides of batch, channel, slice, row and column.
inline std::array<int64_t, 5> image_strides(const Tensor& tensor) {
  if (tensor.dim() == 5) {
    return {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3), tensor.stride(4)};
  }
  return {tensor.stride(0), tensor.stride(1), 0, tensor.stride(2), tensor.stride(3)};
}

inline void check_images(const Tensor& preds, const Tensor& target) {
  STD_TORCH_CHECK(preds.dim() == 4 || preds.dim() == 5, "preds has shape ", to_text(preds.sizes()),
                  ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(std::ranges::equal(preds.sizes(), target.sizes()), "target has shape ",
                  to_text(target.sizes()), ", expected the shape of preds, ", to_text(preds.sizes()));
  STD_TORCH_CHECK(is_supported(preds.scalar_type()), "preds has dtype ",
                  torch::headeronly::toString(preds.scalar_type()),
                  ", expected float32, float64, float16 or bfloat16");
  STD_TORCH_CHECK(preds.scalar_type() == target.scalar_type(), "target has dtype ",
                  torch::headeronly::toString(target.scalar_type()), ", expected the dtype of preds, ",
                  torch::headeronly::toString(preds.scalar_type()));
  STD_TORCH_CHECK(preds.device() == target.device(),
                  "target is on another device than preds; move one of them");
}

inline Arguments check_arguments(const Tensor& preds, const Tensor& target, const std::vector<double>& taps,
                                 const std::vector<int64_t>& sizes, const std::vector<int64_t>& pad,
                                 const std::string& padding_mode, const std::optional<Tensor>& constants) {
  check_images(preds, target);
  const size_t dims = static_cast<size_t>(preds.dim()) - 2;
  STD_TORCH_CHECK(sizes.size() == dims, "sizes has ", sizes.size(),
                  " elements, expected one window size per axis, ", dims);
  STD_TORCH_CHECK(pad.size() == dims, "pad has ", pad.size(), " elements, expected one padding per axis, ",
                  dims);
  STD_TORCH_CHECK(padding_mode == "reflect" || padding_mode == "zero", "padding_mode is '", padding_mode,
                  "', expected 'reflect' or 'zero' (for 'valid' let pad be 0)");
  STD_TORCH_CHECK(preds.size(1) > 0, "preds has shape ", to_text(preds.sizes()),
                  ", expected at least one channel");

  const bool reflects = padding_mode == "reflect";
  const size_t first = 3 - dims;  // of `axes`
  Arguments arguments{preds.size(0), preds.size(1), dims == 3, {}, {}};
  if (first > 0) {
    arguments.axes[0] = {1, 0, 0, reflects};
    arguments.taps[0] = {1.0};
  }
  auto begin = taps.begin();
  for (size_t d = 0; d < dims; ++d) {
    STD_TORCH_CHECK(sizes[d] > 0 && sizes[d] % 2 == 1, "sizes is ", to_text(sizes),
                    ", expected odd positive numbers");
    STD_TORCH_CHECK(taps.end() - begin >= sizes[d], "taps has ", taps.size(),
                    " elements, expected the sum of sizes, ", to_text(sizes));
    const Axis axis{preds.size(2 + d), sizes[d] / 2, pad[d], reflects};
    STD_TORCH_CHECK(
        pad[d] >= 0 && (d + 1 == dims || pad[d] <= axis.radius), "pad is ", to_text(pad),
        ", expected non-negative numbers, all but the last at most half the window's size, sizes ",
        to_text(sizes));
    STD_TORCH_CHECK(reflects || pad[d] <= 2 * axis.radius, "pad is ", to_text(pad),
                    ", expected less than the window's size, sizes ", to_text(sizes),
                    ": a window of zeros alone has nothing to compare");
    STD_TORCH_CHECK(!reflects || pad[d] < axis.n, "preds has shape ", to_text(preds.sizes()),
                    ", too small for reflection by pad ", to_text(pad),
                    ": each side must be larger than its pad");
    STD_TORCH_CHECK(axis.n > 0 && axis.output_length() > 0, "preds has shape ", to_text(preds.sizes()),
                    ", smaller than the window, sizes ", to_text(sizes), " with pad ", to_text(pad));
    arguments.axes[first + d] = axis;
    arguments.taps[first + d].assign(begin, begin + sizes[d]);
    begin += sizes[d];
  }
  STD_TORCH_CHECK(begin == taps.end(), "taps has ", taps.size(), " elements, expected the sum of sizes, ",
                  to_text(sizes));
  for (double tap : taps)
    STD_TORCH_CHECK(std::isfinite(tap), "taps has the element ", tap, ", expected finite numbers");
  if (constants) {
    STD_TORCH_CHECK(constants->dim() == 1 && constants->size(0) == 2 && constants->is_contiguous(),
                    "constants has shape ", to_text(constants->sizes()),
                    ", expected a contiguous [2]: c1 and c2");
    STD_TORCH_CHECK(constants->scalar_type() == compute_type(preds.scalar_type()), "constants has dtype ",
                    torch::headeronly::toString(constants->scalar_type()), ", expected ",
                    torch::headeronly::toString(compute_type(preds.scalar_type())));
    STD_TORCH_CHECK(constants->device() == preds.device(),
                    "constants is on another device than preds; move one of them");
  }
  return arguments;
}

// The upstream gradients of `similarity_backward`.
inline void check_upstream(const Arguments& arguments, const Tensor& preds,
                           const std::optional<Tensor>& grad_similarity,
                           const std::optional<Tensor>& grad_contrast,
                           const std::optional<Tensor>& grad_map) {
  const ScalarType type = compute_type(preds.scalar_type());
  const auto check = [&](const char* name, const std::optional<Tensor>& gradient, std::vector<int64_t> shape,
                         ScalarType expected) {
    if (!gradient) return;
    STD_TORCH_CHECK(std::ranges::equal(gradient->sizes(), shape), name, " has shape ",
                    to_text(gradient->sizes()), ", expected ", to_text(shape));
    STD_TORCH_CHECK(gradient->scalar_type() == expected, name, " has dtype ",
                    torch::headeronly::toString(gradient->scalar_type()), ", expected ",
                    torch::headeronly::toString(expected));
    STD_TORCH_CHECK(gradient->device() == preds.device(), name,
                    " is on another device than preds; move one of them");
  };
  check("grad_similarity", grad_similarity, {arguments.batch}, type);
  check("grad_contrast", grad_contrast, {arguments.batch}, type);
  check("grad_map", grad_map, arguments.output_shape(), preds.scalar_type());
}

}  // namespace ssim_fused
