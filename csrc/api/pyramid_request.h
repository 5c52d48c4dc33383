// The requests of MS-SSIM to a device besides the levels' passes: the halving of images, the
// product over the levels, and the gathering of the levels' gradients.
#pragma once

#include <vector>

#include "../math/pyramid.h"
#include "request.h"

namespace ssim_fused {

// The product over the levels of each image's means, which the levels' passes left on the device, and the
// factors of the levels' gradients in the gradient of the distance. All memory is of the compute type.
struct ProductRequest {
  ScalarType type;
  int64_t batch;
  LevelWeights weights;
  Reduction reduction;
  bool as_distance;
  double gradient_scale;  // of the result's gradient; the finest level's is stored times `finest_scale`
  double finest_scale;
  void* value;           // [B], or one number
  void* factors;         // [levels, B]; null if no gradient is requested
  void* grad_constants;  // [B, 2]; null if not requested
  PixelRequest pixels;   // whose mean the finest level's pass left
};

// One level of the pyramid from the level above: means of 2x2 pixels or 2x2x2 voxels, of both images and the
// mask. A mask that weighs windows also weighs the images' pixels in these means.
struct HalvingRequest {
  View from[2], to[2];
  Mask mask;       // of `from`
  View half_mask;  // in the compute type
};

// The sum of the levels' gradients, each times its factor, in the finest level's gradient. A pixel of level l
// stands for 4^l pixels of the finest level (a voxel for 8^l), and its gradient is divided equally among
// them.
struct GatherRequest {
  View finest;               // read and written
  std::vector<View> coarse;  // levels 1, 2, ...; in the compute type
  const void* factors;       // [levels, B], of the compute type
  Mask mask;                 // of the finest; where it weighs windows, `coarse_masks` are those of `coarse`
  std::vector<View> coarse_masks;
  // The slopes of the pixel term by `image` are added.
  View image, other;
  PixelRequest pixels;
};

}  // namespace ssim_fused
