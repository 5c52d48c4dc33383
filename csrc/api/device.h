// The interface between the operators and a device, as a concept. cpu/device.cpp and cuda/device.cu each
// define a class that satisfies it.
#pragma once

#include <concepts>
#include <vector>

#include "pyramid_request.h"
#include "request.h"
#include "tensors.h"

namespace ssim_fused {

// Scratch memory is allocated on the device of the tensor `like`. No function waits for the device.
template <class D>
concept Device = requires(const Request& request, const std::vector<HalvingRequest>& halvings,
                          const ProductRequest& product, const GatherRequest& gather, const View& gradient,
                          const Upstream& factor, const View& result, typename D::LevelResults& results,
                          int level, const Tensor& like) {
  // A Guard makes the device of a tensor the current one for its lifetime.
  requires std::constructible_from<typename D::Guard, const Tensor&>;
  // LevelResults(n) keeps the results of n levels' passes for `product`.
  requires std::constructible_from<typename D::LevelResults, int>;
  { D::similarity(request, like) } -> std::same_as<void>;             // one pass of SSIM
  { D::downsample(halvings, like) } -> std::same_as<void>;            // each level from the one above
  { D::level(request, level, results, like) } -> std::same_as<void>;  // the pass over one level
  { D::product(product, results, like) } -> std::same_as<void>;
  { D::gather(gather, like) } -> std::same_as<void>;
  { D::multiply(gradient, factor, result, like) } -> std::same_as<void>;
};

}  // namespace ssim_fused
