// The requests of MS-SSIM to a device in addition to the passes over the levels: halving the images, the
// product over the levels, and adding up the levels' gradients.
#pragma once

#include <vector>

#include "../math/pyramid.h"
#include "request.h"

namespace ssim_fused {

// Computes the product over the levels for each image, from the sums that the levels' passes left on the
// device, and the factor of each level's gradient in the gradient of the distance. All memory is of the
// compute type.
struct ProductRequest {
  ScalarType type;
  int64_t batch;
  LevelWeights weights;
  Reduction reduction;
  bool as_distance;
  double gradient_scale;  // factor of the result's gradient
  double finest_scale;    // the factor that the finest level's gradient is already stored with
  void* value;            // [B], or one element
  void* factors;          // [levels, B]; null if no gradient is requested
  void* grad_constants;   // [B, 2]; null if not requested
  PixelRequest pixels;    // the finest level's pass leaves its sum on the device
};

// Computes one level of the pyramid from the level above: means of 2x2 pixels or 2x2x2 voxels of both images,
// and of the mask. With MaskMode::window the mask also weights the images' pixels in these means.
struct HalvingRequest {
  View from[2], to[2];
  Mask mask;       // the mask of `from`
  View half_mask;  // in the compute type
};

// Adds the levels' gradients, each times its factor, to the finest level's gradient. A pixel of level l
// covers 4^l pixels of the finest level (a voxel 8^l), and its gradient is divided equally among them.
struct GatherRequest {
  View finest;                     // the gradient of the finest level, read and written
  std::vector<View> coarse;        // levels 1, 2, ...; in the compute type
  const void* factors;             // [levels, B], in the compute type
  Mask mask;                       // the mask of the finest level
  std::vector<View> coarse_masks;  // the masks of `coarse`, if `mask` weights windows
  // The images of the pixel term, whose slopes with respect to `image` are added.
  View image, other;
  PixelRequest pixels;
};

}  // namespace ssim_fused
