// The kernels of MS-SSIM's pyramid with a mask (pyramid.cuh has those without): halving the mask, halving
// images weighted by the mask, and gathering the levels' gradients with these weights.
#pragma once

#include <cstdint>

#include "mask.cuh"
#include "pyramid.cuh"

namespace ssim_fused::cuda {

template <class T>
struct HalfMaskParams {
  Weights from;
  T* to;            // [B, C or 1, D, H, W]
  DeviceSize size;  // of `to`
  int slices;       // slices of `from` per slice of `to`: 1 or 2
  Tiles tiles;      // of `to`, one column per thread
};

// Calls f(place) for each pixel of the thread's patches, which are one column wide.
template <class F>
SSIM_DEVICE void for_patches(const Tiles& tiles, const DeviceSize& size, F&& f) {
  for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
    PixelPlace place = tiles.patch(tile, threadIdx.x);
    if (place.column >= size.width) continue;
    for (int row = 0; row < tiles.patch_rows && place.row < size.height; ++row, ++place.row) f(place);
  }
}

template <class T>
SSIM_KERNEL(kPyramidThreads, 1)
half_mask_kernel(SSIM_PARAMS HalfMaskParams<T> p) {
  for_patches(p.tiles, p.size, [&](const PixelPlace& place) {
    T sum = T(0);
    for (int k = 0; k < 4 * p.slices; ++k) {
      sum += p.from.template at<T>(p.from.offset(place.batch, place.channel, p.slices * place.slice + k / 4,
                                                 2 * place.row + k / 2 % 2, 2 * place.column + k % 2));
    }
    const int64_t row = ((place.batch * p.tiles.channels + place.channel) * p.size.depth + place.slice) *
                            static_cast<int64_t>(p.size.height) +
                        place.row;
    p.to[row * p.size.width + place.column] = sum * (p.slices == 2 ? T(0.125) : T(0.25));
  });
}

template <class Storage>
struct MaskedDownsampleParams : DownsampleParams<Storage> {
  Weights mask;  // the mask of `from`
};

template <class Storage>
SSIM_KERNEL(kPyramidThreads, 1)
masked_downsample_kernel(SSIM_PARAMS MaskedDownsampleParams<Storage> p) {
  using T = ComputeOf<Storage>;
  for_patches(p.tiles, p.size, [&](const PixelPlace& place) {
    T total = T(0), sum[2] = {};
    for (int k = 0; k < 4 * p.slices; ++k) {
      const int slice = p.slices * place.slice + k / 4, row = 2 * place.row + k / 2 % 2,
                column = 2 * place.column + k % 2;
      const T weight = p.mask.template at<T>(p.mask.offset(place.batch, place.channel, slice, row, column));
      if (!(weight > T(0))) continue;
      total += weight;
      for (int image = 0; image < 2; ++image) {
        const auto& from = p.from[image];
        sum[image] +=
            weight *
            static_cast<T>(to_compute(PixelPlace{place.batch, place.channel, slice, row, column}.of(from)));
      }
    }
    for (int image = 0; image < 2; ++image) place.of(p.to[image]) = total > T(0) ? sum[image] / total : T(0);
  });
}

template <class Storage>
struct MaskedGatherParams : GatherParams<Storage> {
  Weights mask;                                        // the mask of the finest level
  const ComputeOf<Storage>* coarse_masks[kMaxLevels];  // from level 1 on; null: masks do not weight windows
  int64_t mask_channels;
  const double* mask_sums;  // [B, kMaskSums], if there is a pixel term

  // Returns the weight of the pixel of level l that contains the pixel `finest`.
  SSIM_DEVICE ComputeOf<Storage> weight(const PixelPlace& finest, int l) const {
    if (l == 0) {
      return mask.template at<ComputeOf<Storage>>(
          mask.offset(finest.batch, finest.channel, finest.slice, finest.row, finest.column));
    }
    const DeviceSize& size = this->size[l];
    const int64_t plane = finest.batch * mask_channels + (mask_channels == 1 ? 0 : finest.channel);
    return coarse_masks[l][((plane * size.depth + (finest.slice >> l)) * size.height + (finest.row >> l)) *
                               size.width +
                           (finest.column >> l)];
  }
};

template <class Storage>
SSIM_KERNEL(kPyramidThreads, 1)
masked_gather_kernel(SSIM_PARAMS MaskedGatherParams<Storage> p) {
  using T = ComputeOf<Storage>;
  for_patches(p.tiles, p.size[0], [&](const PixelPlace& place) {
    const T* const factors = p.factors + place.batch;
    T sum = T(0);
    for (int l = p.count - 1; l > 0; --l) {  // from the coarsest level, one factor `share` per level
      const PixelPlace above = p.above(place, l);
      if (!p.has(above, l)) continue;  // coarser levels do not have it either
      sum += factors[l * p.batch] * above.of(p.levels[l]);
      sum *= p.share;
      if (!p.coarse_masks[1]) continue;
      // Masked pixels did not contribute to the mean, so they get no gradient.
      const T weight = p.weight(place, l - 1);
      sum = weight > T(0) ? sum * weight / p.weight(place, l) : T(0);
    }
    if (p.term.adds_slopes()) {
      const double total = p.mask_sums[place.batch * kMaskSums + kAllPixels];
      const auto phi =
          p.term.masked(to_compute(place.of(p.image)), to_compute(place.of(p.other)), p.weight(place, 0));
      sum += p.term.weight * (total > 0 ? static_cast<T>(1 / total) : T(0)) * phi.slope;
    }
    KeptAs<Storage>& pixel = place.of(p.finest);
    store_as(pixel, factors[0] * to_compute(pixel) + sum);
  });
}

}  // namespace ssim_fused::cuda
