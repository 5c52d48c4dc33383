// Helpers shared by the operators of SSIM and MS-SSIM, which make a request from the arguments and allocate
// its results.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "checks.h"
#include "request.h"
#include "tensors.h"

namespace ssim_fused {

inline Request new_request(const Images& images, const Spec& spec) {
  const auto& [preds, target, constants, mask] = images;
  check_images(preds, target);
  Request request;
  request.is_volume = preds.dim() == 5;
  request.preds = input_view(preds);
  request.target = input_view(target);
  request.windows = check_windows(request.preds, request.is_volume, spec.window);
  request.constants =
      check_constants(preds, spec.window.data_range, spec.window.k1, spec.window.k2, constants);
  request.mask = check_mask(preds, mask, spec.mask_mode);
  return request;
}

// Returns the weight of an image in the reduction over the batch.
inline double share_of_image(Reduction reduction, int64_t batch) {
  return reduction == Reduction::mean ? 1 / static_cast<double>(std::max<int64_t>(batch, 1)) : 1;
}

inline void add_gradients(Request& request, const Tensor& preds, const Tensor& target,
                          const WantedGradients& wanted, std::vector<Tensor>& results) {
  const auto check = [](const char* name, const Tensor& image, bool is_wanted) {
    STD_TORCH_CHECK(!is_wanted || !is_integer(image.scalar_type()), name, " has dtype ",
                    torch::headeronly::toString(image.scalar_type()),
                    ", which has no gradient, expected want_grad_", name, " to be false");
  };
  check("preds", preds, wanted.preds);
  check("target", target, wanted.target);
  if (wanted.preds) {
    results.push_back(new_like(preds));
    request.grad_preds = output_view(results.back());
  }
  if (wanted.target) {
    results.push_back(new_like(target));
    request.grad_target = output_view(results.back());
  }
  if (wanted.constants) {
    results.push_back(new_per_constant(preds));
    request.grad_constants = results.back().mutable_data_ptr();
  }
  if (!request.grad_preds && request.grad_target) request.exchange_images();
}

inline void add_terms(PixelRequest& pixels, const Tensor& preds, std::vector<Tensor>& results) {
  results.push_back(new_per_constant(preds));
  pixels.terms = results.back().mutable_data_ptr();
}

// Fills the value of a batch without images: a mean is NaN, a sum zero.
inline void fill_empty(const Tensor& value, Reduction reduction) {
  if (reduction != Reduction::none)
    torch::stable::fill_(const_cast<Tensor&>(value), reduction == Reduction::sum ? 0.0 : std::nan(""));
}

template <class Device>
void run(const Request& request, const Tensor& like) {
  if (request.preds.batch() > 0) Device::similarity(request, like);
}

}  // namespace ssim_fused
