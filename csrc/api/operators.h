// The operators, written once for both devices: check the arguments, allocate the results, let the device
// compute. The schema of an operator (signatures.h) is made of the groups of arguments that it takes.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "device.h"
#include "multiscale.h"
#include "prepared.h"
#include "results.h"
#include "signatures.h"

namespace ssim_fused {

// -----------------------------------------------------------------------------------------------------------
// SSIM and MS-SSIM

// Returns the value, in the compute type, followed by the requested results: terms [B, 2], contrast
// sensitivity [B], map, and the gradients with respect to preds, target and constants [B, 2].
template <Device D>
std::vector<Tensor> similarity(const Images& images, const Spec& spec, const WantedGradients& wanted) {
  const Tensor& preds = images.preds;
  Request request = new_request(images, spec);
  check_float64(images, spec, wanted);
  request.in_float64 = spec.outputs.float64;
  const typename D::Guard guard(preds);
  request.reduction = spec.reduction;
  request.pixels = spec.pixels;
  request.as_distance = spec.as_distance;
  const double scale = stored_scale(preds.scalar_type(), preds.numel() / std::max<int64_t>(preds.size(0), 1),
                                    request.constants.c1, request.constants.c2) *
                       share_of_image(request.reduction, preds.size(0));
  request.of_similarity.scale = scale * request.pixels.ssim_weight / request.divisor();
  request.pixels.slope_scale = scale * request.pixels.mean_weight / request.pixel_divisor();

  std::vector<Tensor> results{new_per_image(preds, request.reduction, request.compute_type())};
  request.similarity = results[0].mutable_data_ptr();
  if (spec.want_terms) add_terms(request.pixels, preds, results);
  if (spec.outputs.contrast) {
    results.push_back(new_per_image(preds, Reduction::none, request.compute_type()));
    request.contrast = results.back().mutable_data_ptr();
  }
  if (spec.outputs.map) {
    const auto shape = request.output_shape();
    std::vector<int64_t> sides(shape.begin(), shape.end());
    if (!request.is_volume) sides.erase(sides.begin() + 2);
    results.push_back(new_tensor(preds, sides, request.map_type()));
    request.map = output_view(results.back());
  }
  add_gradients(request, preds, images.target, wanted, results);
  if (preds.size(0) == 0) fill_empty(results[0], request.reduction);
  run<D>(request, preds);
  return results;
}

// Returns the gradients of the outputs' sum, weighted by upstream gradients, from a separate pass.
template <Device D>
std::vector<Tensor> similarity_gradients(const Images& images, const UpstreamGradients& upstream,
                                         const Spec& spec, const WantedGradients& wanted) {
  const Tensor& preds = images.preds;
  Request request = new_request(images, spec);
  const typename D::Guard guard(preds);
  // Gradients of a request are those of the distance, which has the opposite sign.
  const double sign = spec.as_distance ? 1 : -1;
  const double share = share_of_image(spec.reduction, preds.size(0));
  request.of_similarity =
      check_upstream("grad_similarity", upstream.similarity, preds, sign * share / request.divisor());
  request.of_contrast =
      check_upstream("grad_contrast", upstream.contrast, preds, sign / request.cropped_divisor());
  if (upstream.map) {
    const View map = input_view(*upstream.map);
    STD_TORCH_CHECK(upstream.map->dim() == preds.dim() && map.shape == request.output_shape(),
                    "grad_map has shape ", to_text(upstream.map->sizes()), ", expected that of the map");
    STD_TORCH_CHECK(upstream.map->scalar_type() == map_type(preds.scalar_type()) &&
                        upstream.map->device() == preds.device(),
                    "grad_map differs in dtype or device from the map; convert it with .to(map)");
    request.grad_map = map;
  }
  request.objective = upstream.map || (upstream.similarity && upstream.contrast) ? Objective::general
                      : upstream.contrast                                        ? Objective::mean_contrast
                                                                                 : Objective::mean_similarity;
  std::vector<Tensor> results;
  add_gradients(request, preds, images.target, wanted, results);
  if (!results.empty()) run<D>(request, preds);
  return results;
}

// -----------------------------------------------------------------------------------------------------------
// Stored gradients

// Returns the factor that turns a stored gradient into the gradient for this upstream gradient.
inline Upstream stored_factor(const StoredGradient& stored, const FactorArguments& arguments) {
  const Tensor& gradient = stored.gradient;
  check_gradient(gradient);
  const Constants constants =
      check_constants(gradient, arguments.data_range, arguments.k1, arguments.k2, std::nullopt);
  const int64_t elements = gradient.numel() / std::max<int64_t>(gradient.size(0), 1);
  return check_upstream(
      "upstream", stored.upstream, gradient,
      arguments.factor / stored_scale(gradient.scalar_type(), elements, constants.c1, constants.c2));
}

template <Device D>
Tensor multiplied(const Tensor& gradient, const Upstream& by) {
  const typename D::Guard guard(gradient);
  const Tensor result = new_like(gradient);
  if (gradient.numel() > 0) D::multiply(input_view(gradient), by, output_view(result), gradient);
  return result;
}

template <Device D>
void multiply_in_place(const Tensor& gradient, const Upstream& by) {
  const typename D::Guard guard(gradient);
  const View view = output_view(gradient);
  for (size_t d = 0; d < 5; ++d)
    STD_TORCH_CHECK(view.stride[d] != 0 || view.shape[d] <= 1,
                    "gradient, which is written to, is expanded: its elements share memory; clone it");
  if (gradient.numel() > 0) D::multiply(view, by, view, gradient);
}

// -----------------------------------------------------------------------------------------------------------
// The operators as the dispatcher calls them

template <Device D>
struct Operators {
  static std::vector<Tensor> similarity(const Images& images, WindowArguments window,
                                        const PixelArguments& pixels, const ReductionArguments& reduction,
                                        const WantedOutputs& outputs, const WantedGradients& wanted) {
    return ssim_fused::similarity<D>(images, Spec(std::move(window), pixels, reduction, outputs), wanted);
  }

  static std::vector<Tensor> similarity_backward(const Images& images, const UpstreamGradients& upstream,
                                                 WindowArguments window, const ReductionArguments& reduction,
                                                 const WantedGradients& wanted) {
    return similarity_gradients<D>(images, upstream, Spec(std::move(window), {}, reduction, {}), wanted);
  }

  static std::vector<Tensor> multiscale(const Images& images, WindowArguments window,
                                        const PixelArguments& pixels, const PyramidArguments& pyramid,
                                        const ReductionArguments& reduction, const WantedGradients& wanted) {
    Spec spec(std::move(window), pixels, reduction, {});
    spec.levels = check_levels(pyramid);
    return ssim_fused::multiscale<D>(images, spec, wanted);
  }

  static Tensor multiply_gradient(const StoredGradient& stored, const FactorArguments& arguments) {
    return multiplied<D>(stored.gradient, stored_factor(stored, arguments));
  }
  static void multiply_gradient_(const StoredGradientInPlace& in_place, const FactorArguments& arguments) {
    multiply_in_place<D>(in_place.stored.gradient, stored_factor(in_place.stored, arguments));
  }

  // Prepared calls of SSIM or MS-SSIM; `prepared_value` computes no gradients.
  static std::vector<Tensor> prepared(const PreparedImages& call, const PreparedGradients& gradients) {
    const Spec& spec = prepared_specs().at(call.number);
    const Images images{call.preds, call.target, std::nullopt, std::nullopt};
    const WantedGradients wanted{gradients.preds, gradients.target, false};
    return spec.levels.levels > 0 ? ssim_fused::multiscale<D>(images, spec, wanted)
                                  : ssim_fused::similarity<D>(images, spec, wanted);
  }
  static Tensor prepared_value(const PreparedImages& call) { return prepared(call, {false, false})[0]; }
  static void prepared_multiply_(const StoredGradientInPlace& in_place, const SpecNumber& number) {
    const Spec& spec = prepared_specs().at(number.number);
    const WindowSpec& window = spec.window;
    const FactorArguments factor{spec.as_distance ? 1. : -1., window.data_range, window.k1, window.k2};
    multiply_in_place<D>(in_place.stored.gradient, stored_factor(in_place.stored, factor));
  }

  static void add_to(torch::stable::detail::StableLibrary& m) {
    m.impl("similarity", &signatures::Similarity::boxed<&similarity>);
    m.impl("similarity_backward", &signatures::SimilarityBackward::boxed<&similarity_backward>);
    m.impl("multiscale", &signatures::Multiscale::boxed<&multiscale>);
    m.impl("multiply_gradient", &signatures::MultiplyGradient::boxed<&multiply_gradient>);
    m.impl("multiply_gradient_", &signatures::MultiplyGradientInPlace::boxed<&multiply_gradient_>);
    m.impl("prepared_value", &signatures::PreparedValue::boxed<&prepared_value>);
    m.impl("prepared", &signatures::Prepared::boxed<&prepared>);
    m.impl("prepared_multiply_", &signatures::PreparedMultiply::boxed<&prepared_multiply_>);
  }
};

// Stores a spec under a number in the table of this library.
inline void prepare(const SpecNumber& number, WindowArguments window, const PixelArguments& pixels,
                    const PyramidArguments& pyramid, const ReductionArguments& reduction) {
  Spec spec(std::move(window), pixels, reduction, {});
  if (!pyramid.betas.empty()) spec.levels = check_levels(pyramid);
  prepared_specs().add(number.number, std::move(spec));
}

}  // namespace ssim_fused
