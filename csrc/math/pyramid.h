// MS-SSIM of one image from its levels' means, with the derivative by each mean. Host and device.
//
//     value = prod_l m_l^beta_l        m_l: the mean contrast sensitivity of level l, of the last level the
//     SSIM
//
// with m_l clamped to zero first ("relu"), or taken to (m_l + 1) / 2 ("simple"). Derivatives by a clamped
// mean are zero; without normalization a negative mean gives NaN, as a power does.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace ssim_fused {

enum class Normalization { none, relu, simple };

constexpr int kMaxLevels = 32;  // an image of 2^31 pixels a side has no more

struct LevelWeights {
  int levels;
  Normalization normalization;
  double betas[kMaxLevels];
};

// Keeps the derivative by a tiny mean, where its power is steep, finite in float32 and in what it multiplies.
constexpr double kLargestFactor = 1e30;

template <class Mean, class Factor>
SSIM_HOST_DEVICE double weighted_product(const LevelWeights& weights, const Mean& mean,
                                         const Factor& factor) {
  const auto normalized = [&](int level) {
    const double m = static_cast<double>(mean(level));
    if (weights.normalization == Normalization::relu) return m < 0 ? 0.0 : m;  // a NaN stays one
    return weights.normalization == Normalization::simple ? (m + 1) / 2 : m;
  };
  double value = 1;
  for (int l = 0; l < weights.levels; ++l) value *= pow(normalized(l), weights.betas[l]);
  for (int l = 0; l < weights.levels; ++l) {
    const double m = normalized(l);
    double by_mean = 0;
    if (!(weights.normalization == Normalization::relu && m == 0)) {
      by_mean = weights.betas[l] * pow(m, weights.betas[l] - 1);
      for (int k = 0; k < weights.levels; ++k) {  // not value / m: m may be zero
        if (k != l) by_mean *= pow(normalized(k), weights.betas[k]);
      }
      if (weights.normalization == Normalization::simple) by_mean /= 2;
      if (by_mean > kLargestFactor) by_mean = kLargestFactor;
      if (by_mean < -kLargestFactor) by_mean = -kLargestFactor;
    }
    factor(l, by_mean);
  }
  return value;
}

}  // namespace ssim_fused
