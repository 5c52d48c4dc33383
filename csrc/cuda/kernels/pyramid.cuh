// The kernels of MS-SSIM's pyramid, for images and volumes: halving both images, once or twice; the product
// of the levels' means, from their sums; gathering the levels' gradients; and multiplying a gradient by a
// factor. When halving and gathering, a thread processes four rows of the finer level, either one column of
// them or, as vectors, four (patch.cuh). In the product, a block processes an image.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/pyramid.h"
#include "patch.cuh"

namespace ssim_fused::cuda {

constexpr int kPatch = 4;  // rows of the finer level per thread, and columns if they are vectors
// Blocks per SM, enough to hide the memory's latency.
template <class Storage>
constexpr int kPatchBlocks = sizeof(ComputeOf<Storage>) == 4 ? 4 : 2;

template <class Storage>
struct DownsampleParams {
  using T = ComputeOf<Storage>;
  DeviceImage<const Storage> from[2];
  DeviceImage<T> to[2];
  DeviceSize size;  // of `to`
  int slices;       // slices of `from` per slice of `to`: 1 or 2
  // The level after `to`, or null if it is not computed. It requires rows of whole vectors.
  DeviceImage<T> after[2];
  DeviceSize after_size;
  Tiles tiles;  // of `to`; if `after` is computed, their slices are those of `after`
};

// Adds the mean of 2x2 pixels to `mean`.
template <class T>
SSIM_DEVICE void add_mean(T& mean, const T* upper, const T* lower) {
  const T left = upper[0] + lower[0], right = upper[1] + lower[1];
  mean += (left + right) * T(0.25);
}

// Computes kColumns pixels of two rows of both results, writes them, and returns them in `mean`. `place` is
// the first of these pixels, which must be inside the results. All inputs are read before anything is
// written.
template <int kColumns, class Storage, class T>
SSIM_DEVICE void halve_patch(const DownsampleParams<Storage>& p, const PixelPlace& place,
                             T (&mean)[2][kPatch / 2][kColumns]) {
  constexpr int kRows = kPatch / 2;
  for (int slice = 0; slice < p.slices; ++slice) {
    const PixelPlace source{place.batch, place.channel, p.slices * place.slice + slice, 2 * place.row,
                            2 * place.column};
#pragma unroll
    for (int image = 0; image < 2; ++image) {
      const auto& from = p.from[image];
      const auto first = source.from(from);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row > 0 && place.row + row >= p.size.height) continue;
        const auto upper_row = first + 2 * row * from.stride[2], lower_row = upper_row + from.stride[2];
        T upper[2 * kColumns], lower[2 * kColumns];
        if constexpr (kColumns == 1) {
          upper[0] = to_compute(upper_row[0]), upper[1] = to_compute(upper_row[from.stride[3]]);
          lower[0] = to_compute(lower_row[0]), lower[1] = to_compute(lower_row[from.stride[3]]);
        } else {
          read_pixels(upper, upper_row);
          read_pixels(lower, lower_row);
        }
#pragma unroll
        for (int i = 0; i < kColumns; ++i) add_mean(mean[image][row][i], upper + 2 * i, lower + 2 * i);
      }
    }
  }
#pragma unroll
  for (int image = 0; image < 2; ++image) {
    const auto first = place.from(p.to[image]);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row > 0 && place.row + row >= p.size.height) continue;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if (p.slices == 2) mean[image][row][i] *= T(0.5);
      }
      write_pixels(first + row * p.to[image].stride[2], mean[image][row]);
    }
  }
}

// Halves a patch of vectors: computes two rows of two pixels of `to` and, if requested, the pixel of `after`
// that they make, from two slices for volumes.
template <class Storage>
SSIM_DEVICE void halve_vectors(const DownsampleParams<Storage>& p, const PixelPlace& place) {
  using T = ComputeOf<Storage>;
  constexpr int kHalf = kPatch / 2;
  const bool makes_after = p.after[0].data != nullptr;
  const int slices = makes_after ? p.slices : 1;
  T after[2] = {};
  PixelPlace half = place;
  half.slice *= slices;
  for (int slice = 0; slice < slices && half.slice < p.size.depth; ++slice, ++half.slice) {
    T mean[2][kHalf][kHalf] = {};
    halve_patch(p, half, mean);
#pragma unroll
    for (int image = 0; image < 2; ++image) add_mean(after[image], mean[image][0], mean[image][1]);
  }
  const PixelPlace above{place.batch, place.channel, place.slice, place.row / kHalf, place.column / kHalf};
  if (!makes_after || above.slice >= p.after_size.depth || above.row >= p.after_size.height) return;
#pragma unroll
  for (int image = 0; image < 2; ++image) {
    if (slices == 2) after[image] *= T(0.5);
    above.of(p.after[image]) = after[image];
  }
}

template <class Storage>
SSIM_KERNEL(kPyramidThreads, kPatchBlocks<Storage>)
downsample_kernel(SSIM_PARAMS DownsampleParams<Storage> p) {
  for (int64_t tile = blockIdx.x; tile < p.tiles.count; tile += gridDim.x) {
    const PixelPlace place = p.tiles.patch(tile, threadIdx.x);
    if (place.row >= p.size.height || place.column >= p.size.width) continue;
    if constexpr (!std::is_same_v<Storage, AnyPixel>) {
      if (p.tiles.patch_columns > 1) {
        halve_vectors(p, place);
        continue;
      }
    }
    ComputeOf<Storage> mean[2][kPatch / 2][1] = {};
    halve_patch(p, place, mean);
  }
}

// The results of one level for one image, from which the product is computed.
struct LevelMeans {
  double loss, by_constants[2];  // 1 - mean of the level, and its derivatives by c1 and c2
  double pixel_mean;             // mean phi, if the level has a pixel term
};

template <class T>
struct ProductParams {
  LevelWeights level_weights;
  PassSums levels[kMaxLevels];  // the pixel term's sums and the ticket are in levels[0]
  bool as_distance;             // return 1 - MS-SSIM
  double scale;                 // of the batch's value: 1 for a sum, 1 / B for a mean
  double gradient_scale;        // of the result's derivatives
  double finest_scale;          // the factor that the finest level's gradient is already stored with
  T* value;                     // [B], or null
  T* batch_value;               // [1]: the sum of the values, times `scale`, or null
  T* factors;                   // [levels, B], or null
  T* grad_constants;            // [B, 2], or null
  PixelTermResults<T> pixel_term;
};

// Computes the value of an image from the sums of all its levels. One block per image.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
product_kernel(SSIM_PARAMS ProductParams<T> p) {
  constexpr int kWarps = kReduceThreads / kWarpSize;
  const int thread = threadIdx.x, levels = p.level_weights.levels;
  const int64_t image = blockIdx.x;
  double* const scratch = reinterpret_cast<double*>(shared_memory());  // [levels, warps, kReduced]
  LevelMeans* const means = reinterpret_cast<LevelMeans*>(scratch + levels * kWarps * kReduced);
  // The order of summation is that of reduce_kernel. The first part of a level, often its only part, goes to
  // a different warp for each level, so that the warps wait for memory at the same time.
  for (int l = 0; l < levels; ++l) {
    const int part = (thread / kWarpSize + l) % kWarps;
    double sums[kReduced] = {};
    p.levels[l].add_blocks(image, kWarpSize * part + thread % kWarpSize, sums);
    add_up_warp(sums, scratch + (l * kWarps + part) * kReduced, thread);
  }
  __syncthreads();
  if (thread < levels) {
    const PassSums& level = p.levels[thread];
    double total[kReduced];
#pragma unroll
    for (int n = 0; n < kReduced; ++n)
      total[n] = add_up_warps<kWarps, kReduced>(scratch + thread * kWarps * kReduced, n);
    const bool is_last = thread + 1 == levels;
    means[thread] = {is_last ? level.similarity_loss(image, total) : level.contrast_loss(image, total),
                     {total[kByC1], total[kByC2]},
                     level.pixel_term.sums ? level.pixel_mean(image, total) : 0};
  }
  sync_warp();  // thread 0 reads what other threads of its warp wrote
  static_assert(kMaxLevels <= kWarpSize);
  double value = 0;
  if (thread == 0) {
    double by_constants[2] = {};
    const double distance = weighted_distance(
        p.level_weights, [&](int l) { return means[l].loss; },
        [&](int l, double factor) {
          if (l == 0) factor /= p.finest_scale;
          if (p.factors) p.factors[l * p.levels[0].batch + image] = static_cast<T>(factor * p.gradient_scale);
          for (int k = 0; k < 2; ++k) by_constants[k] += factor * means[l].by_constants[k];
        });
    value = p.as_distance ? distance : 1 - distance;
    if (p.levels[0].pixel_term.sums) value = p.pixel_term.value(image, means[0].pixel_mean, value);
    if (p.value) p.value[image] = static_cast<T>(value);
    for (int k = 0; p.grad_constants && k < 2; ++k)
      p.grad_constants[2 * image + k] = static_cast<T>(by_constants[k] * p.gradient_scale);
  }
  if (p.batch_value) {
    add_up_images(p.levels[0].sums, p.levels[0].batch, value, p.scale, p.batch_value, scratch, &means[0].loss,
                  thread);
  }
}

inline int product_shared(int levels) {
  return levels * (kReduceThreads / kWarpSize * kReduced * static_cast<int>(sizeof(double)) +
                   static_cast<int>(sizeof(LevelMeans)));
}

template <class Storage>
struct GatherParams {
  using T = ComputeOf<Storage>;
  DeviceImage<KeptAs<Storage>> finest;      // [B, C, D, H, W], read and written
  DeviceImage<const T> levels[kMaxLevels];  // from level 1 on
  DeviceSize size[kMaxLevels];
  int count;
  T share;           // the part of a pixel's gradient that each pixel of the finer level gets
  const T* factors;  // [levels, B]
  int64_t batch;
  Tiles tiles;  // of the finest level
  // The images of the pixel term, whose slopes are with respect to `image`; null: there is no term.
  DeviceImage<const Storage> image, other;
  PixelTermParams<T> term;

  // Returns the pixel of level l that contains a pixel of the finest level.
  SSIM_DEVICE PixelPlace above(const PixelPlace& place, int l) const {
    return {place.batch, place.channel, place.slice >> l, place.row >> l, place.column >> l};
  }
  SSIM_DEVICE bool has(const PixelPlace& above, int l) const {
    return above.slice < size[l].depth && above.row < size[l].height && above.column < size[l].width;
  }
};

// Adds up the gradients of all levels for kColumns pixels of four rows of a slice. A pixel of level l covers
// 4^l pixels of the finest level (a voxel 8^l), among which its gradient is divided equally. From level 2 on,
// the whole patch is inside one pixel.
template <int kColumns, class Storage>
SSIM_DEVICE void gather_patch(const GatherParams<Storage>& p, const PixelPlace& place) {
  using T = ComputeOf<Storage>;
  constexpr int kHalfRows = kPatch / 2, kHalfColumns = (kColumns + 1) / 2;
  const T* const factors = p.factors + place.batch;
  const T factor = factors[0];  // of the finest level
  const auto first = place.from(p.finest);
  T finest[kPatch][kColumns];
#pragma unroll
  for (int row = 0; row < kPatch; ++row) {
    if (place.row + row < p.size[0].height) read_pixels(finest[row], first + row * p.finest.stride[2]);
  }
  T coarse = T(0);
  for (int l = p.count - 1; l > 1; --l) {  // from the coarsest level, one factor `share` per level
    const PixelPlace above = p.above(place, l);
    if (p.has(above, l)) coarse += factors[l * p.batch] * above.of(p.levels[l]);
    coarse *= p.share;
  }
  T sum[kHalfRows][kHalfColumns] = {};
  if (p.count > 1) {
    PixelPlace above = p.above(place, 1);
    const auto half = above.from(p.levels[1]);
#pragma unroll
    for (int row = 0; row < kHalfRows; ++row, ++above.row) {
      T values[kHalfColumns];
      const bool has = p.has(above, 1);
      if (has) read_pixels(values, half + row * p.levels[1].stride[2]);
#pragma unroll
      for (int i = 0; i < kHalfColumns; ++i) {
        sum[row][i] = coarse;
        if (has) sum[row][i] += factors[p.batch] * values[i];
        sum[row][i] *= p.share;
      }
    }
  }
#pragma unroll
  for (int row = 0; row < kPatch; ++row) {
    if (place.row + row >= p.size[0].height) continue;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      T added = sum[row / 2][i / 2];
      if constexpr (kColumns == 1) {  // only here, so that three formulas are not unrolled sixteen times
        if (p.term.adds_slopes()) {
          T image[1], other[1];
          read_pixels(image, place.from(p.image) + row * p.image.stride[2]);
          read_pixels(other, place.from(p.other) + row * p.other.stride[2]);
          added += p.term.weight * p.term.of(image[0], other[0]).slope;
        }
      }
      finest[row][i] = factor * finest[row][i] + added;
    }
    write_pixels(first + row * p.finest.stride[2], finest[row]);
  }
}

template <class Storage>
SSIM_KERNEL(kPyramidThreads, kPatchBlocks<Storage>)
gather_kernel(SSIM_PARAMS GatherParams<Storage> p) {
  for (int64_t tile = blockIdx.x; tile < p.tiles.count; tile += gridDim.x) {
    const PixelPlace place = p.tiles.patch(tile, threadIdx.x);
    if (place.row >= p.size[0].height || place.column >= p.size[0].width) continue;
    if constexpr (!std::is_same_v<Storage, AnyPixel>) {
      if (p.tiles.patch_columns > 1) {
        gather_patch<kPatch>(p, place);
        continue;
      }
    }
    gather_patch<1>(p, place);
  }
}

template <class Storage>
struct MultiplyParams {
  using T = ComputeOf<Storage>;
  DeviceImage<const Storage> gradient;  // [B, C, D, H, W]
  DeviceImage<Storage> result;          // may be `gradient`
  Weight<T> factor;
  DeviceSize size;
  int64_t channels, batch;
  int64_t elements;  // elements per image
  bool in_place;
  bool is_dense;   // in both, the elements of an image are contiguous, in the same order
  bool vectors;    // and fill whole, aligned vectors
  int64_t blocks;  // blocks per image
};

// Multiplies a gradient by the factor of each image. If the factor is one and the gradient is in place,
// nothing is read or written.
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
      PixelPlace place = pixel_place(i, p.channels, p.size);
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
