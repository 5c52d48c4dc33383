// Sums over blocks, added up in a fixed order, and the kernel that turns the sums of all blocks into the
// results of each image or of the batch.
#pragma once

#include <cstdint>

#include "../../math/pass.h"
#include "device.cuh"

namespace ssim_fused::cuda {

// Sums of the mask's weights of each image: over its outputs, over its outputs in the crop, over its pixels.
enum MaskSum { kAllOutputs, kCroppedOutputs, kAllPixels, kMaskSums };

// The memory for the sums of a launch: a ticket counter, the values of the images, and the sums of the
// blocks, those of an image being consecutive. The reduction's blocks draw tickets to find out which of them
// is last; the first block of the launch that writes the sums resets the counter.
struct BlockSums {
  double* scratch;  // [1 + B + blocks * sums]

  static SSIM_HOST_DEVICE int64_t size(int64_t batch, int64_t blocks, int sums) {
    return 1 + batch + blocks * sums;
  }
  SSIM_HOST_DEVICE unsigned* ticket() const { return reinterpret_cast<unsigned*>(scratch); }
  SSIM_HOST_DEVICE double* images() const { return scratch + 1; }
  SSIM_HOST_DEVICE double* blocks(int64_t batch) const { return scratch + 1 + batch; }
};

// Adds up `sums` over a warp, in a fixed order, and writes them to out[0, N).
template <int N>
SSIM_DEVICE void add_up_warp(double (&sums)[N], double* out, int thread) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) sums[n] += shuffle_down(sums[n], lanes);
    if (thread % kWarpSize == 0) out[n] = sums[n];
  }
}

// Returns the n-th of N sums, added up over kWarps warps.
template <int kWarps, int N>
SSIM_DEVICE double add_up_warps(const double* warps, int n) {
  double sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += warps[warp * N + n];
  return sum;
}

// Adds up `sums` over a block of kThreads threads, in a fixed order, and writes them to out[0, N). All
// threads of the block must call it. `scratch` is shared memory for N doubles per warp.
template <int kThreads, int N>
SSIM_DEVICE void add_up_block(double (&sums)[N], double* scratch, double* out, int thread) {
  add_up_warp(sums, scratch + thread / kWarpSize * N, thread);
  __syncthreads();
  if (thread < N) out[thread] = add_up_warps<kThreads / kWarpSize, N>(scratch, thread);
}

// Adds up `sums` over block `block` of a launch for `batch` images, and writes them to its part of `to`.
template <int kThreads, int N>
SSIM_DEVICE void write_block_sums(double (&sums)[N], double* scratch, const BlockSums& to, int64_t batch,
                                  int64_t block, int thread) {
  add_up_block<kThreads>(sums, scratch, to.blocks(batch) + block * N, thread);
  if (blockIdx.x == 0 && thread == 0) *to.ticket() = 0;
}

// The sums of the pixel term.
struct PixelTermSums {
  const double* sums = nullptr;    // [B, blocks], `stride` apart; null: no pixel term
  int64_t blocks = 0, stride = 0;  // blocks per image
  double pixels = 1;               // pixels per image
};

// How the pixel term enters the results.
template <class T>
struct PixelTermResults {
  double mean_weight = 0, ssim_weight = 1;  // weights of mean phi and of SSIM's distance in the value
  T* terms = nullptr;                       // [B, 2]: mean phi and distance, or null

  // Returns the value of an image from the mean of its pixel term and its distance, and writes these terms.
  SSIM_DEVICE double value(int64_t image, double mean, double distance) const {
    if (terms) {
      terms[2 * image] = static_cast<T>(mean);
      terms[2 * image + 1] = static_cast<T>(distance);
    }
    return mean_weight * mean + ssim_weight * distance;
  }
};

constexpr int kReduceThreads = 256;
constexpr int kReduced = kWithConstants + 1;  // the sums of outputs, and that of the pixel term

// The output of a pass: the sums of the blocks of each image, and the number of outputs that they are divided
// by.
struct PassSums {
  BlockSums sums;
  int64_t batch, blocks;    // blocks per image
  int count;                // sums per block: kMeans or kWithConstants
  double outputs, cropped;  // outputs per image, and those in the crop
  PixelTermSums pixel_term;
  const double* mask_sums;  // [B, kMaskSums]: with a mask, the divisors of the means

  // Adds the sums of every kReduceThreads-th block of an image, starting with `first`, to `to`.
  SSIM_DEVICE void add_blocks(int64_t image, int64_t first, double (&to)[kReduced]) const {
    const double* const partial = sums.blocks(batch) + image * blocks * count;
    for (int64_t block = first; block < blocks; block += kReduceThreads) {
      for (int n = 0; n < kWithConstants; ++n) {
        if (n < count) to[n] += partial[block * count + n];
      }
    }
    for (int64_t block = first; pixel_term.sums && block < pixel_term.blocks; block += kReduceThreads)
      to[kWithConstants] += pixel_term.sums[(image * pixel_term.blocks + block) * pixel_term.stride];
  }

  // The means of an image, from its sums.
  SSIM_DEVICE double similarity_loss(int64_t image, const double* total) const {
    return mean_of(image, total[kSimilarityLoss], outputs, kAllOutputs);
  }
  SSIM_DEVICE double contrast_loss(int64_t image, const double* total) const {
    return mean_of(image, total[kContrastLoss], cropped, kCroppedOutputs);
  }
  SSIM_DEVICE double pixel_mean(int64_t image, const double* total) const {
    return mean_of(image, total[kWithConstants], pixel_term.pixels, kAllPixels);
  }

 private:
  // An empty mask compares nothing, so its distance is 0. Without any outputs, the mean is 0 / 0.
  SSIM_DEVICE double mean_of(int64_t image, double sum, double of, MaskSum which) const {
    if (!mask_sums || of == 0) return sum / of;
    const double weight = mask_sums[image * kMaskSums + which];
    return weight > 0 ? sum / weight : 0.0;
  }
};

// Adds up the values of all images, in their order, times `scale`, in the block that finishes last. All
// threads of each block must call it, thread 0 with the value of the block's image. `scratch` is that of
// add_up_block. `total` is one double in shared memory. Threads other than 0 must not have read it since the
// last barrier.
template <class T>
SSIM_DEVICE void add_up_images(const BlockSums& sums, int64_t batch, double value, double scale, T* to,
                               double* scratch, double* total, int thread) {
  if (thread == 0) {
    sums.images()[blockIdx.x] = value;
    total[0] = next_ticket(sums.ticket());
  }
  __syncthreads();
  if (total[0] != static_cast<double>(batch - 1)) return;
  // The barrier in add_up_block separates this read of `total` from its next write.
  double sum[1] = {};
  for (int64_t b = thread; b < batch; b += kReduceThreads) sum[0] += load_fresh(sums.images() + b);
  add_up_block<kReduceThreads>(sum, scratch, total, thread);
  if (thread == 0) *to = static_cast<T>(total[0] * scale);
}

template <class T>
struct ReduceParams {
  PassSums pass;
  bool as_distance;     // return 1 - similarity and 1 - contrast sensitivity
  double scale;         // of the batch's value: 1 for a sum, 1 / B for a mean
  T* similarity;        // [B]
  T* batch_similarity;  // [1]: the sum of `similarity`, times `scale`
  T* contrast;          // [B]
  T* grad_constants;    // [B, 2]; results that are not requested are null
  PixelTermResults<T> pixel_term;
};

// Computes the results of an image from its sums. One block per image.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
reduce_kernel(SSIM_PARAMS ReduceParams<T> p) {
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  double* const total = scratch + kReduceThreads / kWarpSize * kReduced;
  double sums[kReduced] = {};
  p.pass.add_blocks(image, thread, sums);
  add_up_block<kReduceThreads>(sums, scratch, total, thread);
  sync_warp();  // thread 0 reads what other threads of its warp wrote
  static_assert(kReduced <= kWarpSize);
  const auto result = [&](double loss) { return p.as_distance ? loss : 1 - loss; };
  double similarity = 0;
  if (thread == 0) {
    similarity = result(p.pass.similarity_loss(image, total));
    if (p.pass.pixel_term.sums)
      similarity = p.pixel_term.value(image, p.pass.pixel_mean(image, total), similarity);
    if (p.similarity) p.similarity[image] = static_cast<T>(similarity);
    if (p.contrast) p.contrast[image] = static_cast<T>(result(p.pass.contrast_loss(image, total)));
    if (p.grad_constants) {
      p.grad_constants[2 * image] = static_cast<T>(total[kByC1]);
      p.grad_constants[2 * image + 1] = static_cast<T>(total[kByC2]);
    }
  }
  if (p.batch_similarity)
    add_up_images(p.pass.sums, p.pass.batch, similarity, p.scale, p.batch_similarity, scratch, total, thread);
}

constexpr int kReduceShared = (kReduceThreads / kWarpSize + 1) * kReduced * sizeof(double);

}  // namespace ssim_fused::cuda
