// Images in memory as both devices see them, and the types that results have. Independent of tensors;
// tensors.h makes views of those.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <array>
#include <cstdint>
#include <string>

#include "../math/pixel_types.h"

namespace ssim_fused {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;

// Returns the type of the arithmetic and of per-image results.
inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

#define SSIM_IS(name, Stored, scalar) || type == ScalarType::scalar
// Returns whether images of this type have gradients.
inline bool is_differentiable(ScalarType type) { return false SSIM_FOR_FLOAT_PIXELS(SSIM_IS); }
// Returns whether this is an integer type, as decoders deliver. Pixel values are not scaled.
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

// Lists the names of the types for error messages.
#define SSIM_LISTED(name, Stored, scalar) ", " #name
inline std::string float_names() { return std::string(SSIM_FOR_FLOAT_PIXELS(SSIM_LISTED)).substr(2); }
inline std::string integer_names() { return std::string(SSIM_FOR_INTEGER_PIXELS(SSIM_LISTED)).substr(2); }
#undef SSIM_LISTED

// Returns the type of the map of images of this type.
inline ScalarType map_type(ScalarType type) { return is_integer(type) ? ScalarType::Float : type; }

// Returns whether `preds` of one type may be combined with a `target` of another: an integer type whose
// values the type of `preds` represents exactly.
inline bool holds_integers_of(ScalarType preds, ScalarType target) {
  if (!is_integer(target) || is_integer(preds)) return false;
  return bytes_of(target) == 1 || bytes_of(preds) >= 4;
}

// A batch of images or volumes; an image is a volume of one slice. Shape and strides, in elements, are in the
// order batch, channel, slice, row, column. A view without data stands for an image that is not requested.
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
  // Returns a contiguous view of `data`.
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

}  // namespace ssim_fused
