// A request for csrc/cuda/launch/from_request.cuh in programs that do not link torch. It has those members of
// the operators' Request from which the kernels' problem is made.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../../csrc/cuda/kernels/mask.cuh"
#include "../../csrc/cuda/kernels/problem.cuh"
#include "../../csrc/math/geometry.h"

namespace host {

// Shape and strides, in elements, are in the order batch, channel, slice, row, column.
struct View {
  void* data = nullptr;
  std::array<int64_t, 5> shape{}, stride{};
  ssim_fused::cuda::PixelType pixel_type = ssim_fused::cuda::PixelType::float32;
};
inline ssim_fused::cuda::PixelType pixel_type_of(const View& view) { return view.pixel_type; }

struct Windows {
  std::array<ssim_fused::Axis, 3> axes{};  // depth, rows, columns; images have one slice
  std::array<std::vector<double>, 3> taps{};

  template <class T>
  std::vector<T> taps_as(size_t axis) const {
    return {taps[axis].begin(), taps[axis].end()};
  }
};

struct Constants {
  double c1 = 0, c2 = 0;
  const void* data = nullptr;
  int64_t image_stride = 0, stride = 0;
};

struct Upstream {
  const void* values = nullptr;
  int64_t stride = 0;
  double scale = 0;
};

struct PixelRequest {
  ssim_fused::PixelTerm term = ssim_fused::PixelTerm::none;
  double eps = 0, mean_weight = 0, ssim_weight = 1, slope_scale = 0;
  void* terms = nullptr;
};

enum class Reduction { none, mean, sum };

// Gradients of a request are those of the distance.
struct Request {
  View preds, target, map, grad_preds, grad_target, grad_map;
  Windows windows;
  Constants constants;
  Upstream of_similarity, of_contrast;
  PixelRequest pixels;
  Reduction reduction = Reduction::none;
  bool as_distance = false;
  void *similarity = nullptr, *contrast = nullptr, *grad_constants = nullptr;

  bool wants_constants() const { return grad_constants != nullptr; }
  double pixels_of_image() const {
    const auto& n = preds.shape;
    return static_cast<double>(n[1] * n[2] * n[3] * n[4]);
  }
  double outputs() const {
    double count = static_cast<double>(preds.shape[1]);
    for (const auto& axis : windows.axes) count *= static_cast<double>(axis.output_length());
    return count;
  }
  double cropped_outputs() const {
    double count = static_cast<double>(preds.shape[1]);
    for (const auto& axis : windows.axes)
      count *= static_cast<double>(std::max<int64_t>(axis.crop_end() - axis.crop_begin(), 0));
    return count;
  }
};

}  // namespace host
