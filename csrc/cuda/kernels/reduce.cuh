// The sums of a block, always added up in the same order; and from the blocks' sums to results of each image,
// or of the batch.
#pragma once

#include <cstdint>

#include "device.cuh"

namespace ssim_fused::cuda {

// The sums a block keeps, in this order: what similarity and contrast sensitivity lack to one, since that has
// digits where it is tiny; and derivatives of the similarity and of the contrast sensitivity by the
// constants, weighed as the gradients are. `kWithConstants` of them where those are wanted.
enum Sum { kSimilarityLoss, kContrastLoss, kByC1, kByC2, kWithConstants, kMeans = kByC1 };

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

// The same into block `block` of a launch for `batch` images.
template <int kThreads, int N>
SSIM_DEVICE void write_block_sums(double (&sums)[N], double* scratch, const BlockSums& to, int64_t batch,
                                  int64_t block, int thread) {
  add_up_block<kThreads>(sums, scratch, to.blocks(batch) + block * N, thread);
  if (blockIdx.x == 0 && thread == 0) *to.ticket() = 0;
}

// The term of single pixels in the results: its sums, and what becomes of them.
template <class T>
struct PixelResults {
  const double* sums = nullptr;             // [B, blocks], `stride` apart; null: there is no term
  int64_t blocks = 0, stride = 0;           // blocks of one image
  double pixels = 1;                        // of one image
  double mean_weight = 0, ssim_weight = 1;  // in the value: of the pixels' mean, and of SSIM's distance
  T* means = nullptr;                       // [B]; outputs not wanted are null
  T* terms = nullptr;                       // [B, 2]: mean and distance

  // An image's value, from its pixels' mean and SSIM's distance; writes the terms.
  SSIM_DEVICE double value(int64_t image, double mean, double distance) const {
    if (terms) {
      terms[2 * image] = static_cast<T>(mean);
      terms[2 * image + 1] = static_cast<T>(distance);
    }
    return mean_weight * mean + ssim_weight * distance;
  }
};

template <class T>
struct ReduceParams {
  BlockSums sums;
  int64_t batch, blocks;    // of one image
  int count;                // of a block's sums: kMeans or kWithConstants
  double outputs, cropped;  // of one image, over which the means are taken
  bool as_distance;         // one minus similarity and contrast sensitivity
  double scale;             // of the number for the batch: 1, or 1 / B
  T* similarity;            // [B]
  T* batch_similarity;      // [1]: their sum, times `scale`
  T* contrast;              // [B]
  T* grad_constants;        // [B, 2]; an output not wanted is null
  PixelResults<T> pixels;
  const double* mask_sums;  // [B, 3] (mask.cuh), by which means are taken where there is a mask
};

constexpr int kReduceThreads = 256;
constexpr int kReduced = kWithConstants + 1;  // sums: the pixels' is the last

// One block for each image. The last one to be done adds up the images, in their order.
template <class T>
SSIM_KERNEL(kReduceThreads, 1)
reduce_kernel(SSIM_PARAMS ReduceParams<T> p) {
  const int thread = threadIdx.x;
  const int64_t image = blockIdx.x;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  double* const total = scratch + kReduceThreads / 32 * kReduced;
  const double* const partial = p.sums.blocks(p.batch) + image * p.blocks * p.count;
  double sums[kReduced] = {};
  for (int64_t block = thread; block < p.blocks; block += kReduceThreads) {
    for (int n = 0; n < kWithConstants; ++n) {
      if (n < p.count) sums[n] += partial[block * p.count + n];
    }
  }
  for (int64_t block = thread; p.pixels.sums && block < p.pixels.blocks; block += kReduceThreads)
    sums[kWithConstants] += p.pixels.sums[(image * p.pixels.blocks + block) * p.pixels.stride];
  add_up_block<kReduceThreads>(sums, scratch, total, thread);
  __syncthreads();
  const auto result = [&](double loss) { return p.as_distance ? loss : 1 - loss; };
  // Nothing is what an empty mask lets be seen, and is alike; where there are no outputs at all, there is no
  // mean either.
  const auto mean_of = [&](double sum, double count, int which) {
    if (!p.mask_sums || count == 0) return sum / count;
    const double weight = p.mask_sums[image * 3 + which];
    return weight > 0 ? sum / weight : 0.0;
  };
  if (thread == 0) {
    double similarity = result(mean_of(total[kSimilarityLoss], p.outputs, 0));
    if (p.pixels.sums) {
      const double mean = mean_of(total[kWithConstants], p.pixels.pixels, 2);
      if (p.pixels.means) p.pixels.means[image] = static_cast<T>(mean);
      similarity = p.pixels.value(image, mean, similarity);
    }
    if (p.similarity) p.similarity[image] = static_cast<T>(similarity);
    if (p.contrast) p.contrast[image] = static_cast<T>(result(mean_of(total[kContrastLoss], p.cropped, 1)));
    if (p.grad_constants) {
      p.grad_constants[2 * image] = static_cast<T>(total[kByC1]);
      p.grad_constants[2 * image + 1] = static_cast<T>(total[kByC2]);
    }
    if (p.batch_similarity) {
      p.sums.images()[image] = similarity;
      total[0] = next_ticket(p.sums.ticket());
    }
  }
  if (!p.batch_similarity) return;
  __syncthreads();
  if (total[0] != static_cast<double>(p.batch - 1)) return;
  __syncthreads();  // `total` has been read
  double batch[1] = {};
  for (int64_t b = thread; b < p.batch; b += kReduceThreads) batch[0] += load_fresh(p.sums.images() + b);
  add_up_block<kReduceThreads>(batch, scratch, total, thread);
  if (thread == 0) *p.batch_similarity = static_cast<T>(total[0] * p.scale);
}

constexpr int kReduceShared = (kReduceThreads / 32 + 1) * kReduced * sizeof(double);

}  // namespace ssim_fused::cuda
