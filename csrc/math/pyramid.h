// MS-SSIM of one image from the losses of its levels, and the derivatives with respect to them. For host and
// device.
//
//     value = prod_l m_l^beta_l
//     m_l   = 1 - loss_l        the mean contrast sensitivity of level l; at the last level, the mean SSIM
//
// Normalization::relu first clamps m_l to at least zero, Normalization::simple replaces it by (m_l + 1) / 2.
// The derivative with respect to a clamped mean is zero. Without normalization a negative mean gives NaN, as
// a power of a negative number does.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace ssim_fused {

enum class Normalization { none, relu, simple };

constexpr int kMaxLevels = 32;  // an image of 2^31 pixels a side has no more levels

struct LevelWeights {
  int levels;
  Normalization normalization;
  double betas[kMaxLevels];
};

// Bounds the derivative with respect to a mean near zero, where its power is steep, so that the derivative
// and its products are finite in float32.
constexpr double kLargestFactor = 1e30;

// Returns `1 - value`, computed without cancellation where the losses are tiny: by expm1 of a sum of log1p.
// loss(l) returns the loss of level l. factor(l, f) receives f, the derivative of the result with respect to
// loss(l).
template <class Loss, class Factor>
SSIM_HOST_DEVICE double weighted_distance(const LevelWeights& weights, const Loss& loss,
                                          const Factor& factor) {
  const bool is_simple = weights.normalization == Normalization::simple;
  const bool is_relu = weights.normalization == Normalization::relu;
  const double share = is_simple ? 0.5 : 1;  // d(normalized loss) / d(loss)
  const auto clamped = [](double f) {
    return f > kLargestFactor ? kLargestFactor : f < -kLargestFactor ? -kLargestFactor : f;
  };
  bool all_positive = true;
  double exponent = 0;
  for (int l = 0; l < weights.levels; ++l) {
    const double normalized_loss = share * static_cast<double>(loss(l));
    all_positive = all_positive && normalized_loss < 1;
    exponent += weights.betas[l] * log1p(-normalized_loss);
  }
  if (all_positive) {
    const double value = exp(exponent);
    for (int l = 0; l < weights.levels; ++l) {
      const double mean = 1 - share * static_cast<double>(loss(l));
      factor(l, clamped(share * weights.betas[l] * value / mean));
    }
    return -expm1(exponent);
  }
  double power[kMaxLevels];
  double value = 1;
  const auto mean_of = [&](int l) {
    const double mean = 1 - share * static_cast<double>(loss(l));
    return is_relu && mean < 0 ? 0.0 : mean;  // false for NaN, which is returned
  };
  for (int l = 0; l < weights.levels; ++l) {
    power[l] = pow(mean_of(l), weights.betas[l]);
    value *= power[l];
  }
  for (int l = 0; l < weights.levels; ++l) {
    const double mean = mean_of(l);
    double derivative = 0;
    if (!(is_relu && mean == 0)) {
      derivative = share * weights.betas[l] * pow(mean, weights.betas[l] - 1);
      for (int k = 0; k < weights.levels; ++k) {  // value / mean would divide by zero
        if (k != l) derivative *= power[k];
      }
    }
    factor(l, clamped(derivative));
  }
  return 1 - value;
}

}  // namespace ssim_fused
