// Masks in the kernels (math/ssim.h defines their meaning), and the sums of their weights.
#pragma once

#include <cstdint>
#include <type_traits>

#include "problem.cuh"
#include "reduce.cuh"

namespace ssim_fused::cuda {

// The type of a mask in memory, which is known at run time only.
enum class WeightType : int { boolean, SSIM_FOR_FLOAT_PIXELS(SSIM_PIXEL_NAME) };

// The weights of a batch's pixels, with strides as in DeviceImage. A mask with one channel has a channel
// stride of 0. Null data means that there is no mask.
struct Weights {
  const void* data = nullptr;
  int64_t stride[4] = {};
  int64_t slice_stride = 0;
  WeightType type = WeightType::float32;

  SSIM_DEVICE int64_t offset(int64_t batch, int64_t channel, int64_t slice, int64_t row,
                             int64_t column) const {
    return batch * stride[0] + channel * stride[1] + slice * slice_stride + row * stride[2] +
           column * stride[3];
  }
  // Returns the weight at an offset. Weights that are not positive, NaN included, count as zero.
  template <class T>
  SSIM_DEVICE T at(int64_t offset) const {
    const T weight = stored<T>(offset);
    return weight > T(0) ? weight : T(0);
  }

 private:
  template <class T>
  SSIM_DEVICE T stored(int64_t i) const {
    switch (type) {  // float32, the most common type, is the fall-through: one comparison less
      case WeightType::boolean:
        return static_cast<const uint8_t*>(data)[i] != 0 ? T(1) : T(0);
#define SSIM_CASE(name, Stored, scalar)                 \
  case WeightType::name:                                \
    if constexpr (std::is_same_v<Stored, float>) break; \
    return static_cast<T>(to_compute(static_cast<const Stored*>(data)[i]));
        SSIM_FOR_FLOAT_PIXELS(SSIM_CASE)
#undef SSIM_CASE
    }
    return static_cast<T>(static_cast<const float*>(data)[i]);
  }
};

template <class Storage>
struct MaskedProblem : Problem<Storage> {
  Weights mask;
  bool weighs_windows;      // otherwise the mask weights only the outputs in the means
  const double* mask_sums;  // [B, kMaskSums]

  // Returns the weight of the pixel that a position reads. Zero padding has weight 1.
  template <class T>
  SSIM_DEVICE T weight(int64_t image, int64_t channel, int slice, int row, int column) const {
    if (slice < 0 || row < 0 || column < 0) return T(1);
    return mask.template at<T>(mask.offset(image, channel, slice, row, column));
  }
  // Returns the factor of an output's weight, or of a pixel's weight in the pixel term, in its mean: 1 / (sum
  // of weights).
  template <class T>
  SSIM_DEVICE T share(int64_t image, int sum) const;
};

template <class Storage, bool Masked>
using ProblemOf = std::conditional_t<Masked, MaskedProblem<Storage>, Problem<Storage>>;

// ---------------------------------------------------------------------------------------------------------
// Sums

template <class Storage>
template <class T>
SSIM_DEVICE T MaskedProblem<Storage>::share(int64_t image, int sum) const {
  const double total = mask_sums[image * kMaskSums + sum];
  return total > 0 ? static_cast<T>(1 / total) : T(0);
}

struct MaskSumParams {
  Weights mask;
  DeviceAxis depth, rows, columns;
  int64_t rows_of_image;  // rows of all channels and slices of the mask
  int64_t blocks;         // blocks per image
  double* sums;           // [B, blocks, kMaskSums]
};

constexpr int kMaskSumsShared = kReduceThreads / kWarpSize * kMaskSums * sizeof(double);

// Returns the number of outputs centred on a pixel. Padding by more than the radius also reflects centres.
SSIM_DEVICE int outputs_at(const DeviceAxis& axis, int i) {
  int count = axis.has_output_at(i) ? 1 : 0;
  if (!axis.reflects) return count;
  if (i >= 1 && axis.has_output_at(-i)) ++count;
  if (i <= axis.n - 2 && axis.has_output_at(2 * (axis.n - 1) - i)) ++count;
  return count;
}

// Sums the weights of a mask, one warp per row.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
mask_sums_kernel(SSIM_PARAMS MaskSumParams p) {
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x / p.blocks, block = blockIdx.x - image * p.blocks;
  constexpr int kWarps = kReduceThreads / kWarpSize;
  double sums[kMaskSums] = {};
  for (int64_t line = block * kWarps + thread / kWarpSize; line < p.rows_of_image;
       line += p.blocks * kWarps) {
    const int row = static_cast<int>(line % p.rows.n), slice = static_cast<int>(line / p.rows.n % p.depth.n);
    const int64_t channel = line / p.rows.n / p.depth.n;
    const int outputs = outputs_at(p.depth, slice) * outputs_at(p.rows, row);
    const bool counts = p.depth.is_in_crop_at(slice) && p.rows.is_in_crop_at(row);
    for (int column = thread % kWarpSize; column < p.columns.n; column += kWarpSize) {
      const double weight = p.mask.at<T>(p.mask.offset(image, channel, slice, row, column));
      sums[kAllOutputs] += outputs * outputs_at(p.columns, column) * weight;
      if (counts && p.columns.is_in_crop_at(column)) sums[kCroppedOutputs] += weight;
      sums[kAllPixels] += weight;
    }
  }
  add_up_block<kReduceThreads>(sums, reinterpret_cast<double*>(shared_memory()),
                               p.sums + (image * p.blocks + block) * kMaskSums, thread);
}

struct MaskTotalParams {
  const double* sums;  // [B, blocks, kMaskSums]
  int64_t blocks;
  double shared;   // channels that share one channel of the mask
  double* totals;  // [B, kMaskSums]
};

// Adds up the sums of all blocks, one block per image.
template <int kThreads>
SSIM_KERNEL(kThreads, 1)
mask_totals_kernel(SSIM_PARAMS MaskTotalParams p) {
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x;
  double totals[kMaskSums] = {};
  for (int64_t block = thread; block < p.blocks; block += kThreads) {
    for (int n = 0; n < kMaskSums; ++n)
      totals[n] += p.shared * p.sums[(image * p.blocks + block) * kMaskSums + n];
  }
  add_up_block<kThreads>(totals, reinterpret_cast<double*>(shared_memory()), p.totals + image * kMaskSums,
                         thread);
}

}  // namespace ssim_fused::cuda
