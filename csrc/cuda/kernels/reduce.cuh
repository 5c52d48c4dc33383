// The sums of a block, always added up in the same order; and from the blocks' sums to results of each image.
#pragma once

#include <cstdint>

#include "device.cuh"

namespace ssim_fused::cuda {

// The sums a block keeps, in this order; `kWithConstants` of them where derivatives by c1 and c2 are wanted.
enum Sum { kSimilarity, kContrastSensitivity, kByC1, kByC2, kWithConstants, kMeans = kByC1 };

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

}  // namespace ssim_fused::cuda
