// The sums of a block, always added up in the same order; and from the blocks' sums to results of each image,
// or of the batch.
#pragma once

#include <cstdint>

#include "../../math/pass.h"
#include "device.cuh"

namespace ssim_fused::cuda {

// The sums of a mask's weights, of each image: over its outputs, over those in the crop, over its pixels.
enum MaskSum { kAllOutputs, kCroppedOutputs, kAllPixels, kMaskSums };

// Where a launch leaves its sums: a ticket, by which the blocks of the reduction know which of them is the
// last, and which the first block of the launch before sets to zero; the images; the blocks of an image one
// after the other.
struct BlockSums {
  double* scratch;  // [1 + B + blocks * sums]

  static SSIM_HOST_DEVICE int64_t size(int64_t batch, int64_t blocks, int sums) {
    return 1 + batch + blocks * sums;
  }
  SSIM_HOST_DEVICE unsigned* ticket() const { return reinterpret_cast<unsigned*>(scratch); }
  SSIM_HOST_DEVICE double* images() const { return scratch + 1; }
  SSIM_HOST_DEVICE double* blocks(int64_t batch) const { return scratch + 1 + batch; }
};

// Adds up `sums` over a warp, into out[0, N).
template <int N>
SSIM_DEVICE void add_up_warp(double (&sums)[N], double* out, int thread) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) sums[n] += shuffle_down(sums[n], lanes);
    if (thread % kWarpSize == 0) out[n] = sums[n];
  }
}

// The n-th of N sums of kWarps warps.
template <int kWarps, int N>
SSIM_DEVICE double add_up_warps(const double* warps, int n) {
  double sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += warps[warp * N + n];
  return sum;
}

// Adds up `sums` over a block of kThreads threads, always in the same order, into out[0, N). Every thread of
// the block calls it; `scratch` is shared memory for N doubles of each warp.
template <int kThreads, int N>
SSIM_DEVICE void add_up_block(double (&sums)[N], double* scratch, double* out, int thread) {
  add_up_warp(sums, scratch + thread / kWarpSize * N, thread);
  __syncthreads();
  if (thread < N) out[thread] = add_up_warps<kThreads / kWarpSize, N>(scratch, thread);
}

// The same into block `block` of a launch for `batch` images.
template <int kThreads, int N>
SSIM_DEVICE void write_block_sums(double (&sums)[N], double* scratch, const BlockSums& to, int64_t batch,
                                  int64_t block, int thread) {
  add_up_block<kThreads>(sums, scratch, to.blocks(batch) + block * N, thread);
  if (blockIdx.x == 0 && thread == 0) *to.ticket() = 0;
}

// The sums of the term of single pixels.
struct PixelTermSums {
  const double* sums = nullptr;    // [B, blocks], `stride` apart; null: there is no term
  int64_t blocks = 0, stride = 0;  // blocks of one image
  double pixels = 1;               // of one image
};

// What becomes of the term of single pixels in the results.
template <class T>
struct PixelTermResults {
  double mean_weight = 0, ssim_weight = 1;  // in the value: of the pixels' mean, and of SSIM's distance
  T* terms = nullptr;                       // [B, 2]: mean and distance, where wanted

  // An image's value, from its pixels' mean and SSIM's distance; writes the terms.
  SSIM_DEVICE double value(int64_t image, double mean, double distance) const {
    if (terms) {
      terms[2 * image] = static_cast<T>(mean);
      terms[2 * image + 1] = static_cast<T>(distance);
    }
    return mean_weight * mean + ssim_weight * distance;
  }
};

constexpr int kReduceThreads = 256;
constexpr int kReduced = kWithConstants + 1;  // sums: the pixels' is the last

// What a pass leaves: the sums of the blocks of each image, and what the means are taken over.
struct PassSums {
  BlockSums sums;
  int64_t batch, blocks;    // of one image
  int count;                // of a block's sums: kMeans or kWithConstants
  double outputs, cropped;  // of one image, over which the means are taken
  PixelTermSums pixel_term;
  const double* mask_sums;  // [B, kMaskSums], by which means are taken where there is a mask

  // Adds those of every kReduceThreads-th block of an image, from `first` on.
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

  // An image's means, from its sums.
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
  // Nothing is what an empty mask lets be seen, and is alike; where there are no outputs at all, there is no
  // mean either.
  SSIM_DEVICE double mean_of(int64_t image, double sum, double of, MaskSum which) const {
    if (!mask_sums || of == 0) return sum / of;
    const double weight = mask_sums[image * kMaskSums + which];
    return weight > 0 ? sum / weight : 0.0;
  }
};

// One number for the batch: the sum of the images' values, in their order, times `scale`, made by the last of
// their blocks to be done. Every thread of a block calls it, the first with the value of its image; `scratch`
// is as for add_up_block, `total` shared memory of one double that only the first has read.
template <class T>
SSIM_DEVICE void add_up_images(const BlockSums& sums, int64_t batch, double value, double scale, T* to,
                               double* scratch, double* total, int thread) {
  if (thread == 0) {
    sums.images()[blockIdx.x] = value;
    total[0] = next_ticket(sums.ticket());
  }
  __syncthreads();
  if (total[0] != static_cast<double>(batch - 1)) return;
  // add_up_block has a barrier between this read of `total` and its own write to it.
  double sum[1] = {};
  for (int64_t b = thread; b < batch; b += kReduceThreads) sum[0] += load_fresh(sums.images() + b);
  add_up_block<kReduceThreads>(sum, scratch, total, thread);
  if (thread == 0) *to = static_cast<T>(total[0] * scale);
}

template <class T>
struct ReduceParams {
  PassSums pass;
  bool as_distance;     // one minus similarity and contrast sensitivity
  double scale;         // of the number for the batch: 1, or 1 / B
  T* similarity;        // [B]
  T* batch_similarity;  // [1]: their sum, times `scale`
  T* contrast;          // [B]
  T* grad_constants;    // [B, 2]; an output not wanted is null
  PixelTermResults<T> pixel_term;
};

// One block for each image.
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
  sync_warp();  // thread 0 reads what other threads of its warp wrote to `total`
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
