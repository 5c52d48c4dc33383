// The operator of MS-SSIM, a template over the device as those of operators.h.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "checks.h"
#include "pyramid_request.h"
#include "results.h"

namespace ssim_fused {

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

// The passes over the levels, the finest first, as far as they do not depend on memory: sides, windows and
// weights.
inline std::vector<Request> level_requests(const Request& finest, const Spec& spec) {
  const ScalarType type = compute_type(finest.preds.type);
  const int levels = spec.levels.levels;
  std::vector<Request> requests{finest};
  for (int level = 1; level < levels; ++level) {
    const View half = halved(requests.back().preds, finest.is_volume, nullptr);
    STD_TORCH_CHECK(half.height() > 0 && half.width() > 0 && half.depth() > 0, "preds has sides of ",
                    finest.preds.height(), " and ", finest.preds.width(), ", too small for ", levels,
                    " levels, each half the one before");
    Request request = finest;
    request.preds = request.target = half;
    request.windows = check_windows(half, finest.is_volume, spec.window);
    if (finest.mask) request.mask.view = halved_mask(requests.back().mask.view, finest.is_volume, type);
    requests.push_back(request);
  }
  return requests;
}

// Sets the objective of each level: the mean contrast sensitivity, or the last level's mean SSIM. A mask,
// whose memory is known by now, changes the weights.
inline void set_objectives(std::vector<Request>& requests) {
  for (Request& request : requests) {
    const bool is_last = &request == &requests.back();
    request.objective = is_last ? Objective::mean_similarity : Objective::mean_contrast;
    (is_last ? request.of_similarity.scale : request.of_contrast.scale) =
        1 / (is_last ? request.divisor() : request.cropped_divisor());
  }
}

// Memory for the levels below the finest: one allocation, handed out in consecutive pieces.
class LevelMemory {
 public:
  // For `images` images and `masks` masks of every level.
  LevelMemory(const Tensor& like, const std::vector<Request>& requests, int64_t images, int64_t masks) {
    const ScalarType type = compute_type(like.scalar_type());
    int64_t elements = 0;
    for (size_t level = 1; level < requests.size(); ++level)
      elements += images * requests[level].preds.elements() + masks * requests[level].mask.view.elements();
    if (elements == 0) return;
    memory_ = new_tensor(like, {elements}, type);
    next_ = static_cast<char*>(memory_->mutable_data_ptr());
    bytes_ = bytes_of(type);
  }

  // The next piece, of the view's size; null if there is no memory.
  void* piece(const View& view) {
    return next_ ? std::exchange(next_, next_ + view.elements() * bytes_) : nullptr;
  }
  void release() { memory_.reset(); }

 private:
  std::optional<Tensor> memory_;
  char* next_ = nullptr;
  int64_t bytes_ = 0;
};

template <class Device>
std::vector<Tensor> multiscale(const Images& images, const Spec& spec, const WantedGradients& wanted) {
  const Tensor& preds = images.preds;
  const Request finest = new_request(images, spec);
  const typename Device::Guard guard(preds);
  const int levels = spec.levels.levels;
  const int64_t batch = preds.size(0);
  const ScalarType type = compute_type(preds.scalar_type());
  std::vector<Request> requests = level_requests(finest, spec);

  // Images and gradients lie in separate allocations, since the images' is returned before the finest level's
  // gradient is allocated.
  LevelMemory halves(preds, requests, 2, 0);
  LevelMemory gradients(preds, requests, int{wanted.preds} + int{wanted.target}, 0);
  LevelMemory masks(preds, requests, 0, 1);
  std::optional<Tensor> factors;
  if (wanted) factors = new_tensor(preds, {levels, batch}, type);
  void* const factor = factors ? factors->mutable_data_ptr() : nullptr;

  std::vector<HalvingRequest> halvings;
  GatherRequest gathers[2];
  for (Request& request : requests) {
    request.keeps_constants = wanted.constants;
    if (&request == &requests.front()) continue;
    const Request& above = *(&request - 1);
    if (finest.mask) request.mask.view.data = masks.piece(request.mask.view);
    request.preds.data = halves.piece(request.preds);
    request.target.data = halves.piece(request.target);
    for (int image = 0; image < 2; ++image) {
      if (!(image == 0 ? wanted.preds : wanted.target)) continue;
      View& gradient = image == 0 ? request.grad_preds : request.grad_target;
      gradient = request.preds;
      gradient.data = gradients.piece(gradient);
      gathers[image].coarse.push_back(gradient);
      if (finest.mask && finest.mask.weighs_windows())
        gathers[image].coarse_masks.push_back(request.mask.view);
    }
    halvings.push_back(
        {{above.preds, above.target}, {request.preds, request.target}, above.mask, request.mask.view});
  }
  set_objectives(requests);
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
  halves.release();

  Request& top = requests[0];
  PixelRequest pixels = spec.pixels;
  top.pixels.term = pixels.term;
  top.pixels.eps = pixels.eps;
  std::vector<Tensor> results{new_per_image(preds, spec.reduction, compute_type(preds.scalar_type()))};
  if (spec.want_terms) add_terms(pixels, preds, results);
  const double scale = stored_scale(preds.scalar_type(), preds.numel() / std::max<int64_t>(batch, 1),
                                    finest.constants.c1, finest.constants.c2);
  (levels == 1 ? top.of_similarity : top.of_contrast).scale *= scale;
  add_gradients(top, preds, images.target, wanted, results);
  void* const grad_constants = std::exchange(top.grad_constants, nullptr);  // the product writes them
  run_level(0);
  if (batch == 0) {
    fill_empty(results[0], spec.reduction);
    return results;
  }

  const double share = share_of_image(spec.reduction, batch) * scale;
  Device::product({type, batch, spec.levels, spec.reduction, spec.as_distance, share * pixels.ssim_weight,
                   scale, results[0].mutable_data_ptr(), factor, grad_constants, pixels},
                  level_results, preds);
  pixels.slope_scale = share * pixels.mean_weight / finest.pixel_divisor();
  for (int image = 0, result = 1 + int{spec.want_terms}; image < 2; ++image) {
    if (!(image == 0 ? wanted.preds : wanted.target)) continue;
    GatherRequest& gather = gathers[image];
    gather.finest = output_view(results[static_cast<size_t>(result++)]);
    gather.factors = factor;
    gather.image = image == 0 ? finest.preds : finest.target;
    gather.other = image == 0 ? finest.target : finest.preds;
    gather.pixels = pixels;
    gather.mask = finest.mask;
    Device::gather(gather, preds);
  }
  return results;
}

}  // namespace ssim_fused
