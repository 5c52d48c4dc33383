// What the operators of SSIM and MS-SSIM share: which results are wanted, and places for them.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "allocate.h"
#include "request.h"

namespace ssim_fused {

// Which of them are wanted, in the order in which they are returned.
struct Wanted {
  bool contrast, map, grad_preds, grad_target, grad_constants;

  bool gradients() const { return grad_preds || grad_target || grad_constants; }
};

inline Request new_request(const Tensor& preds, const Tensor& target, const WindowArguments& window,
                           double data_range, double k1, double k2, const std::optional<Tensor>& constants,
                           const std::optional<Tensor>& mask, const std::string& mask_mode) {
  check_images(preds, target);
  Request request;
  request.is_volume = preds.dim() == 5;
  request.preds = input_view(preds);
  request.target = input_view(target);
  request.windows = check_windows(request.preds, request.is_volume, window);
  request.constants = check_constants(preds, data_range, k1, k2, constants);
  request.mask = check_mask(preds, mask, mask_mode);
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
  STD_TORCH_CHECK(pixels, "want_terms is true and pixel_term 'none', expected ", pixel_term_names(false));
  results.push_back(new_per_constant(preds));
  pixels.terms = results.back().mutable_data_ptr();
}

template <class Device>
void run(const Request& request, const Tensor& like) {
  if (request.preds.batch() > 0) Device::similarity(request, like);
}

}  // namespace ssim_fused
