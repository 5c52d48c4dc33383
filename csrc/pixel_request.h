// What a call asks of the term of single pixels (math/pixel_term.h), checked once for both devices.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <string>

#include "math/pixel_term.h"

namespace ssim_fused {

struct PixelRequest {
  PixelTerm term = PixelTerm::none;
  double eps = 0;                           // of terms that have one
  double mean_weight = 0, ssim_weight = 1;  // in the value: of the pixels' mean, and of SSIM's distance
  double slope_scale = 0;  // of the slopes in the gradients, where they are added; includes 1 / pixels
  // [B, 2], in the compute type, where wanted: mean phi, and SSIM's or MS-SSIM's distance.
  void* terms = nullptr;

  explicit operator bool() const { return term != PixelTerm::none; }
  double value(double mean, double distance) const {
    return term == PixelTerm::none ? distance : mean_weight * mean + ssim_weight * distance;
  }
};

inline PixelRequest check_pixel_term(const std::string& name, double ssim_weight, double eps) {
  PixelRequest request;
  const auto term = pixel_term_of(name);
  STD_TORCH_CHECK(term, "pixel_term is '", name, "', expected ", pixel_term_names(true));
  request.term = *term;
  if (!request) return {};
  STD_TORCH_CHECK(ssim_weight >= 0 && ssim_weight <= 1, "ssim_weight is ", ssim_weight,
                  ", expected a number from 0 to 1");
  STD_TORCH_CHECK(!has_eps(request.term) || (eps > 0 && std::isfinite(eps)), "pixel_eps is ", eps,
                  ", expected a positive finite number");
  request.eps = eps;
  request.mean_weight = 1 - ssim_weight;
  request.ssim_weight = ssim_weight;
  return request;
}

}  // namespace ssim_fused
