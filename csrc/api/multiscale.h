// The operator of MS-SSIM, a template over the device like those of operators.h.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "checks.h"
#include "pyramid_request.h"
#include "results.h"

namespace ssim_fused {

// Returns a view of half the sides, rounded down, in the compute type.
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

// Returns the requests of the passes over the levels, the finest first, without memory: sides, windows and
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

// Sets the objective of each level: the mean contrast sensitivity, and for the last level the mean SSIM. The
// divisors depend on whether there is a mask, so its memory must be set before.
inline void set_objectives(std::vector<Request>& requests) {
  for (Request& request : requests) {
    const bool is_last = &request == &requests.back();
    request.objective = is_last ? Objective::mean_similarity : Objective::mean_contrast;
    (is_last ? request.of_similarity.scale : request.of_contrast.scale) =
        1 / (is_last ? request.divisor() : request.cropped_divisor());
  }
}

// Memory for the levels below the finest: one allocation, divided into consecutive pieces.
class LevelMemory {
 public:
  // Allocates memory for `images` images and `masks` masks of every level below the finest.
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

  // Returns the next piece, of the size of the view, or null if nothing was allocated.
  void* piece(const View& view) {
    return next_ ? std::exchange(next_, next_ + view.elements() * bytes_) : nullptr;
  }
  void release() { memory_.reset(); }

 private:
  std::optional<Tensor> memory_;
  char* next_ = nullptr;
  int64_t bytes_ = 0;
};

// The memory of the levels below the finest, and the requests that use it in addition to the passes.
struct CoarseLevels {
  // Images and gradients have separate allocations, because the images are released before the gradient of
  // the finest level is allocated.
  LevelMemory images, gradients, masks;
  std::vector<HalvingRequest> halvings;  // one for each level below the finest
  GatherRequest gathers[2];              // the gradients of preds and of target

  // Sets the memory of `requests`, and with it the requests of this struct.
  CoarseLevels(const Tensor& like, std::vector<Request>& requests, const WantedGradients& wanted)
      : images(like, requests, 2, 0),
        gradients(like, requests, int{wanted.preds} + int{wanted.target}, 0),
        masks(like, requests, 0, 1) {
    const bool is_masked = static_cast<bool>(requests.front().mask);
    for (size_t level = 1; level < requests.size(); ++level) {
      Request& request = requests[level];
      const Request& finer = requests[level - 1];
      if (is_masked) request.mask.view.data = masks.piece(request.mask.view);
      request.preds.data = images.piece(request.preds);
      request.target.data = images.piece(request.target);
      if (wanted.preds) request.grad_preds = add_gradient(gathers[0], request);
      if (wanted.target) request.grad_target = add_gradient(gathers[1], request);
      halvings.push_back(
          {{finer.preds, finer.target}, {request.preds, request.target}, finer.mask, request.mask.view});
    }
  }

 private:
  View add_gradient(GatherRequest& gather, const Request& request) {
    View gradient = request.preds;
    gradient.data = gradients.piece(gradient);
    gather.coarse.push_back(gradient);
    // A mask converts to true if its memory is set. The constructor sets it before it calls this function.
    if (request.mask && request.mask.weighs_windows()) gather.coarse_masks.push_back(request.mask.view);
    return gradient;
  }
};

// Returns what `similarity` returns, except for contrast sensitivity and map. The passes run from the
// coarsest level to the finest. They leave their sums on the device, which computes the product over the
// levels from them.
template <class Device>
std::vector<Tensor> multiscale(const Images& images, const Spec& spec, const WantedGradients& wanted) {
  const Tensor& preds = images.preds;
  const Request finest = new_request(images, spec);
  const typename Device::Guard guard(preds);
  const int levels = spec.levels.levels;
  const int64_t batch = preds.size(0);
  const ScalarType type = compute_type(preds.scalar_type());

  std::vector<Request> requests = level_requests(finest, spec);
  for (Request& request : requests) request.keeps_constants = wanted.constants;
  CoarseLevels coarse(preds, requests, wanted);
  std::optional<Tensor> factors;
  if (wanted) factors = new_tensor(preds, {levels, batch}, type);
  void* const factor = factors ? factors->mutable_data_ptr() : nullptr;
  set_objectives(requests);

  if (batch > 0 && levels > 1) Device::downsample(coarse.halvings, preds);
  typename Device::LevelResults level_results(levels);
  const auto run_level = [&](int level) {
    if (batch > 0) Device::level(requests[static_cast<size_t>(level)], level, level_results, preds);
  };
  for (int level = levels - 1; level > 0; --level) {
    Request& request = requests[static_cast<size_t>(level)];
    if (!request.grad_preds && request.grad_target) request.exchange_images();
    run_level(level);
  }
  coarse.images.release();

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
  void* const grad_constants = std::exchange(top.grad_constants, nullptr);  // written by the product
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
  const auto gather = [&](GatherRequest& request, const Tensor& gradient, const View& image,
                          const View& other) {
    request.finest = output_view(gradient);
    request.factors = factor;
    request.image = image;
    request.other = other;
    request.pixels = pixels;
    request.mask = finest.mask;
    Device::gather(request, preds);
  };
  size_t result = 1 + size_t{spec.want_terms};
  if (wanted.preds) gather(coarse.gathers[0], results[result++], finest.preds, finest.target);
  if (wanted.target) gather(coarse.gathers[1], results[result], finest.target, finest.preds);
  return results;
}

}  // namespace ssim_fused
