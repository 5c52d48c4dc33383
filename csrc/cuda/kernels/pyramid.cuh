// The kernels of MS-SSIM's pyramid, of images or volumes: halve both, weigh the levels' losses, and gather
// the levels' gradients. One thread for each pixel (of both images; of the finest gradient), or for each
// image of the batch. And a gradient times its factor.
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
    if (index <= UINT32_MAX && channels <= UINT32_MAX) {  // divisions of 64 bits take several times as long
      split(static_cast<uint32_t>(index), static_cast<uint32_t>(channels), size);
    } else {
      split(static_cast<uint64_t>(index), static_cast<uint64_t>(channels), size);
    }
  }
  template <class Storage>
  SSIM_DEVICE decltype(auto) of(const Picture<Storage>& picture) const {
    return picture.plane(
        batch, channel)[slice * picture.slice_stride + row * picture.stride[2] + column * picture.stride[3]];
  }

 private:
  template <class Index>
  SSIM_DEVICE void split(Index index, Index channels, const DeviceSize& size) {
    const Index width = static_cast<Index>(size.width), height = static_cast<Index>(size.height),
                depth = static_cast<Index>(size.depth);
    const Index rows = index / width, slices = rows / height, planes = slices / depth;
    column = static_cast<int>(index - rows * width);
    row = static_cast<int>(rows - slices * height);
    slice = static_cast<int>(slices - planes * depth);
    batch = static_cast<int64_t>(planes / channels);
    channel = static_cast<int64_t>(planes % channels);
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
      const auto first = from.plane(place.batch, place.channel) + p.slices * place.slice * from.slice_stride +
                         2 * place.row * from.stride[2] + 2 * place.column * from.stride[3];
      T mean = T(0);
      for (int slice = 0; slice < p.slices; ++slice) {
        const auto square = first + slice * from.slice_stride;
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
  LevelWeights level_weights;
  int64_t batch;
  const T* losses;           // [levels, B]: one minus the levels' means
  const T* level_constants;  // [levels, B, 2]: derivatives of the losses by the constants, or null
  bool as_distance;          // one minus MS-SSIM
  double scale;              // of the number for the batch: 1, or 1 / B
  double gradient_scale;     // of the derivatives of the result
  double finest_scale;       // that the finest level's gradient has already
  T* value;                  // [B], or null
  T* batch_value;            // [1]: their sum, times `scale`, or null; then there is one block
  T* factors;                // [levels, B], or null
  T* grad_constants;         // [B, 2], or null
  PixelResults<T> pixels;    // whose means are read, where there are any
};

template <class T>
SSIM_KERNEL(kPyramidThreads, 1)
product_kernel(SSIM_PARAMS ProductParams<T> p) {
  const int thread = threadIdx.x;
  double sum[1] = {};
  for (int64_t b = static_cast<int64_t>(blockIdx.x) * kPyramidThreads + thread; b < p.batch;
       b += static_cast<int64_t>(gridDim.x) * kPyramidThreads) {
    double by_constants[2] = {};
    const double distance = weighted_distance(
        p.level_weights, [&](int l) { return p.losses[l * p.batch + b]; },
        [&](int l, double factor) {
          const int64_t place = l * p.batch + b;
          if (p.factors)
            p.factors[place] = static_cast<T>(factor * p.gradient_scale / (l == 0 ? p.finest_scale : 1.0));
          for (int k = 0; p.grad_constants && k < 2; ++k)
            by_constants[k] += factor * static_cast<double>(p.level_constants[2 * place + k]);
        });
    double value = p.as_distance ? distance : 1 - distance;
    if (p.pixels.means) value = p.pixels.value(b, static_cast<double>(p.pixels.means[b]), value);
    sum[0] += value;
    if (p.value) p.value[b] = static_cast<T>(value);
    for (int k = 0; p.grad_constants && k < 2; ++k)
      p.grad_constants[2 * b + k] = static_cast<T>(by_constants[k] * p.gradient_scale / p.finest_scale);
  }
  if (!p.batch_value) return;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  double* const total = scratch + kPyramidThreads / 32;
  add_up_block<kPyramidThreads>(sum, scratch, total, thread);
  if (thread == 0) *p.batch_value = static_cast<T>(total[0] * p.scale);
}

constexpr int kProductShared = (kPyramidThreads / 32 + 1) * sizeof(double);

template <class Storage>
struct GatherParams {
  using T = ComputeOf<Storage>;
  Picture<KeptAs<Storage>> finest;      // [B, C, D, H, W], read and written
  Picture<const T> levels[kMaxLevels];  // from the second on
  DeviceSize size[kMaxLevels];
  int count;
  T share;           // of a pixel in the one it becomes part of
  const T* factors;  // [levels, B]
  int64_t batch, channels, pixels;
  Picture<const Storage> image, other;  // by which the pixel term's slopes are; null: there is none
  Pixels<T> term;
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
    const T* const factors = p.factors + place.batch;
    T sum = T(0);
    for (int l = p.count - 1; l > 0; --l) {  // from the coarsest: a share at each step
      PixelPlace above = place;
      above.slice >>= l, above.row >>= l, above.column >>= l;
      const DeviceSize& size = p.size[l];
      if (above.slice < size.depth && above.row < size.height && above.column < size.width) {
        sum += factors[l * p.batch] * above.of(p.levels[l]);
      }
      sum *= p.share;
    }
    if (p.term.adds_slopes())
      sum += p.term.weight * p.term.of(to_compute(place.of(p.image)), to_compute(place.of(p.other))).slope;
    KeptAs<Storage>& pixel = place.of(p.finest);
    store_as(pixel, factors[0] * to_compute(pixel) + sum);
  }
}

template <class Storage>
struct MultiplyParams {
  using T = ComputeOf<Storage>;
  Picture<const Storage> gradient;  // [B, C, D, H, W]
  Picture<Storage> result;          // the same, maybe in place
  Weight<T> factor;
  DeviceSize size;
  int64_t channels, batch;
  int64_t elements;  // of an image
  bool in_place;
  bool is_dense;   // the elements of an image lie one after the other in both, in the same order
  bool vectors;    // and are whole, aligned vectors
  int64_t blocks;  // of an image
};

// A gradient times the factor of its image. Where that is one, and nothing has to be written, nothing is read
// either.
template <class Storage>
SSIM_KERNEL(kPyramidThreads, 1)
multiply_kernel(SSIM_PARAMS MultiplyParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int64_t image = blockIdx.x / p.blocks;
  const T factor = p.factor.of(image);
  if (p.in_place && factor == T(1)) return;
  const int64_t first = (blockIdx.x - image * p.blocks) * kPyramidThreads + threadIdx.x;
  const int64_t step = p.blocks * kPyramidThreads;
  if (!p.is_dense) {
    for (int64_t i = first; i < p.elements; i += step) {
      PixelPlace place(i, p.channels, p.size);
      place.batch = image;
      store_as(place.of(p.result), factor * to_compute(place.of(p.gradient)));
    }
    return;
  }
  const Storage* const from = p.gradient.plane(image, 0);
  Storage* const to = p.result.plane(image, 0);
  if (!p.vectors) {
    for (int64_t i = first; i < p.elements; i += step) store_as(to[i], factor * to_compute(from[i]));
    return;
  }
  constexpr int kSize = Vector<Storage>::kSize;
  for (int64_t i = first; i < p.elements / kSize; i += step) {
    Vector<Storage> values = reinterpret_cast<const Vector<Storage>*>(from)[i];
#pragma unroll
    for (int e = 0; e < kSize; ++e) store_as(values.value[e], factor * to_compute(values.value[e]));
    reinterpret_cast<Vector<Storage>*>(to)[i] = values;
  }
}

}  // namespace ssim_fused::cuda
