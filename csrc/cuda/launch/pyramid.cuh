// Converts the requests of MS-SSIM's pyramid (api/pyramid_request.h) to launches of kernels/pyramid.cuh.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "../kernels/masked_pyramid.cuh"
#include "call.cuh"
#include "from_request.cuh"
#include "launcher.cuh"
#include "tiles.cuh"

namespace ssim_fused::cuda {

inline DeviceSize device_size(const View& view) {
  return {axis_length(view.depth()), axis_length(view.height()), axis_length(view.width())};
}

// Returns the number of slices that are halved into one.
inline int halved_slices(const View& from) { return from.depth() == 1 ? 1 : 2; }

// Computes the mask of a level from that of the level above.
template <class T>
void run_half_mask(const HalvingRequest& request, CudaLauncher& launcher) {
  const View &from = request.mask.view, &to = request.half_mask;
  HalfMaskParams<T> params{weights(from), static_cast<T*>(to.data), device_size(to), halved_slices(from), {}};
  params.tiles = tiles_of(to.batch(), to.channels(), params.size, kHalvedRows, 1);
  launch_tiles<half_mask_kernel<T>>(params, launcher);
}

// Halves images, weighted by the mask.
template <class Storage>
void run_masked_downsample(const HalvingRequest& request, CudaLauncher& launcher) {
  using T = ComputeOf<Storage>;
  const auto& [from, to, mask, half_mask] = request;
  MaskedDownsampleParams<Storage> params{};
  for (int image = 0; image < 2; ++image) {
    params.from[image] = device_image<const Storage>(from[image]);
    params.to[image] = device_image<T>(to[image]);
  }
  params.size = device_size(to[0]);
  params.slices = halved_slices(from[0]);
  params.tiles = tiles_of(to[0].batch(), to[0].channels(), params.size, kHalvedRows, 1);
  params.mask = weights(mask.view);
  launch_tiles<masked_downsample_kernel<Storage>>(params, launcher);
}

template <class Storage>
void run_downsample(const std::vector<HalvingRequest>& levels, CudaLauncher& launcher) {
  using T = ComputeOf<Storage>;
  const HalvingRequest& first = levels.front();
  for (const HalvingRequest& level : levels) {
    if (level.mask) run_half_mask<T>(level, launcher);
  }
  if (first.mask && first.mask.weighs_windows()) {
    run_masked_downsample<Storage>(first, launcher);
    for (size_t l = 1; l < levels.size(); ++l) run_masked_downsample<T>(levels[l], launcher);
    return;
  }
  std::vector<Level<T>> halves;
  for (const HalvingRequest& level : levels)
    halves.push_back(
        {{device_image<T>(level.to[0]), device_image<T>(level.to[1])}, device_size(level.to[0])});
  const Level<const Storage> finest{
      {device_image<const Storage>(first.from[0]), device_image<const Storage>(first.from[1])},
      device_size(first.from[0])};
  launch_halvings(finest, std::span<const Level<T>>(halves), halved_slices(first.from[0]),
                  first.to[0].batch(), first.to[0].channels(), launcher);
}

// Computes the product from the sums that the levels' passes left in `levels`.
template <class T>
void run_product(const ProductRequest& request, const std::vector<PassSums>& levels, CudaLauncher& launcher) {
  const bool is_reduced = request.reduction != Reduction::none;
  T* const value = static_cast<T*>(request.value);
  ProductParams<T> params{};
  params.level_weights = request.weights;
  std::copy(levels.begin(), levels.end(), params.levels);
  params.as_distance = request.as_distance;
  params.scale = request.reduction == Reduction::mean ? 1 / static_cast<double>(request.batch) : 1.0;
  params.gradient_scale = request.gradient_scale;
  params.finest_scale = request.finest_scale;
  (is_reduced ? params.batch_value : params.value) = value;
  params.factors = static_cast<T*>(request.factors);
  params.grad_constants = static_cast<T*>(request.grad_constants);
  params.pixel_term = pixel_term_results<T>(request.pixels);
  launch_product(params, launcher);
}

template <class Storage>
void run_gather(const GatherRequest& request, CudaLauncher& launcher) {
  using T = ComputeOf<Storage>;
  const View& finest = request.finest;
  GatherParams<Storage> params{};
  params.finest = device_image<KeptAs<Storage>>(finest);
  params.size[0] = device_size(finest);
  params.count = 1;
  for (const View& level : request.coarse) {
    params.levels[params.count] = device_image<const T>(level);
    params.size[params.count++] = device_size(level);
  }
  const bool is_volume = !request.coarse.empty() && request.coarse[0].depth() < finest.depth();
  params.share = is_volume ? T(0.125) : T(0.25);
  params.factors = static_cast<const T*>(request.factors);
  params.batch = finest.batch();
  const int64_t channels = finest.channels();
  params.image = device_image<const Storage>(request.image);
  params.other = device_image<const Storage>(request.other);
  params.term = pixel_term_params<T>(request.pixels);
  if (request.mask) {
    MaskedGatherParams<Storage> masked{params, weights(request.mask.view)};
    masked.tiles = tiles_of(params.batch, channels, params.size[0], kPatch, 1);
    for (size_t l = 0; l < request.coarse_masks.size(); ++l)
      masked.coarse_masks[l + 1] = static_cast<const T*>(request.coarse_masks[l].data);
    masked.mask_channels = request.mask.view.channels();
    Scratch scratch;
    const size_t sums = scratch.add<double>(params.batch * kMaskSums);
    scratch.allocate(launcher);
    masked.mask_sums = scratch.at<double>(sums);
    if (params.term.adds_slopes()) {
      const auto axis = [](int n) { return DeviceAxis{n, 0, 0, false}; };
      const DeviceSize& size = params.size[0];
      sum_masks<T>(MaskSumParams{masked.mask, axis(size.depth), axis(size.height), axis(size.width)},
                   params.batch, channels, scratch.at<double>(sums), launcher);
    }
    return launch_tiles<masked_gather_kernel<Storage>>(masked, launcher);
  }
  params.tiles = tiles_of(params.batch, channels, params);
  launch_tiles<gather_kernel<Storage>>(params, launcher);
}

// Returns whether the elements of an image are contiguous, in any order of its axes.
inline bool is_dense(const View& view) {
  std::array<size_t, 4> axes{1, 2, 3, 4};
  std::sort(axes.begin(), axes.end(), [&](size_t a, size_t b) { return view.stride[a] < view.stride[b]; });
  int64_t expected = 1;
  for (size_t axis : axes) {
    if (view.shape[axis] == 1) continue;
    if (view.stride[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

template <class Storage>
void run_multiply(const View& gradient, const Upstream& factor, const View& result, CudaLauncher& launcher) {
  using T = ComputeOf<Storage>;
  constexpr int64_t kSize = Vector<Storage>::kSize;
  MultiplyParams<Storage> params{};
  params.gradient = device_image<const Storage>(gradient);
  params.result = device_image<Storage>(result);
  params.factor = {static_cast<const T*>(factor.values), factor.stride, factor.scale};
  params.size = device_size(gradient);
  params.channels = gradient.channels();
  params.batch = gradient.batch();
  params.elements = gradient.elements() / gradient.batch();
  params.in_place = gradient.data == result.data;
  params.is_dense = gradient.stride == result.stride && is_dense(gradient);
  const auto is_aligned = [](const View& view) {
    return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 &&
           (view.batch() == 1 || view.stride[0] % kSize == 0);
  };
  params.vectors =
      params.is_dense && params.elements % kSize == 0 && is_aligned(gradient) && is_aligned(result);
  // Enough blocks to fill the device, at least one per image. If the factor is one, they return at once.
  const int64_t units = params.vectors ? params.elements / kSize : params.elements;
  const int64_t fill = ceil_div(int64_t{8} * launcher.sms(), params.batch);
  params.blocks = std::clamp<int64_t>(ceil_div(units, kPyramidThreads), 1, fill);
  launcher.template launch<multiply_kernel<Storage>>(params.batch * params.blocks, kPyramidThreads, 0,
                                                     params);
}

}  // namespace ssim_fused::cuda
