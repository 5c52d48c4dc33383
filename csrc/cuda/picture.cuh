// What all kernels share: the images they read and write, the pivot, and the sums of a block and of an image.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../math/geometry.h"
#include "../math/ssim.h"
#include "device.cuh"

namespace ssim_fused {

template <class Storage>
using ComputeOf = std::conditional_t<std::is_same_v<Storage, double>, double, float>;

// Positions along an axis fit 32 bits; offsets into an image do not.
using DeviceAxis = BasicAxis<int>;
constexpr int64_t kMaxAxis = int64_t{1} << 27;  // so that positions, and eight rows of them, fit 32 bits

// A batch of planes or volumes; strides in elements: batch, channel, row, column; and slice. No data: the
// image is not wanted.
template <class Storage>
struct Picture {
  Storage* data = nullptr;
  int64_t stride[4] = {};
  int64_t slice_stride = 0;

  SSIM_DEVICE int64_t plane_offset(int64_t batch, int64_t channel, int64_t slice = 0) const {
    return batch * stride[0] + channel * stride[1] + slice * slice_stride;
  }
  SSIM_DEVICE Storage* plane(int64_t batch, int64_t channel) const {
    return data + plane_offset(batch, channel);
  }
};

// c1 or c2 as the formula takes it: what is positive stays so in the float reciprocal, which takes denormals
// for zero.
SSIM_DEVICE float formula_constant(float c) {
  constexpr float kLeastNormal = 1.17549435e-38f;
  return c > 0 && c < kLeastNormal ? kLeastNormal : c;
}
SSIM_DEVICE double formula_constant(double c) { return c; }

// Upstream gradient of one mean, as a weight for each output of image b.
template <class T>
struct Weight {
  const T* values = nullptr;  // [B], absent: ones
  int64_t stride = 0;
  double scale = 0;

  SSIM_DEVICE T of(int64_t b) const {
    return static_cast<T>(values ? static_cast<double>(values[b * stride]) * scale : scale);
  }
};

// What is asked for, as the kernels see it.
template <class Storage>
struct Problem {
  using T = ComputeOf<Storage>;
  Picture<const Storage> preds, target;
  DeviceAxis depth, rows, columns;  // an image is a volume of one slice, with a window of one tap
  int64_t batch, channels;
  T c1, c2;
  const T* constants;                    // [2], in place of c1 and c2 where given
  Weight<T> of_similarity, of_contrast;  // of each output in the derivatives
  Picture<const Storage> grad_map;       // added to the former, where given
  Picture<Storage> map;                  // outputs, where wanted
  Picture<Storage> grad_preds, grad_target;
  bool wants_constants;  // derivatives by c1 and c2 in the sums
  double* partial;       // [blocks, sums], the blocks of an image one after the other
};

// Sixteen bytes of pixels, the unit of memory transactions.
template <class Storage>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(Storage);
  Storage value[kSize];
};

// The sums a block keeps, in this order; `kWithConstants` of them where derivatives by c1 and c2 are wanted.
enum Sum { kSimilarity, kContrastSensitivity, kByC1, kByC2, kWithConstants, kMeans = kByC1 };

// The median of the samples of a warp's first kSamples lanes, so that neither an outlier nor a NaN can be
// chosen, or zero, from which no pixel is rounded, where they lie on both sides of it. The result is in every
// lane.
template <int kSamples, class T>
SSIM_DEVICE T median_or_zero(T sample, int lane) {
  const int finite = lane < kSamples && sample - sample == T(0);
  int count = 0, rank = 0;
  bool some_below = false, some_above = false;
  for (int k = 0; k < kSamples; ++k) {
    const T other = shuffle(sample, k);
    if (!shuffle(finite, k)) continue;  // the same in every lane
    ++count;
    some_below |= other <= T(0);
    some_above |= other >= T(0);
    rank += other < sample || (other == sample && k < lane);
  }
  T pivot = T(0);
  for (int k = 0; k < kSamples; ++k) {
    const T candidate = shuffle(sample, k);
    if (shuffle(finite && rank == count / 2 ? 1 : 0, k)) pivot = candidate;
  }
  return some_below && some_above ? T(0) : pivot;
}

// A value near the mean of target's rectangle [row, row + rows) x [column, column + columns), from nine
// pixels. For one warp.
template <class Storage>
SSIM_DEVICE ComputeOf<Storage> choose_pivot(const Storage* plane, int64_t row_stride, int64_t column_stride,
                                            int row, int rows, int column, int columns, int lane) {
  using T = ComputeOf<Storage>;
  constexpr int kSamples = 9;
  T sample = T(0);
  if (lane < kSamples) {
    const int64_t i = row + static_cast<int64_t>(rows) * (lane / 3 + 1) / 4;
    const int64_t j = column + static_cast<int64_t>(columns) * (lane % 3 + 1) / 4;
    sample = to_compute(plane[i * row_stride + j * column_stride]);
  }
  return median_or_zero<kSamples>(sample, lane);
}

// Adds up `sums` over a block of kThreads threads, always in the same order, into out[0, N). Every thread of
// the block calls it; `scratch` is shared memory for N doubles of each warp.
template <int kThreads, int N>
SSIM_DEVICE void add_up_block(double (&sums)[N], double* scratch, double* out, int thread) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int lanes = 16; lanes > 0; lanes /= 2) sums[n] += shuffle_down(sums[n], lanes);
    if (thread % 32 == 0) scratch[thread / 32 * N + n] = sums[n];
  }
  __syncthreads();
  if (thread < N) {
    double sum = 0;
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += scratch[warp * N + thread];
    out[thread] = sum;
  }
}

// ---------------------------------------------------------------------------------------------------------
// From the blocks' sums to results of each image

template <class T>
struct ReduceParams {
  const double* partial;    // [B, blocks, sums]
  int64_t blocks;           // of one image
  int sums;                 // kMeans or kWithConstants
  double outputs, cropped;  // of one image, over which the means are taken
  T* similarity;            // [B]
  T* contrast_sensitivity;  // [B]
  T* grad_constants;        // [B, 2]; an output not wanted is null
};

constexpr int kReduceThreads = 256;

// One block for each image.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
reduce_kernel(SSIM_PARAMS ReduceParams<T> p) {
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  double* const total = scratch + kReduceThreads / 32 * kWithConstants;
  const double* const partial = p.partial + image * p.blocks * p.sums;
  double sums[kWithConstants] = {};
  for (int64_t block = thread; block < p.blocks; block += kReduceThreads) {
    for (int n = 0; n < kWithConstants; ++n) {
      if (n < p.sums) sums[n] += partial[block * p.sums + n];
    }
  }
  add_up_block<kReduceThreads>(sums, scratch, total, thread);
  __syncthreads();
  if (thread != 0) return;
  if (p.similarity) p.similarity[image] = static_cast<T>(total[kSimilarity] / p.outputs);
  if (p.contrast_sensitivity) {
    p.contrast_sensitivity[image] = static_cast<T>(total[kContrastSensitivity] / p.cropped);
  }
  if (p.grad_constants) {
    p.grad_constants[2 * image] = static_cast<T>(total[kByC1]);
    p.grad_constants[2 * image + 1] = static_cast<T>(total[kByC2]);
  }
}

constexpr int kReduceShared = (kReduceThreads / 32 + 1) * kWithConstants * sizeof(double);

}  // namespace ssim_fused
