// Enums shared by both devices: what a march computes, and which gradients it computes.
#pragma once

#include "host_device.h"

namespace ssim_fused {

// The passes over the data. An image needs one march. A volume needs three: `moments` from its slices to the
// moments of each slice, `depth` from those along the depth to derivatives, and `gradient` from the
// derivatives to the gradients of the slices.
enum class Pass { image, moments, depth, gradient };

// The function that is differentiated. The two means are the fast path of training: they have no upstream
// gradient per output and no derivatives with respect to c1 and c2. `general` weights the similarity and the
// contrast sensitivity of each output separately.
enum class Objective { mean_similarity, mean_contrast, general };

// The images whose gradients are computed. The gradient of `target` alone is computed as that of `preds`,
// with the two images exchanged.
enum class GradientsOf { none, preds, both };

SSIM_HOST_DEVICE constexpr int gradient_count(GradientsOf gradients) {
  return gradients == GradientsOf::none ? 0 : gradients == GradientsOf::preds ? 1 : 2;
}

// The number of fields of derivatives that a march stores for these gradients (`DerivativeField` in ssim.h).
SSIM_HOST_DEVICE constexpr int derivative_fields(GradientsOf gradients) {
  return gradients == GradientsOf::none ? 0 : 2 + gradient_count(gradients);
}

// The sums that a march accumulates over its outputs, in storage order. The first two are sums of 1 -
// similarity and 1 - contrast sensitivity, which keep their precision when they are tiny. The derivatives
// with respect to the constants follow, weighted like the gradients; they are summed on request, so a march
// has either kMeans or kWithConstants sums. Masked marches on the CPU add two more: the weights of all
// outputs, and those of the outputs in the crop.
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
