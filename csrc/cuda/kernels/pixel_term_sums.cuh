// Sums the pixel term (math/pixel_term.h) in a separate pass over both images, one warp per row. Needed where
// the march does not sum it; training on images with windows of at most 11 taps does (strip/gradient.cuh).
#pragma once

#include <cstdint>

#include "mask.cuh"
#include "problem.cuh"
#include "reduce.cuh"

namespace ssim_fused::cuda {

template <class Storage, bool Masked>
struct PixelTermSumParams {
  DeviceImage<const Storage> preds, target;
  PixelTermParams<ComputeOf<Storage>> term;
  int64_t rows_of_image;  // rows of all channels and slices
  int depth, rows, columns;
  int64_t blocks;  // blocks per image
  double* sums;    // [B, blocks]
  Weights mask;    // used if `Masked`
};

// Blocks per SM for the launch bounds, which limit a thread to 64 registers. The launch has eight blocks per
// SM, so that other warps run while one waits for its row.
constexpr int kPixelTermSumsBlocks = 4;
constexpr int kPixelTermSumsShared = kReduceThreads / kWarpSize * sizeof(double);

template <class Storage, bool Masked>
SSIM_KERNEL(kReduceThreads, kPixelTermSumsBlocks)
pixel_term_sums_kernel(SSIM_PARAMS PixelTermSumParams<Storage, Masked> p) {
  using T = ComputeOf<Storage>;
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x / p.blocks, block = blockIdx.x - image * p.blocks;
  constexpr int kWarps = kReduceThreads / kWarpSize;
  double sums[1] = {};
  for (int64_t line = block * kWarps + thread / kWarpSize; line < p.rows_of_image;
       line += p.blocks * kWarps) {
    const int64_t row = line % p.rows, slice = line / p.rows % p.depth, channel = line / p.rows / p.depth;
    const auto x = p.preds.plane(image, channel) + (slice * p.preds.slice_stride + row * p.preds.stride[2]);
    const auto y =
        p.target.plane(image, channel) + (slice * p.target.slice_stride + row * p.target.stride[2]);
    T sum = T(0);
// Two pixels of each image in flight suffice with the warps of four blocks. Four would exceed the registers.
#pragma unroll 2
    for (int64_t column = thread % kWarpSize; column < p.columns; column += kWarpSize) {
      const T x_here = to_compute(x[column * p.preds.stride[3]]),
              y_here = to_compute(y[column * p.target.stride[3]]);
      if constexpr (Masked) {
        const T weight = p.mask.template at<T>(p.mask.offset(image, channel, slice, row, column));
        sum += p.term.masked(x_here, y_here, weight).value;
      } else {
        sum += p.term.of(x_here, y_here).value;
      }
    }
    sums[0] += static_cast<double>(sum);
  }
  add_up_block<kReduceThreads>(sums, reinterpret_cast<double*>(shared_memory()),
                               p.sums + image * p.blocks + block, thread);
}

}  // namespace ssim_fused::cuda
