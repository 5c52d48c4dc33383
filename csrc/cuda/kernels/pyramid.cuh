// The kernels of MS-SSIM's pyramid, of images or volumes: halve both, weigh the levels' means, and gather the
// levels' gradients. One thread for each pixel (of both images; of the finest gradient), or for each image of
// the batch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/pyramid.h"
#include "picture.cuh"

namespace ssim_fused::cuda {

constexpr int kPyramidThreads = 256;
constexpr int64_t kMostPyramidBlocks = 1 << 20;  // beyond it, threads take several pixels

inline int64_t pyramid_blocks(int64_t pixels) {
  return std::clamp<int64_t>((pixels + kPyramidThreads - 1) / kPyramidThreads, 1, kMostPyramidBlocks);
}

// The axes of an image or a volume; an image has one slice.
struct DeviceSize {
  int depth, height, width;
};

// A pixel's place in a batch, counted along the rows.
struct PixelPlace {
  int64_t batch, channel;
  int slice, row, column;

  SSIM_DEVICE PixelPlace(int64_t index, int64_t channels, const DeviceSize& size) {
    column = static_cast<int>(index % size.width);
    const int64_t rows = index / size.width;
    row = static_cast<int>(rows % size.height);
    const int64_t slices = rows / size.height;
    slice = static_cast<int>(slices % size.depth);
    const int64_t plane = slices / size.depth;
    channel = plane % channels;
    batch = plane / channels;
  }
  template <class Storage>
  SSIM_DEVICE Storage& of(const Picture<Storage>& picture) const {
    return picture.plane(
        batch, channel)[slice * picture.slice_stride + row * picture.stride[2] + column * picture.stride[3]];
  }
};

template <class Storage>
struct DownsampleParams {
  Picture<const Storage> from[2];
  Picture<ComputeOf<Storage>> to[2];
  int64_t channels, pixels;  // `pixels`: of one result
  DeviceSize size;           // of the results
  int slices;                // that become one: 1 or 2
};

template <class Storage>
SSIM_KERNEL(kPyramidThreads, 1)
downsample_kernel(SSIM_PARAMS DownsampleParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPyramidThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPyramidThreads + threadIdx.x; i < p.pixels;
       i += step) {
    const PixelPlace place(i, p.channels, p.size);
    for (int image = 0; image < 2; ++image) {
      const auto& from = p.from[image];
      const Storage* const first = from.plane(place.batch, place.channel) +
                                   p.slices * place.slice * from.slice_stride +
                                   2 * place.row * from.stride[2] + 2 * place.column * from.stride[3];
      T mean = T(0);
      for (int slice = 0; slice < p.slices; ++slice) {
        const Storage* const square = first + slice * from.slice_stride;
        const T upper = to_compute(square[0]) + to_compute(square[from.stride[2]]);
        const T lower =
            to_compute(square[from.stride[3]]) + to_compute(square[from.stride[2] + from.stride[3]]);
        mean += (upper + lower) * T(0.25);
      }
      place.of(p.to[image]) = p.slices == 2 ? mean * T(0.5) : mean;
    }
  }
}

template <class T>
struct ProductParams {
  const T* means[kMaxLevels];  // [B] each
  int64_t stride[kMaxLevels];
  LevelWeights level_weights;
  int64_t batch;
  T* value;    // [B]
  T* factors;  // [levels, B]
};

template <class T>
SSIM_KERNEL(kPyramidThreads, 1)
product_kernel(SSIM_PARAMS ProductParams<T> p) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kPyramidThreads + threadIdx.x;
  if (b >= p.batch) return;
  p.value[b] = static_cast<T>(weighted_product(
      p.level_weights, [&](int l) { return p.means[l][b * p.stride[l]]; },
      [&](int l, double factor) { p.factors[l * p.batch + b] = static_cast<T>(factor); }));
}

template <class Storage>
struct GatherParams {
  using T = ComputeOf<Storage>;
  Picture<const Storage> finest;
  Picture<const T> levels[kMaxLevels];  // from the second on
  DeviceSize size[kMaxLevels];
  int count;
  T share;  // of a pixel in the one it becomes part of
  Picture<Storage> result;
  const T* factors;  // [levels, B]
  int64_t factor_stride[2];
  int64_t channels, pixels;
};

// A pixel of level l stands for 4^l of the finest, a voxel for 8^l, and its gradient is shared out among
// them.
template <class Storage>
SSIM_KERNEL(kPyramidThreads, 1)
gather_kernel(SSIM_PARAMS GatherParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPyramidThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPyramidThreads + threadIdx.x; i < p.pixels;
       i += step) {
    const PixelPlace place(i, p.channels, p.size[0]);
    const T* const factors = p.factors + place.batch * p.factor_stride[1];
    T sum = T(0);
    for (int l = p.count - 1; l > 0; --l) {  // from the coarsest: a share at each step
      PixelPlace above = place;
      above.slice >>= l, above.row >>= l, above.column >>= l;
      const DeviceSize& size = p.size[l];
      if (above.slice < size.depth && above.row < size.height && above.column < size.width) {
        sum += factors[l * p.factor_stride[0]] * above.of(p.levels[l]);
      }
      sum *= p.share;
    }
    store_as(place.of(p.result), factors[0] * to_compute(place.of(p.finest)) + sum);
  }
}

}  // namespace ssim_fused::cuda
