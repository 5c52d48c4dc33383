// The kernels of MS-SSIM's pyramid, of images or volumes: halve both, once or twice; from the levels' sums to
// the product of their means; and gather the levels' gradients. A thread takes four rows of the finer level,
// one column of them or, as vectors, four (patch.cuh); a block of the product an image. And a gradient times
// its factor.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/pyramid.h"
#include "patch.cuh"

namespace ssim_fused::cuda {

constexpr int kPatch = 4;  // rows of the finer level that a thread takes, and columns where they are vectors
// Blocks that an SM holds at once, so that what they wait for fills the memory's latency.
template <class Storage>
constexpr int kPatchBlocks = sizeof(ComputeOf<Storage>) == 4 ? 4 : 2;

template <class Storage>
struct DownsampleParams {
  using T = ComputeOf<Storage>;
  DeviceImage<const Storage> from[2];
  DeviceImage<T> to[2];
  DeviceSize size;  // of the results
  int slices;       // that become one: 1 or 2
  DeviceImage<T>
      after[2];  // the level after, where it is made, too; null: it is not. Only where rows are vectors
  DeviceSize after_size;
  Tiles tiles;  // of a result; whose slices are those of the level after, where it is made
};

// The mean of 2x2 pixels, added to that of the slice before.
template <class T>
SSIM_DEVICE void add_mean(T& mean, const T* upper, const T* lower) {
  const T left = upper[0] + lower[0], right = upper[1] + lower[1];
  mean += (left + right) * T(0.25);
}

// kColumns pixels of two rows of both results, of which the first lies within them, and which stay at hand.
// All is read before anything is written.
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

// Two columns, of which the pixel of the level after is made, too: of two slices, where there are any.
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

// What an image's level brings to the product.
struct LevelMeans {
  double loss, by_constants[2];  // one minus the level's mean, and its derivatives by the constants
  double pixel_mean;             // of the pixel term, where the level has one
};

template <class T>
struct ProductParams {
  LevelWeights level_weights;
  PassSums levels[kMaxLevels];  // the finest's with those of the pixels; its ticket counts the images
  bool as_distance;             // one minus MS-SSIM
  double scale;                 // of the number for the batch: 1, or 1 / B
  double gradient_scale;        // of the derivatives of the result
  double finest_scale;          // that the finest level's gradient has already
  T* value;                     // [B], or null
  T* batch_value;               // [1]: their sum, times `scale`, or null
  T* factors;                   // [levels, B], or null
  T* grad_constants;            // [B, 2], or null
  PixelTermResults<T> pixel_term;
};

// One block for each image: from the sums that its levels' passes left to its value.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
product_kernel(SSIM_PARAMS ProductParams<T> p) {
  constexpr int kWarps = kReduceThreads / kWarpSize;
  const int thread = threadIdx.x, levels = p.level_weights.levels;
  const int64_t image = blockIdx.x;
  double* const scratch = reinterpret_cast<double*>(shared_memory());  // [levels, warps, kReduced]
  LevelMeans* const means = reinterpret_cast<LevelMeans*>(scratch + levels * kWarps * kReduced);
  // In the order of reduce_kernel; but the first part of a level, often its only one, is another warp's for
  // each, so that these wait for memory at the same time.
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
  sync_warp();  // thread 0 reads the means, which other threads of its warp wrote
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
  DeviceImage<const T> levels[kMaxLevels];  // from the second on
  DeviceSize size[kMaxLevels];
  int count;
  T share;           // of a pixel in the one it becomes part of
  const T* factors;  // [levels, B]
  int64_t batch;
  Tiles tiles;                              // of the finest
  DeviceImage<const Storage> image, other;  // by which the pixel term's slopes are; null: there is none
  PixelTermParams<T> term;

  // Of the pixel of level l that one of the finest is part of.
  SSIM_DEVICE PixelPlace above(const PixelPlace& place, int l) const {
    return {place.batch, place.channel, place.slice >> l, place.row >> l, place.column >> l};
  }
  SSIM_DEVICE bool has(const PixelPlace& above, int l) const {
    return above.slice < size[l].depth && above.row < size[l].height && above.column < size[l].width;
  }
};

// A pixel of level l stands for 4^l of the finest, a voxel for 8^l, and its gradient is shared out among
// them. kColumns pixels of four rows of one slice are part of one pixel of each level from the third on.
template <int kColumns, class Storage>
SSIM_DEVICE void gather_patch(const GatherParams<Storage>& p, const PixelPlace& place) {
  using T = ComputeOf<Storage>;
  constexpr int kHalfRows = kPatch / 2, kHalfColumns = (kColumns + 1) / 2;
  const T* const factors = p.factors + place.batch;
  const T factor = factors[0];  // of the finest
  const auto first = place.from(p.finest);
  T finest[kPatch][kColumns];
#pragma unroll
  for (int row = 0; row < kPatch; ++row) {
    if (place.row + row < p.size[0].height) read_pixels(finest[row], first + row * p.finest.stride[2]);
  }
  T coarse = T(0);
  for (int l = p.count - 1; l > 1; --l) {  // from the coarsest: a share at each step
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
      if constexpr (kColumns == 1) {  // three formulas, which are not written out sixteen times
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
  DeviceImage<Storage> result;          // the same, maybe in place
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
