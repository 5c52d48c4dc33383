// The operator of MS-SSIM, as operators.h has the others, and what it asks of a device beside a pass of SSIM.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "allocate.h"
#include "math/pyramid.h"
#include "request.h"
#include "results.h"

namespace ssim_fused {

// MS-SSIM of each image from what the levels' passes left, of each its objective's mean; and the weights of
// the levels' gradients in that of the distance. All in the compute type.
struct ProductRequest {
  ScalarType type;
  int64_t batch;
  LevelWeights weights;
  Reduction reduction;
  bool as_distance;
  double gradient_scale;  // of the result's gradient; the finest level's is stored times `finest_scale`
  double finest_scale;
  void* value;           // [B], or one number
  void* factors;         // [levels, B]; null where no gradient is wanted
  void* grad_constants;  // [B, 2]; null where not wanted
  PixelRequest pixels;   // whose mean the finest level's pass left
};

// From a level of the pyramid to the next: means of 2x2 pixels or 2x2x2 voxels, of both images and the mask;
// where that weighs windows, it weighs the images' pixels in these means.
struct HalvingRequest {
  View from[2], to[2];
  Mask mask;       // of `from`
  View half_mask;  // in the compute type
};

// The levels' gradients, each times its factor, summed up in the finest one: a pixel of level l stands for
// 4^l of the finest, a voxel for 8^l, and its gradient is shared out among them.
struct GatherRequest {
  View finest;               // read and written
  std::vector<View> coarse;  // levels 1, 2, ...; in the compute type
  const void* factors;       // [levels, B], of the compute type
  Mask mask;                 // of the finest; where it weighs windows, `coarse_masks` are those of `coarse`
  std::vector<View> coarse_masks;
  // The slopes of the pixel term are added, those by `image`.
  View image, other;
  PixelRequest pixels;
};

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

// Half of the sides, rounded down.
inline View halved(const View& image, bool is_volume, void* data) {
  auto shape = image.shape;
  for (size_t d = is_volume ? 2 : 3; d < 5; ++d) shape[d] /= 2;
  return View::of(data, compute_type(image.type), shape);
}

inline View halved_mask(const View& mask, bool is_volume, ScalarType type) {
  View half = halved(mask, is_volume, nullptr);
  half.type = type;
  if (half.channels() == 1) half.stride[1] = 0;
  return half;
}

template <class Device>
std::vector<Tensor> multiscale(const Tensor& preds, const Tensor& target, const std::vector<double>& sigma,
                               const std::vector<int64_t>& kernel_size,
                               const std::optional<std::vector<double>>& taps, const std::string& padding,
                               double data_range, double k1, double k2,
                               const std::optional<Tensor>& constants, const std::optional<Tensor>& mask,
                               const std::string& mask_mode, const std::string& pixel_term,
                               double ssim_weight, double pixel_eps, bool want_terms,
                               const std::vector<double>& betas, const std::string& normalize,
                               int64_t reduction, bool as_distance, bool want_grad_preds,
                               bool want_grad_target, bool want_grad_constants) {
  const WindowArguments window{sigma, kernel_size, taps, padding};
  Request finest = new_request(preds, target, window, data_range, k1, k2, constants, mask, mask_mode);
  const typename Device::Guard guard(preds);
  const LevelWeights exponents = check_levels(betas, normalize);
  PixelRequest pixels = check_pixel_term(pixel_term, ssim_weight, pixel_eps);
  const int levels = exponents.levels;
  const Wanted wanted{false, false, want_grad_preds, want_grad_target, want_grad_constants};
  const ScalarType type = compute_type(preds.scalar_type());
  const int64_t batch = preds.size(0), size = bytes_of(type);

  // The images of all levels but the finest lie in one allocation, which is returned before the finest
  // level's gradient is allocated; their gradients lie in another.
  std::vector<Request> requests{finest};
  int64_t elements = 0, weights = 0;
  for (int level = 1; level < levels; ++level) {
    const View half = halved(requests.back().preds, finest.is_volume, nullptr);
    STD_TORCH_CHECK(half.height() > 0 && half.width() > 0 && half.depth() > 0, "preds has shape ",
                    to_text(preds.sizes()), ", too small for ", levels, " levels, each half the one before");
    Request request = finest;
    request.preds = request.target = half;
    request.windows = check_windows(half, finest.is_volume, window);
    if (finest.mask) {
      request.mask.view = halved_mask(requests.back().mask.view, finest.is_volume, type);
      weights += request.mask.view.elements();
    }
    requests.push_back(request);
    elements += half.elements();
  }
  const int images = int{want_grad_preds} + int{want_grad_target};
  std::optional<Tensor> halves;
  if (levels > 1) halves = new_tensor(preds, {2 * elements}, type);
  const Tensor coarse = new_tensor(preds, {levels > 1 ? images * elements : 0}, type);
  std::optional<Tensor> factors;
  if (wanted.gradients()) factors = new_tensor(preds, {levels, batch}, type);
  void* const factor = factors ? factors->mutable_data_ptr() : nullptr;

  std::vector<HalvingRequest> halvings;
  GatherRequest gathers[2];
  char* next = halves ? static_cast<char*>(halves->mutable_data_ptr()) : nullptr;
  char* next_gradient = static_cast<char*>(coarse.mutable_data_ptr());
  std::optional<Tensor> masks;  // of the levels but the finest
  if (weights > 0) masks = new_tensor(preds, {weights}, type);
  char* next_mask = masks ? static_cast<char*>(masks->mutable_data_ptr()) : nullptr;
  for (int level = 0; level < levels; ++level) {
    Request& request = requests[static_cast<size_t>(level)];
    const bool is_last = level + 1 == levels;
    if (level > 0 && finest.mask) {
      request.mask.view.data = next_mask;
      next_mask += request.mask.view.elements() * size;
    }
    request.objective = is_last ? Objective::mean_similarity : Objective::mean_contrast;
    (is_last ? request.of_similarity.scale : request.of_contrast.scale) =
        1 / (is_last ? request.divisor() : request.cropped_divisor());
    request.keeps_constants = want_grad_constants;
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
      if (finest.mask && finest.mask.weighs_windows())
        gathers[image].coarse_masks.push_back(request.mask.view);
    }
    const Request& above = requests[static_cast<size_t>(level - 1)];
    halvings.push_back(
        {{above.preds, above.target}, {request.preds, request.target}, above.mask, request.mask.view});
  }
  if (batch > 0 && levels > 1) Device::downsample(halvings, preds);
  typename Device::LevelResults level_results(levels);
  const auto run_level = [&](int level) {
    if (batch > 0) Device::level(requests[static_cast<size_t>(level)], level, level_results, preds);
  };
  for (int level = levels - 1; level > 0; --level) {
    Request& request = requests[static_cast<size_t>(level)];
    if (!request.grad_preds && request.grad_target) request.exchange_images();
    run_level(level);
  }
  halves.reset();

  Request& top = requests[0];
  top.pixels.term = pixels.term;
  top.pixels.eps = pixels.eps;
  std::vector<Tensor> results{new_per_image(preds, parse_reduction(reduction))};
  if (want_terms) add_terms(pixels, preds, results);
  const double scale = stored_scale(preds.scalar_type(), preds.numel() / std::max<int64_t>(batch, 1),
                                    finest.constants.c1, finest.constants.c2);
  (levels == 1 ? top.of_similarity : top.of_contrast).scale *= scale;
  add_gradients(top, preds, target, wanted, results);
  void* const grad_constants = std::exchange(top.grad_constants, nullptr);  // which is the product's
  run_level(0);
  if (batch == 0) {
    if (parse_reduction(reduction) != Reduction::none)
      torch::stable::fill_(results[0], parse_reduction(reduction) == Reduction::sum ? 0.0 : std::nan(""));
    return results;
  }

  const double share = share_of_image(parse_reduction(reduction), batch) * scale;
  Device::product(
      {type, batch, exponents, parse_reduction(reduction), as_distance || pixels, share * pixels.ssim_weight,
       scale, results[0].mutable_data_ptr(), factor, grad_constants, pixels},
      level_results, preds);
  pixels.slope_scale = share * pixels.mean_weight / finest.pixel_divisor();
  for (int image = 0, result = 1 + int{want_terms}; image < 2; ++image) {
    if (!(image == 0 ? want_grad_preds : want_grad_target)) continue;
    gathers[image].finest = output_view(results[static_cast<size_t>(result++)]);
    gathers[image].factors = factor;
    gathers[image].image = image == 0 ? finest.preds : finest.target;
    gathers[image].other = image == 0 ? finest.target : finest.preds;
    gathers[image].pixels = pixels;
    gathers[image].mask = finest.mask;
    Device::gather(gathers[image], preds);
  }
  return results;
}

// A stored gradient, which is an image's or a volume's.
inline void check_gradient(const Tensor& gradient) {
  STD_TORCH_CHECK(gradient.dim() == 4 || gradient.dim() == 5, "gradient has shape ",
                  to_text(gradient.sizes()), ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(is_served(gradient.scalar_type()), "gradient has dtype ",
                  torch::headeronly::toString(gradient.scalar_type()), ", expected one of ", float_names());
}

}  // namespace ssim_fused
