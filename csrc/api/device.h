// The interface between the operators and a device, as a concept: cpu/device.cpp and cuda/device.cu each
// define one.
#pragma once

#include <concepts>
#include <vector>

#include "pyramid_request.h"
#include "request.h"
#include "tensors.h"

namespace ssim_fused {

// Scratch memory is allocated like the tensor `like`, and no function waits for the device.
template <class D>
concept Device = requires(const Request& request, const std::vector<HalvingRequest>& halvings,
                          const ProductRequest& product, const GatherRequest& gather, const View& gradient,
                          const Upstream& factor, const View& result, typename D::LevelResults& results,
                          int level, const Tensor& like) {
  // Makes the device of a tensor the current one.
  requires std::constructible_from<typename D::Guard, const Tensor&>;
  // Holds the results of that many levels' passes for the product.
  requires std::constructible_from<typename D::LevelResults, int>;
  { D::similarity(request, like) } -> std::same_as<void>;             // one pass of SSIM
  { D::downsample(halvings, like) } -> std::same_as<void>;            // each level from the one before
  { D::level(request, level, results, like) } -> std::same_as<void>;  // the pass over one level
  { D::product(product, results, like) } -> std::same_as<void>;
  { D::gather(gather, like) } -> std::same_as<void>;
  { D::multiply(gradient, factor, result, like) } -> std::same_as<void>;
};

}  // namespace ssim_fused
