// The CUDA kernel for volumes between the two passes of the strip march (strip/march.cuh): it filters the
// moments of slices along the depth, for windows of radius at most 5. Each thread owns a column of depth, one
// (y, x) of the outputs, and marches through the slices, kStepSlices per step:
//
//   1. It copies its own moments of the next step's slices to shared memory, so that it waits neither for
//      memory nor for other threads.
//   2. The window is a filter in registers (fir.cuh), which completes an output; the formula follows.
//   3. The adjoint of the window is a second filter, over the derivatives, whose results are written in place
//      of the moments.
//
// Writing in place is safe: slice i is written after position i + 2 kRadius has been read, and reflection
// reads slice i again at that position at the latest (pad <= kRadius). A march that writes derivatives must
// process the whole depth for this; other marches may split it.
#pragma once

#include <cstdint>

#include "device.cuh"
#include "fir.cuh"
#include "problem.cuh"
#include "reduce.cuh"
#include "slices.cuh"

namespace ssim_fused::cuda {

constexpr int kStepSlices = 4;  // slices per step

// Slices that a split processes before its first output is complete.
constexpr int kDepthWarmUp = 2 * kMarchRadius;

template <class Storage_, GradientsOf gradients, Objective objective, bool Narrow_>
struct DepthConfig {
  using Storage = Storage_;
  using T = ComputeOf<Storage>;
  static constexpr GradientsOf kGradients = gradients;
  static constexpr int kDerivatives = derivative_fields(kGradients), kRadius = kMarchRadius,
                       kTaps = taps_of(kRadius);
  static constexpr bool kGeneral = objective == Objective::general, kNarrow = Narrow_;
  static constexpr Objective kObjective = objective;
  static constexpr int kSums = kGeneral ? int{kWithConstants} : int{kMeans};

  // Shared memory, in bytes: two buffers [slice][field][thread], and the taps in which reflection is folded
  // back. The summation at the end reuses the memory of the taps.
  static constexpr int kBuffer = kStepSlices * kPlainMoments * kDepthThreads * sizeof(T);
  static constexpr int kFoldTaps = kDerivatives > 0 ? kFoldPlaces<kRadius> * (kTaps + 1) * sizeof(T) : 0;
  static constexpr int kSummation = kDepthThreads / kWarpSize * kSums * sizeof(double);
  static constexpr int kFoldTapsAt = 2 * kBuffer;
  static constexpr int kSharedBytes = kFoldTapsAt + (kFoldTaps > kSummation ? kFoldTaps : kSummation);
  static_assert(kFoldTapsAt % 8 == 0);
};

template <class Storage>
struct DepthParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  int64_t slab_volume;   // the first volume in `fields`
  int64_t first_volume;  // the first volume of this launch
  int splits;            // parts of the depth, in different blocks
  int slices_of_split;
  const T* pivots;  // [B * C]
  T* fields;        // [volumes of the slab, D, groups, 4, kGroup] (slices.cuh)
  T slice_sum;      // the sum of the taps of a slice's window
  T taps[taps_of(kMarchRadius)];
};

template <class Config>
class DepthMarch {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Params = DepthParams<Storage>;
  static constexpr int kDerivatives = Config::kDerivatives, kRadius = Config::kRadius, kTaps = Config::kTaps;
  static constexpr int kDerivativesOr1 = kDerivatives > 0 ? kDerivatives : 1;

 public:
  SSIM_DEVICE explicit DepthMarch(const Params& p) : p_(p), thread_(threadIdx.x) {
    const SliceLayout layout(p.rows, p.columns);
    const int64_t across = layout.blocks();
    const int64_t pixel = blockIdx.x % across * kDepthThreads + thread_, rest = blockIdx.x / across;
    const int split = static_cast<int>(rest % p.splits);
    const int64_t volume = p.first_volume + rest / p.splits;
    image_ = volume / p.channels;
    const int64_t channel = volume % p.channels;
    begin_ = split * p.slices_of_split;
    end_ = min(p.depth.n, begin_ + p.slices_of_split);

    const int width = p.columns.output_length();
    const int row = static_cast<int>(pixel / width), column = static_cast<int>(pixel % width);
    is_inside_ = pixel < layout.pixels;
    is_cropped_in_ = is_inside_ && p.rows.is_in_crop(row) && p.columns.is_in_crop(column);
    slice_size_ = layout.slice_size();
    fields_ = p.fields + ((volume - p.slab_volume) * p.depth.n * slice_size_ + SliceLayout::place(pixel));
    if constexpr (Config::kGeneral) {
      const auto place = [&](const auto& array) {
        return array.data ? array.plane(image_, channel) + (row * array.stride[2] + column * array.stride[3])
                          : nullptr;
      };
      map_ = place(p.map);
      grad_map_ = place(p.grad_map);
    }
    pivot_ = p.pivots[volume];
    c1_ = p.constants.c1_of(image_);
    c2_ = p.constants.c2_of(image_);
    of_similarity_ = p.of_similarity.of(image_);
    of_contrast_ = p.of_contrast.of(image_);
  }

  SSIM_DEVICE void run() {
    // Outputs z in [plain_begin, plain_end) count for both means, and no reflection is folded back onto them.
    const int plain_begin = max(begin_, kRadius), plain_end = min(end_, p_.depth.n - kRadius);
    const int first = max(begin_ - kRadius, -p_.depth.pad);
    const int last = end_ + (kDerivatives > 0 ? 2 * kRadius : kRadius);
    stage(first, buffer(0));
    if constexpr (kDerivatives > 0) {
      for (int i = thread_; i < kFoldPlaces<kRadius> * kTaps; i += kDepthThreads) {
        const int place = i / kTaps, k = i % kTaps;
        fold_taps()[place * (kTaps + 1) + k] = fold_tap<kRadius>(p_.depth, p_.taps, place, k);
      }
      __syncthreads();
    }
    int turn = 0;
#pragma unroll 1
    for (int slice = first; slice < last; slice += kStepSlices, turn ^= 1) {
      wait_for_copies();
      if (slice + kStepSlices < last) stage(slice + kStepSlices, buffer(turn ^ 1));
      const T* const from = buffer(turn);
      const int z = slice - kRadius;  // the first output that this step completes
      T step[Config::kSums] = {};
      if (z >= plain_begin && z + kStepSlices <= plain_end) {
#pragma unroll
        for (int s = 0; s < kStepSlices; ++s) output<false>(from, s, z + s, step);
      } else {
#pragma unroll 1
        for (int s = 0; s < kStepSlices; ++s) output<true>(from, s, z + s, step);
      }
#pragma unroll
      for (int n = 0; n < Config::kSums; ++n) totals_[n] += static_cast<double>(step[n]);
    }
    write_sums();
  }

 private:
  SSIM_DEVICE T* buffer(int turn) const {
    return reinterpret_cast<T*>(shared_memory() + turn * Config::kBuffer) + thread_;
  }
  SSIM_DEVICE T* fold_taps() const { return reinterpret_cast<T*>(shared_memory() + Config::kFoldTapsAt); }
  static SSIM_DEVICE int place_in_buffer(int s, int field) {
    return (s * kPlainMoments + field) * kDepthThreads;
  }

  // ---- 1. Moments to shared memory

  SSIM_DEVICE void stage(int slice, T* to) const {
    const bool inside = slice >= 0 && slice + kStepSlices <= p_.depth.n;
#pragma unroll
    for (int s = 0; s < kStepSlices; ++s) {
      const int from = inside ? slice + s : source(slice + s);
      if (from >= 0) {
        const T* const moments = fields_ + from * slice_size_;
#pragma unroll
        for (int f = 0; f < kPlainMoments; ++f)
          copy_async<sizeof(T)>(to + place_in_buffer(s, f), moments + f * kGroup);
        continue;
      }
      // Zero padding: the moments of a slice of zeros about the pivot. Slices that no output reads may have
      // these, too.
      const Moments<T> zero = moments_of_zeros(pivot_, p_.slice_sum);
      to_fields(zero, [&](int f, T value) { to[place_in_buffer(s, f)] = value; });
    }
  }

  // Returns the slice that extended position e reads, or -1 if it reads none.
  SSIM_DEVICE int source(int e) const {
    return e < -p_.depth.pad || e >= p_.depth.n + p_.depth.pad ? -1 : p_.depth.source(e);
  }

  // ---- 2. and 3. Down the depth

  // Adds the moments of one slice, which completes output z and, if derivatives are filtered, slice z -
  // kRadius. `Edge`: z may be any output; otherwise it is owned and counts for both means, and reflection
  // does not reach it.
  template <bool Edge>
  SSIM_DEVICE void output(const T* from, int s, int z, T (&step)[Config::kSums]) {
    const T* const taps = p_.taps;
    const int radius = p_.depth.radius;
    T complete[kPlainMoments];
#pragma unroll
    for (int f = 0; f < kPlainMoments; ++f) {
      complete[f] = push<Config::kNarrow>(moment_[f], from[place_in_buffer(s, f)], radius,
                                          [&](int k) { return taps[kTaps - 1 - k]; });
    }
    T derivatives[kMostDerivatives] = {};
    if (!Edge || (p_.depth.has_output_at(z) && z >= begin_ && z < end_)) {
      const Partials<T> f = formula(complete, z, !Edge || p_.depth.is_in_crop_at(z), step);
      to_fields<GradientsOf::both>(f, [&](int field, T value) { derivatives[field] = value; });
    }
    if constexpr (kDerivatives > 0) {
      const T* const edge_taps =
          Edge ? fold_taps() + fold_place<kRadius>(p_.depth, z) * (kTaps + 1) : nullptr;
      const int slice = z - kRadius;
      T* const out = fields_ + slice * slice_size_;
#pragma unroll
      for (int f = 0; f < kDerivatives; ++f) {
        const T sum = push<Config::kNarrow>(derivative_[f], derivatives[f], radius,
                                            [&](int k) { return Edge ? edge_taps[k] : taps[k]; });
        if (!Edge || (slice >= 0 && slice < p_.depth.n)) out[f * kGroup] = sum;
      }
    }
  }

  // Applies the formula at output z: adds to the sums, writes the map, and returns the derivatives.
  SSIM_DEVICE Partials<T> formula(const T (&complete)[kPlainMoments], int z, bool counts,
                                  T (&step)[Config::kSums]) {
    const auto terms =
        local_terms(moments_of_fields<T>([&](int f) { return complete[f]; }), pivot_, c1_, c2_);
    step[kSimilarityLoss] += terms.similarity_loss();
    if (counts) step[kContrastLoss] += terms.contrast_loss;
    T weight, of_contrast = T(0);
    if constexpr (Config::kGeneral) {
      weight = of_similarity_;
      of_contrast = counts && is_cropped_in_ ? of_contrast_ : T(0);
      if (is_inside_) {
        const int64_t place = p_.depth.output_at(z);
        if (grad_map_) weight += to_compute(grad_map_[place * p_.grad_map.slice_stride]);
        if (map_) store_as(map_[place * p_.map.slice_stride], terms.similarity());
        if (p_.wants_constants) {
          const auto by = constant_partials(terms, weight, of_contrast);
          step[kByC1] += by.c1;
          step[kByC2] += by.c2;
        }
      }
    } else if constexpr (Config::kObjective == Objective::mean_contrast) {
      weight = counts && is_cropped_in_ ? T(2) * of_contrast_ : T(0);
    } else {
      weight = T(2) * of_similarity_;
    }
    if constexpr (kDerivatives > 0) return objective_partials<Config::kObjective>(terms, weight, of_contrast);
    return {};
  }

  SSIM_DEVICE void write_sums() {
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      if (!(n == kContrastLoss ? is_cropped_in_ : is_inside_)) totals_[n] = 0;
    }
    __syncthreads();  // the summation reuses the memory of the fold taps
    const int64_t first = p_.first_volume * p_.splits * SliceLayout(p_.rows, p_.columns).blocks();
    write_block_sums<kDepthThreads>(totals_, reinterpret_cast<double*>(shared_memory() + Config::kFoldTapsAt),
                                    p_.sums, p_.batch, first + blockIdx.x, thread_);
  }

  const Params& p_;
  const int thread_;
  int64_t image_;
  int begin_, end_;  // owned outputs along the depth
  int64_t slice_size_;
  T* fields_;  // the thread's column, in the volume's first slice and field 0
  bool is_inside_, is_cropped_in_;
  KeptAs<Storage>* map_ = nullptr;             // [D], one column of the map, with its slice stride
  const KeptAs<Storage>* grad_map_ = nullptr;  // [D], that of its upstream gradient
  T pivot_, c1_, c2_, of_similarity_, of_contrast_;
  double totals_[Config::kSums] = {};
  T moment_[kPlainMoments][kTaps - 1] = {}, derivative_[kDerivativesOr1][kTaps - 1] =
                                                {};  // the unfinished sums of both filters
};

template <class Config>
constexpr int kDepthRegisters = sizeof(typename Config::T) == 8            ? 255
                                : Config::kGradients == GradientsOf::none  ? (Config::kGeneral ? 128 : 96)
                                : Config::kGradients == GradientsOf::preds ? (Config::kGeneral ? 168 : 128)
                                                                           : (Config::kGeneral ? 200 : 168);

template <class Config>
SSIM_KERNEL(kDepthThreads, 65536 / (kDepthRegisters<Config> * kDepthThreads))
depth_kernel(SSIM_PARAMS DepthParams<typename Config::Storage> p) {
  DepthMarch<Config>(p).run();
}

}  // namespace ssim_fused::cuda
