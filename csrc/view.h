// Tensors as the devices see them, and what is asked of both images of a call.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "math/pixel_types.h"

namespace ssim_fused {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string to_text(torch::headeronly::IntHeaderOnlyArrayRef values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

inline std::string to_text(const std::vector<double>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

// The type the arithmetic and the per-image results have.
inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Whose gradients there are, too.
inline bool is_served(ScalarType type) {
#define SSIM_IS(name, Stored, scalar) || type == ScalarType::scalar
  return false SSIM_FOR_FLOAT_PIXELS(SSIM_IS);
}

// Pixels as they come from decoders; they are numbers as they stand, not scaled.
inline bool is_integer(ScalarType type) { return false SSIM_FOR_INTEGER_PIXELS(SSIM_IS); }
#undef SSIM_IS

inline int64_t bytes_of(ScalarType type) {
#define SSIM_BYTES(name, Stored, scalar) \
  if (type == ScalarType::scalar) return sizeof(Stored);
  SSIM_FOR_FLOAT_PIXELS(SSIM_BYTES)
  SSIM_FOR_INTEGER_PIXELS(SSIM_BYTES)
#undef SSIM_BYTES
  return sizeof(bool);
}

// The names of the types, for errors.
inline std::string float_names() {
#define SSIM_LISTED(name, Stored, scalar) ", " #name
  return std::string(SSIM_FOR_FLOAT_PIXELS(SSIM_LISTED)).substr(2);
}
inline std::string integer_names() {
  return std::string(SSIM_FOR_INTEGER_PIXELS(SSIM_LISTED)).substr(2);
#undef SSIM_LISTED
}

// Of maps beside images of that type.
inline ScalarType picture_type(ScalarType type) { return is_integer(type) ? ScalarType::Float : type; }

// Whether target may have another type than preds: integers that preds' type has, too.
inline bool has_integers_of(ScalarType preds, ScalarType target) {
  if (!is_integer(target) || is_integer(preds)) return false;
  return bytes_of(target) == 1 || bytes_of(preds) >= 4;
}

// ---------------------------------------------------------------------------------------------------------------------
// Images

// A batch of images or volumes in memory; an image is a volume of one slice. Shape and strides, in elements:
// batch, channel, slice, row, column. No data: the image is not wanted.
struct View {
  void* data = nullptr;
  ScalarType type = ScalarType::Float;
  std::array<int64_t, 5> shape{}, stride{};

  explicit operator bool() const { return data != nullptr; }
  int64_t batch() const { return shape[0]; }
  int64_t channels() const { return shape[1]; }
  int64_t depth() const { return shape[2]; }
  int64_t height() const { return shape[3]; }
  int64_t width() const { return shape[4]; }
  int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3] * shape[4]; }
  // Contiguous, in `data`.
  static View of(void* data, ScalarType type, const std::array<int64_t, 5>& shape) {
    View view{data, type, shape, {}};
    int64_t stride = 1;
    for (size_t d = 5; d-- > 0;) {
      view.stride[d] = stride;
      stride *= shape[d];
    }
    return view;
  }
};

inline View view_of(const Tensor& tensor, void* data) {
  View view{data, tensor.scalar_type(), {}, {}};
  const bool is_volume = tensor.dim() == 5;
  for (int64_t d = 0; d < 5; ++d) {
    if (d == 2 && !is_volume) {
      view.shape[2] = 1;
      continue;
    }
    const int64_t dim = d < 2 || is_volume ? d : d - 1;
    view.shape[static_cast<size_t>(d)] = tensor.size(dim);
    view.stride[static_cast<size_t>(d)] = tensor.stride(dim);
  }
  return view;
}
inline View input_view(const Tensor& tensor) {
  return view_of(tensor, const_cast<void*>(tensor.const_data_ptr()));
}
inline View output_view(const Tensor& tensor) { return view_of(tensor, tensor.mutable_data_ptr()); }

inline void check_images(const Tensor& preds, const Tensor& target) {
  STD_TORCH_CHECK(preds.dim() == 4 || preds.dim() == 5, "preds has shape ", to_text(preds.sizes()),
                  ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(std::ranges::equal(preds.sizes(), target.sizes()), "target has shape ",
                  to_text(target.sizes()), ", expected the shape of preds, ", to_text(preds.sizes()));
  const ScalarType type = preds.scalar_type();
  STD_TORCH_CHECK(is_served(type) || is_integer(type), "preds has dtype ", torch::headeronly::toString(type),
                  ", expected one of ", float_names(), ", ", integer_names());
  STD_TORCH_CHECK(type == target.scalar_type() || has_integers_of(type, target.scalar_type()),
                  "target has dtype ", torch::headeronly::toString(target.scalar_type()),
                  ", expected the dtype of preds, ", torch::headeronly::toString(type));
  STD_TORCH_CHECK(preds.device() == target.device(),
                  "target is on another device than preds; move one of them");
  STD_TORCH_CHECK(preds.size(1) > 0, "preds has shape ", to_text(preds.sizes()),
                  ", expected at least one channel");
}

}  // namespace ssim_fused
