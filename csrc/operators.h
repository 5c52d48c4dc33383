// Every operator once, for both devices: check, allocate, let the device run, return what was asked for. A
// device has
//
//     struct Guard;  // made of a tensor: makes its device the current one
//     similarity(const Request&, const Tensor& like);  // one pass; scratch is allocated like `like`
//     downsample(const std::vector<HalvingRequest>&, const Tensor& like);  // each from the one before
//     struct LevelResults;  // made of a number of levels: what their passes leave for the product
//     level(const Request&, int number, LevelResults&, const Tensor& like);  // a pass over one of them
//     product(const ProductRequest&, const LevelResults&, const Tensor& like);
//     gather(const GatherRequest&, const Tensor& like);
//     multiply(const View& gradient, const Upstream& factor, const View& result, const Tensor& like);
//
// and nothing on it waits for the device.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "allocate.h"
#include "multiscale.h"
#include "request.h"
#include "results.h"

namespace ssim_fused {

// ---------------------------------------------------------------------------------------------------------------------
// Operators: see the schemas (schema.cpp)

template <class Device>
std::vector<Tensor> similarity(const Tensor& preds, const Tensor& target, const std::vector<double>& sigma,
                               const std::vector<int64_t>& kernel_size,
                               const std::optional<std::vector<double>>& taps, const std::string& padding,
                               double data_range, double k1, double k2,
                               const std::optional<Tensor>& constants, const std::optional<Tensor>& mask,
                               const std::string& mask_mode, const std::string& pixel_term,
                               double ssim_weight, double pixel_eps, bool want_terms, int64_t reduction,
                               bool as_distance, bool want_contrast, bool want_map, bool want_grad_preds,
                               bool want_grad_target, bool want_grad_constants) {
  Request request = new_request(preds, target, {sigma, kernel_size, taps, padding}, data_range, k1, k2,
                                constants, mask, mask_mode);
  const typename Device::Guard guard(preds);
  const Wanted wanted{want_contrast, want_map, want_grad_preds, want_grad_target, want_grad_constants};
  request.reduction = parse_reduction(reduction);
  request.pixels = check_pixel_term(pixel_term, ssim_weight, pixel_eps);
  STD_TORCH_CHECK(!request.pixels || !(want_contrast || want_map), "pixel_term is '", pixel_term,
                  "', which goes with the value alone, expected want_contrast and want_map to be false");
  request.as_distance = as_distance || request.pixels;
  const double scale = stored_scale(preds.scalar_type(), preds.numel() / std::max<int64_t>(preds.size(0), 1),
                                    request.constants.c1, request.constants.c2) *
                       share_of_image(request.reduction, preds.size(0));
  request.of_similarity.scale = scale * request.pixels.ssim_weight / request.divisor();
  request.pixels.slope_scale = scale * request.pixels.mean_weight / request.pixel_divisor();

  std::vector<Tensor> results{new_per_image(preds, request.reduction)};
  request.similarity = results[0].mutable_data_ptr();
  if (want_terms) add_terms(request.pixels, preds, results);
  if (wanted.contrast) {
    results.push_back(new_per_image(preds, Reduction::none));
    request.contrast = results.back().mutable_data_ptr();
  }
  if (wanted.map) {
    const auto shape = request.output_shape();
    std::vector<int64_t> sides(shape.begin(), shape.end());
    if (!request.is_volume) sides.erase(sides.begin() + 2);
    results.push_back(new_tensor(preds, sides, picture_type(preds.scalar_type())));
    request.map = output_view(results.back());
  }
  add_gradients(request, preds, target, wanted, results);
  if (preds.size(0) == 0 && request.reduction != Reduction::none)  // a mean of nothing is NaN, a sum zero
    torch::stable::fill_(results[0], request.reduction == Reduction::sum ? 0.0 : std::nan(""));
  run<Device>(request, preds);
  return results;
}

// An upstream gradient, of one number or of one for each image.
inline Upstream check_upstream(const char* name, const std::optional<Tensor>& gradient, const Tensor& preds,
                               double scale) {
  if (!gradient) return {};
  const bool is_shared = gradient->numel() == 1,
             is_each = gradient->dim() == 1 && gradient->size(0) == preds.size(0);
  STD_TORCH_CHECK(is_shared || is_each, name, " has shape ", to_text(gradient->sizes()),
                  ", expected one element, or [B]");
  const ScalarType type = compute_type(preds.scalar_type());
  STD_TORCH_CHECK(gradient->scalar_type() == type, name, " has dtype ",
                  torch::headeronly::toString(gradient->scalar_type()), ", expected ",
                  torch::headeronly::toString(type));
  STD_TORCH_CHECK(gradient->device() == preds.device(), name,
                  " is on another device than preds; move one of them");
  return {gradient->const_data_ptr(), is_each && !(is_shared && preds.size(0) != 1) ? gradient->stride(0) : 0,
          scale};
}

template <class Device>
std::vector<Tensor> similarity_backward(
    const Tensor& preds, const Tensor& target, const std::vector<double>& sigma,
    const std::vector<int64_t>& kernel_size, const std::optional<std::vector<double>>& taps,
    const std::string& padding, double data_range, double k1, double k2,
    const std::optional<Tensor>& constants, const std::optional<Tensor>& mask, const std::string& mask_mode,
    int64_t reduction, bool as_distance, const std::optional<Tensor>& grad_similarity,
    const std::optional<Tensor>& grad_contrast, const std::optional<Tensor>& grad_map, bool want_grad_preds,
    bool want_grad_target, bool want_grad_constants) {
  Request request = new_request(preds, target, {sigma, kernel_size, taps, padding}, data_range, k1, k2,
                                constants, mask, mask_mode);
  const typename Device::Guard guard(preds);
  // The request's gradients are those of distances.
  const double sign = as_distance ? 1 : -1;
  const double share = share_of_image(parse_reduction(reduction), preds.size(0));
  request.of_similarity =
      check_upstream("grad_similarity", grad_similarity, preds, sign * share / request.divisor());
  request.of_contrast =
      check_upstream("grad_contrast", grad_contrast, preds, sign / request.cropped_divisor());
  if (grad_map) {
    const View map = input_view(*grad_map);
    STD_TORCH_CHECK(grad_map->dim() == preds.dim() && map.shape == request.output_shape(),
                    "grad_map has shape ", to_text(grad_map->sizes()), ", expected that of the map");
    STD_TORCH_CHECK(
        grad_map->scalar_type() == picture_type(preds.scalar_type()) && grad_map->device() == preds.device(),
        "grad_map has another dtype or device than the map");
    request.grad_map = map;
  }
  request.objective = grad_map || (grad_similarity && grad_contrast) ? Objective::general
                      : grad_contrast                                ? Objective::mean_contrast
                                                                     : Objective::mean_similarity;
  std::vector<Tensor> results;
  add_gradients(request, preds, target,
                {false, false, want_grad_preds, want_grad_target, want_grad_constants}, results);
  if (!results.empty()) run<Device>(request, preds);
  return results;
}

// The factor that takes a stored gradient to the upstream gradient's.
inline Upstream stored_factor(const Tensor& gradient, const Tensor& upstream, double factor,
                              double data_range, double k1, double k2) {
  check_gradient(gradient);
  const Constants constants = check_constants(gradient, data_range, k1, k2, std::nullopt);
  return check_upstream(
      "upstream", upstream, gradient,
      factor / stored_scale(gradient.scalar_type(), gradient.numel() / std::max<int64_t>(gradient.size(0), 1),
                            constants.c1, constants.c2));
}

template <class Device>
Tensor multiply_gradient(const Tensor& gradient, const Tensor& upstream, double factor, double data_range,
                         double k1, double k2) {
  const Upstream by = stored_factor(gradient, upstream, factor, data_range, k1, k2);
  const typename Device::Guard guard(gradient);
  const Tensor result = new_like(gradient);
  if (gradient.numel() > 0) Device::multiply(input_view(gradient), by, output_view(result), gradient);
  return result;
}

template <class Device>
void multiply_gradient_(Tensor& gradient, const Tensor& upstream, double factor, double data_range, double k1,
                        double k2) {
  const Upstream by = stored_factor(gradient, upstream, factor, data_range, k1, k2);
  const typename Device::Guard guard(gradient);
  const View view = output_view(gradient);
  for (size_t d = 0; d < 5; ++d)
    STD_TORCH_CHECK(view.stride[d] != 0 || view.shape[d] <= 1,
                    "gradient, which is written to, is expanded: its elements share memory; clone it");
  if (gradient.numel() > 0) Device::multiply(view, by, view, gradient);
}

template <class Device>
void register_operators(torch::stable::detail::StableLibrary& m) {
  m.impl("similarity", TORCH_BOX(&similarity<Device>));
  m.impl("similarity_backward", TORCH_BOX(&similarity_backward<Device>));
  m.impl("multiscale", TORCH_BOX(&multiscale<Device>));
  m.impl("multiply_gradient", TORCH_BOX(&multiply_gradient<Device>));
  m.impl("multiply_gradient_", TORCH_BOX(&multiply_gradient_<Device>));
}

}  // namespace ssim_fused
