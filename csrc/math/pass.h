// The words in which both devices say what a march does and what its gradients are of.
#pragma once

#include "host_device.h"

namespace ssim_fused {

// An image takes one march. A volume takes three: from its slices to the moments of each; along the depth,
// from those moments to derivatives; and from these to the slices' gradients.
enum class Pass { image, moments, depth, gradient };

// Whose gradient is computed. That of a mean is the path of training: no upstream gradient of a map, no
// derivatives by the constants. `general` weighs the similarity and the contrast sensitivity of each output.
enum class Objective { mean_similarity, mean_contrast, general };

// The images whose gradients are computed. The gradient of target alone is that of preds with the images
// exchanged.
enum class GradientsOf { none, preds, both };

SSIM_HOST_DEVICE constexpr int gradient_count(GradientsOf gradients) {
  return gradients == GradientsOf::none ? 0 : gradients == GradientsOf::preds ? 1 : 2;
}

// Fields of derivatives that a march keeps for these gradients (`DerivativeField` in ssim.h).
SSIM_HOST_DEVICE constexpr int derivative_fields(GradientsOf gradients) {
  return gradients == GradientsOf::none ? 0 : 2 + gradient_count(gradients);
}

// The sums that a march keeps over its outputs, in this order. First one minus similarity and one minus
// contrast sensitivity, which have digits where they are tiny. Then the derivatives by the constants, weighed
// as the gradients are; they are summed on request: kMeans or kWithConstants sums. On the CPU, masked marches
// add the outputs' weights, and those of the outputs in the crop.
enum Sum {
  kSimilarityLoss,
  kContrastLoss,
  kByC1,
  kByC2,
  kWithConstants,
  kMeans = kByC1,
  kOutputWeights = kWithConstants,
  kCroppedWeights,
  kWithWeights
};

}  // namespace ssim_fused
