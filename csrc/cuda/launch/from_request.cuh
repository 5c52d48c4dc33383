// Converts requests to the parameters of kernels. Independent of torch: `Request` and `View` are those of the
// operators or types with the same members, so that the tests on the host share this code
// (tests/simt/host_request.h). Functions next to the view's type convert its data type:
//
//     PixelType pixel_type_of(view)      of an image of integers, or of floats compared with integers
//     WeightType weight_type_of(view)    of a mask
#pragma once

#include <cstdint>
#include <type_traits>

#include "../kernels/mask.cuh"
#include "../kernels/problem.cuh"
#include "call.cuh"

namespace ssim_fused::cuda {

// Returns a view as an image of pixels of type Storage. An image of AnyPixel also stores their type.
template <class Storage, class View>
DeviceImage<Storage> device_image(const View& view) {
  using Data = std::conditional_t<std::is_same_v<Storage, const AnyPixel>, const void, Storage>;
  DeviceImage<Storage> image{static_cast<Data*>(view.data),
                             {view.stride[0], view.stride[1], view.stride[3], view.stride[4]},
                             view.stride[2]};
  if constexpr (std::is_same_v<Storage, const AnyPixel>) {
    if (view.data) image.type = pixel_type_of(view);
  }
  return image;
}

template <class View>
Weights weights(const View& mask) {
  if (!mask.data) return {};
  return {mask.data,
          {mask.stride[0], mask.stride[1], mask.stride[3], mask.stride[4]},
          mask.stride[2],
          weight_type_of(mask)};
}

template <class T, class PixelRequest>
PixelTermParams<T> pixel_term_params(const PixelRequest& request) {
  return {request.term, static_cast<T>(request.eps * request.eps), static_cast<T>(request.slope_scale)};
}

template <class T, class PixelRequest>
PixelTermResults<T> pixel_term_results(const PixelRequest& request) {
  PixelTermResults<T> results;
  results.mean_weight = request.mean_weight;
  results.ssim_weight = request.ssim_weight;
  results.terms = static_cast<T*>(request.terms);
  return results;
}

// Converts an axis whose numbers are at most kMaxAxis.
template <class Axis>
DeviceAxis device_axis(const Axis& axis) {
  return {static_cast<int>(axis.n), static_cast<int>(axis.radius), static_cast<int>(axis.pad), axis.reflects};
}

// Converts an upstream weight. The sign changes, because kernels differentiate similarity and contrast
// sensitivity, and requests the distances.
template <class T, class Upstream>
Weight<T> weight_of(const Upstream& upstream) {
  return {static_cast<const T*>(upstream.values), upstream.stride, -upstream.scale};
}

template <class T, class Request>
WindowTaps<T> window_taps(const Request& request) {
  const auto& windows = request.windows;
  return {windows.template taps_as<T>(0), windows.template taps_as<T>(1), windows.template taps_as<T>(2)};
}

template <class Storage, class Request>
Problem<Storage> problem_of(const Request& request) {
  using T = ComputeOf<Storage>;
  Problem<Storage> problem{};
  problem.depth = device_axis(request.windows.axes[0]);
  problem.rows = device_axis(request.windows.axes[1]);
  problem.columns = device_axis(request.windows.axes[2]);
  problem.batch = request.preds.shape[0];
  problem.channels = request.preds.shape[1];
  const auto& constants = request.constants;
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

template <class Storage, class Request>
MaskedProblem<Storage> masked_problem_of(const Request& request) {
  return {problem_of<Storage>(request), weights(request.mask.view), request.mask.weighs_windows(), nullptr};
}

template <class T, class Request>
Results<T> results_of(const Request& request) {
  using Reduction = std::remove_cvref_t<decltype(request.reduction)>;
  Results<T> results;
  T* const similarity = static_cast<T*>(request.similarity);
  (request.reduction == Reduction::none ? results.similarity : results.batch_similarity) = similarity;
  if (request.reduction == Reduction::mean) results.scale = 1 / static_cast<double>(request.preds.shape[0]);
  results.contrast = static_cast<T*>(request.contrast);
  results.grad_constants = static_cast<T*>(request.grad_constants);
  results.as_distance = request.as_distance;
  results.outputs = request.outputs();
  results.cropped = request.cropped_outputs();
  results.pixel_term = pixel_term_results<T>(request.pixels);
  results.pixel_term_sums.pixels = request.pixels_of_image();
  return results;
}

}  // namespace ssim_fused::cuda
