// Every operator once, for both devices: check, allocate, let the device run, return what was asked for. A
// device has
//
//     struct Guard { explicit Guard(const Tensor&); };  // makes the tensor's device the current one
//     static void similarity(const Request&, const Tensor& like);  // one pass; scratch is allocated like
//     `like` static void downsample(const View (&from)[2], const View (&to)[2], const Tensor& like); static
//     void product(const ProductRequest&, const Tensor& like); static void gather(const GatherRequest&, const
//     Tensor& like); static void multiply(const View& gradient, const Upstream& factor, const View& result,
//     const Tensor& like);
//
// and nothing on it waits for the device.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "allocate.h"
#include "math/pyramid.h"
#include "request.h"

namespace ssim_fused {

// MS-SSIM of each image from the levels' losses, one minus their means; and the weights of the levels'
// gradients in that of the distance. All in the compute type.
struct ProductRequest {
  ScalarType type;
  int64_t batch;
  LevelWeights weights;
  const void* losses;  // [levels, B]
  Reduction reduction;
  bool as_distance;
  double gradient_scale;  // of the result's gradient; the finest level's is stored times `finest_scale`
  double finest_scale;
  void* value;                  // [B], or one number
  void* factors;                // [levels, B]; null where no gradient is wanted
  const void* level_constants;  // [levels, B, 2]: derivatives of the levels' losses by the constants
  void* grad_constants;         // [B, 2]; null where not wanted, and then `level_constants` is, too
  PixelRequest pixels;          // its means are read
};

// The levels' gradients, each times its factor, summed up in the finest one: a pixel of level l stands for
// 4^l of the finest, a voxel for 8^l, and its gradient is shared out among them.
struct GatherRequest {
  View finest;               // read and written
  std::vector<View> coarse;  // levels 1, 2, ...; in the compute type
  const void* factors;       // [levels, B], of the compute type
  // The slopes of the pixel term are added, those by `image`.
  View image, other;
  PixelRequest pixels;
};

// ---------------------------------------------------------------------------------------------------------------------
// What the operators of SSIM share

// Which of them are wanted, in the order in which they are returned.
struct Wanted {
  bool contrast, map, grad_preds, grad_target, grad_constants;

  bool gradients() const { return grad_preds || grad_target || grad_constants; }
};

inline Request new_request(const Tensor& preds, const Tensor& target, const WindowArguments& window,
                           double data_range, double k1, double k2, const std::optional<Tensor>& constants) {
  check_images(preds, target);
  Request request;
  request.is_volume = preds.dim() == 5;
  request.preds = input_view(preds);
  request.target = input_view(target);
  request.windows = check_windows(request.preds, request.is_volume, window);
  request.constants = check_constants(preds, data_range, k1, k2, constants);
  return request;
}

// Of a mean over the batch, each image's share; of a batch without images, none.
inline double share_of_image(Reduction reduction, int64_t batch) {
  return reduction == Reduction::mean ? 1 / static_cast<double>(std::max<int64_t>(batch, 1)) : 1;
}

inline void add_gradients(Request& request, const Tensor& preds, const Tensor& target, const Wanted& wanted,
                          std::vector<Tensor>& results) {
  const auto check = [](const char* name, const Tensor& image, bool is_wanted) {
    STD_TORCH_CHECK(!is_wanted || !is_integer(image.scalar_type()), name, " has dtype ",
                    torch::headeronly::toString(image.scalar_type()),
                    ", which has no gradient, expected want_grad_", name, " to be false");
  };
  check("preds", preds, wanted.grad_preds);
  check("target", target, wanted.grad_target);
  if (wanted.grad_preds) {
    results.push_back(new_like(preds));
    request.grad_preds = output_view(results.back());
  }
  if (wanted.grad_target) {
    results.push_back(new_like(target));
    request.grad_target = output_view(results.back());
  }
  if (wanted.grad_constants) {
    results.push_back(new_per_constant(preds));
    request.grad_constants = results.back().mutable_data_ptr();
  }
  if (!request.grad_preds && request.grad_target) request.exchange_images();
}

inline void add_terms(PixelRequest& pixels, const Tensor& preds, std::vector<Tensor>& results) {
  STD_TORCH_CHECK(pixels, "want_terms is true and pixel_term 'none', expected 'l1', 'l2' or 'charbonnier'");
  results.push_back(new_per_constant(preds));
  pixels.terms = results.back().mutable_data_ptr();
}

template <class Device>
void run(const Request& request, const Tensor& like) {
  if (request.preds.batch() > 0) Device::similarity(request, like);
}

inline LevelWeights check_levels(const std::vector<double>& betas, const std::string& normalize) {
  STD_TORCH_CHECK(!betas.empty() && betas.size() <= kMaxLevels, "betas has ", betas.size(),
                  " elements, expected 1 to ", kMaxLevels, ", one for each level");
  STD_TORCH_CHECK(normalize == "none" || normalize == "relu" || normalize == "simple", "normalize is '",
                  normalize, "', expected 'none', 'relu' or 'simple'");
  LevelWeights weights{static_cast<int>(betas.size()),
                       normalize == "relu"     ? Normalization::relu
                       : normalize == "simple" ? Normalization::simple
                                               : Normalization::none,
                       {}};
  std::copy(betas.begin(), betas.end(), weights.betas);
  return weights;
}

// ---------------------------------------------------------------------------------------------------------------------
// Operators: see the schemas (schema.cpp)

template <class Device>
std::vector<Tensor> similarity(const Tensor& preds, const Tensor& target, const std::vector<double>& sigma,
                               const std::vector<int64_t>& kernel_size,
                               const std::optional<std::vector<double>>& taps, const std::string& padding,
                               double data_range, double k1, double k2,
                               const std::optional<Tensor>& constants, const std::string& pixel_term,
                               double ssim_weight, double pixel_eps, bool want_terms, int64_t reduction,
                               bool as_distance, bool want_contrast, bool want_map, bool want_grad_preds,
                               bool want_grad_target, bool want_grad_constants) {
  Request request =
      new_request(preds, target, {sigma, kernel_size, taps, padding}, data_range, k1, k2, constants);
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
  request.of_similarity.scale = scale * request.pixels.ssim_weight / request.outputs();
  request.pixels.slope_scale = scale * request.pixels.mean_weight / request.pixels_of_image();

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
std::vector<Tensor> similarity_backward(const Tensor& preds, const Tensor& target,
                                        const std::vector<double>& sigma,
                                        const std::vector<int64_t>& kernel_size,
                                        const std::optional<std::vector<double>>& taps,
                                        const std::string& padding, double data_range, double k1, double k2,
                                        const std::optional<Tensor>& constants, int64_t reduction,
                                        bool as_distance, const std::optional<Tensor>& grad_similarity,
                                        const std::optional<Tensor>& grad_contrast,
                                        const std::optional<Tensor>& grad_map, bool want_grad_preds,
                                        bool want_grad_target, bool want_grad_constants) {
  Request request =
      new_request(preds, target, {sigma, kernel_size, taps, padding}, data_range, k1, k2, constants);
  const typename Device::Guard guard(preds);
  // The request's gradients are those of distances.
  const double sign = as_distance ? 1 : -1;
  const double share = share_of_image(parse_reduction(reduction), preds.size(0));
  request.of_similarity =
      check_upstream("grad_similarity", grad_similarity, preds, sign * share / request.outputs());
  request.of_contrast =
      check_upstream("grad_contrast", grad_contrast, preds, sign / request.cropped_outputs());
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

// Half of the sides, rounded down.
inline View halved(const View& image, bool is_volume, void* data) {
  auto shape = image.shape;
  for (size_t d = is_volume ? 2 : 3; d < 5; ++d) shape[d] /= 2;
  return View::of(data, compute_type(image.type), shape);
}

template <class Device>
std::vector<Tensor> multiscale(const Tensor& preds, const Tensor& target, const std::vector<double>& sigma,
                               const std::vector<int64_t>& kernel_size,
                               const std::optional<std::vector<double>>& taps, const std::string& padding,
                               double data_range, double k1, double k2,
                               const std::optional<Tensor>& constants, const std::string& pixel_term,
                               double ssim_weight, double pixel_eps, bool want_terms,
                               const std::vector<double>& betas, const std::string& normalize,
                               int64_t reduction, bool as_distance, bool want_grad_preds,
                               bool want_grad_target, bool want_grad_constants) {
  const WindowArguments window{sigma, kernel_size, taps, padding};
  Request finest = new_request(preds, target, window, data_range, k1, k2, constants);
  const typename Device::Guard guard(preds);
  const LevelWeights weights = check_levels(betas, normalize);
  PixelRequest pixels = check_pixel_term(pixel_term, ssim_weight, pixel_eps);
  const int levels = weights.levels;
  const Wanted wanted{false, false, want_grad_preds, want_grad_target, want_grad_constants};
  const ScalarType type = compute_type(preds.scalar_type());
  const int64_t batch = preds.size(0), size = bytes_of(type);

  // The images of all levels but the finest lie in one allocation, which is returned before the finest
  // level's gradient is allocated; their gradients lie in another.
  std::vector<Request> requests{finest};
  int64_t elements = 0;
  for (int level = 1; level < levels; ++level) {
    const View half = halved(requests.back().preds, finest.is_volume, nullptr);
    STD_TORCH_CHECK(half.height() > 0 && half.width() > 0 && half.depth() > 0, "preds has shape ",
                    to_text(preds.sizes()), ", too small for ", levels, " levels, each half the one before");
    Request request = finest;
    request.preds = request.target = half;
    request.windows = check_windows(half, finest.is_volume, window);
    requests.push_back(request);
    elements += half.elements();
  }
  const int images = int{want_grad_preds} + int{want_grad_target};
  std::optional<Tensor> halves;
  if (levels > 1) halves = new_tensor(preds, {2 * elements}, type);
  const Tensor coarse = new_tensor(preds, {levels > 1 ? images * elements : 0}, type);
  // And the levels' factors, and the pixel term's means.
  const Tensor losses = new_tensor(preds, {2 * levels + 1, batch}, type);
  char* const loss = static_cast<char*>(losses.mutable_data_ptr());
  std::optional<Tensor> level_constants;
  if (want_grad_constants) level_constants = new_tensor(preds, {levels, batch, 2}, type);

  GatherRequest gathers[2];
  char* next = halves ? static_cast<char*>(halves->mutable_data_ptr()) : nullptr;
  char* next_gradient = static_cast<char*>(coarse.mutable_data_ptr());
  for (int level = 0; level < levels; ++level) {
    Request& request = requests[static_cast<size_t>(level)];
    const bool is_last = level + 1 == levels;
    request.as_distance = true;
    request.objective = is_last ? Objective::mean_similarity : Objective::mean_contrast;
    char* const mean = loss + level * batch * size;
    (is_last ? request.similarity : request.contrast) = mean;
    (is_last ? request.of_similarity.scale : request.of_contrast.scale) =
        1 / (is_last ? request.outputs() : request.cropped_outputs());
    if (level_constants)
      request.grad_constants =
          static_cast<char*>(level_constants->mutable_data_ptr()) + level * batch * 2 * size;
    if (level == 0) continue;
    const int64_t bytes = request.preds.elements() * size;
    request.preds.data = next;
    request.target.data = next + bytes;
    next += 2 * bytes;
    for (int image = 0; image < 2; ++image) {
      if (!(image == 0 ? want_grad_preds : want_grad_target)) continue;
      View& gradient = image == 0 ? request.grad_preds : request.grad_target;
      gradient = request.preds;
      gradient.data = next_gradient;
      next_gradient += bytes;
      gathers[image].coarse.push_back(gradient);
    }
    if (batch > 0) {
      const Request& above = requests[static_cast<size_t>(level - 1)];
      Device::downsample({above.preds, above.target}, {request.preds, request.target}, preds);
    }
  }
  for (int level = levels - 1; level > 0; --level) {
    Request& request = requests[static_cast<size_t>(level)];
    if (!request.grad_preds && request.grad_target) request.exchange_images();
    run<Device>(request, preds);
  }
  halves.reset();

  Request& top = requests[0];
  if (pixels) pixels.means = loss + 2 * levels * batch * size;
  top.pixels.term = pixels.term;
  top.pixels.eps = pixels.eps;
  top.pixels.means = pixels.means;
  std::vector<Tensor> results{new_per_image(preds, parse_reduction(reduction))};
  if (want_terms) add_terms(pixels, preds, results);
  const double scale = stored_scale(preds.scalar_type(), preds.numel() / std::max<int64_t>(batch, 1),
                                    finest.constants.c1, finest.constants.c2);
  (levels == 1 ? top.of_similarity : top.of_contrast).scale *= scale;
  void* const of_constants = top.grad_constants;
  add_gradients(top, preds, target, wanted, results);
  void* const grad_constants = top.grad_constants;
  top.grad_constants = of_constants;
  run<Device>(top, preds);
  if (batch == 0) {
    if (parse_reduction(reduction) != Reduction::none)
      torch::stable::fill_(results[0], parse_reduction(reduction) == Reduction::sum ? 0.0 : std::nan(""));
    return results;
  }

  char* const factors = loss + levels * batch * size;
  const double share = share_of_image(parse_reduction(reduction), batch) * scale;
  Device::product(
      {type, batch, weights, loss, parse_reduction(reduction), as_distance || pixels,
       share * pixels.ssim_weight, scale, results[0].mutable_data_ptr(),
       wanted.gradients() ? factors : nullptr, level_constants ? level_constants->const_data_ptr() : nullptr,
       want_grad_constants ? grad_constants : nullptr, pixels},
      preds);
  pixels.slope_scale = share * pixels.mean_weight / finest.pixels_of_image();
  for (int image = 0, result = 1 + int{want_terms}; image < 2; ++image) {
    if (!(image == 0 ? want_grad_preds : want_grad_target)) continue;
    gathers[image].finest = output_view(results[static_cast<size_t>(result++)]);
    gathers[image].factors = factors;
    gathers[image].image = image == 0 ? finest.preds : finest.target;
    gathers[image].other = image == 0 ? finest.target : finest.preds;
    gathers[image].pixels = pixels;
    Device::gather(gathers[image], preds);
  }
  return results;
}

// A stored gradient, which is an image's or a volume's.
inline void check_gradient(const Tensor& gradient) {
  STD_TORCH_CHECK(gradient.dim() == 4 || gradient.dim() == 5, "gradient has shape ",
                  to_text(gradient.sizes()), ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(is_served(gradient.scalar_type()), "gradient has dtype ",
                  torch::headeronly::toString(gradient.scalar_type()),
                  ", expected float32, float64, float16 or bfloat16");
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
