// The CUDA kernel for volumes between the two parts of the strip march (strip.cuh): along the depth, in the
// moments of slices, for windows of radius at most 5. A thread owns a column of depth, one (y, x) of the
// outputs, and marches through the slices, kSlices a step:
//
//   1. it copies its own moments of the slices to come to shared memory, a step ahead, so that nothing waits
//      for them, nor for other threads;
//   2. the window is a filter in registers (fir.cuh), which completes an output; then the formula;
//   3. the adjoint of the window is another over the derivatives, which go where the moments were.
//
// That is safe: slice i is written when slice i + 2 kRadius has been read, and a reflected slice is read
// again, at the end, no later than its last such output needs it (pad <= kRadius). It is also why a march
// that writes derivatives takes the whole depth; others may split it.
#pragma once

#include <cstdint>

#include "device.cuh"
#include "fir.cuh"
#include "picture.cuh"
#include "slices.cuh"
#include "strip.cuh"

namespace ssim_fused {

constexpr int kSlices = 4;  // of a step

// Slices marched through before the first output of a split is complete.
constexpr int kDepthWarmUp = 2 * kRadius;

template <class Storage_, int Maps_, Weights Weights_, bool Narrow_>
struct DepthConfig {
  using Storage = Storage_;
  using T = ComputeOf<Storage>;
  static constexpr int kMaps = Maps_;
  static constexpr bool kGeneral = Weights_ == Weights::general, kNarrow = Narrow_;
  static constexpr bool kOfContrast = Weights_ == Weights::mean_contrast;
  static constexpr int kSums = kGeneral ? int{kWithConstants} : int{kMeans};

  // Shared memory, in bytes: two buffers [slice][map][thread], and the taps that fold the reflection back,
  // which the block's sums replace in the end.
  static constexpr int kBuffer = kSlices * 4 * kDepthThreads * sizeof(T);
  static constexpr int kFoldTaps = kMaps > 0 ? kFoldPlaces * (kTaps + 1) * sizeof(T) : 0;
  static constexpr int kSummation = kDepthThreads / 32 * kSums * sizeof(double);
  static constexpr int kFoldTapsAt = 2 * kBuffer;
  static constexpr int kSharedBytes = kFoldTapsAt + (kFoldTaps > kSummation ? kFoldTaps : kSummation);
  static_assert(kFoldTapsAt % 8 == 0);
};

template <class Storage>
struct DepthParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  int64_t slab_volume;   // with which `maps` begins
  int64_t first_volume;  // of this launch
  int splits;            // of the depth
  int slices_of_split;
  const T* pivots;  // [B C]
  T* maps;          // slices.cuh
  T slice_sum;      // of a slice's window: the sum of the rows' taps times that of the columns'
  T taps[kTaps];
};

template <class Config>
class DepthMarch {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Params = DepthParams<Storage>;
  static constexpr int kMaps = Config::kMaps;
  static constexpr int kMapsOr1 = kMaps > 0 ? kMaps : 1;

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
    is_cropped_in_ = is_inside_ && is_output_in_crop(p.rows, row) && is_output_in_crop(p.columns, column);
    slice_size_ = layout.slice_size();
    maps_ = p.maps + ((volume - p.slab_volume) * p.depth.n * slice_size_ + SliceLayout::place(pixel));
    if constexpr (Config::kGeneral) {
      const auto place = [&](const auto& picture) {
        return picture.data
                   ? picture.plane(image_, channel) + (row * picture.stride[2] + column * picture.stride[3])
                   : nullptr;
      };
      map_ = place(p.map);
      grad_map_ = place(p.grad_map);
    }
    pivot_ = p.pivots[volume];
    c1_ = formula_constant(p.constants ? p.constants[0] : p.c1);
    c2_ = formula_constant(p.constants ? p.constants[1] : p.c2);
    of_similarity_ = p.of_similarity.of(image_);
    of_contrast_ = p.of_contrast.of(image_);
  }

  SSIM_DEVICE void run() {
    // Outputs at z for which nothing needs care: all count for both means, and no reflection is folded back.
    const int plain_begin = max(begin_, kRadius), plain_end = min(end_, p_.depth.n - kRadius);
    const int first = max(begin_ - kRadius, -p_.depth.pad);
    const int last = end_ + (kMaps > 0 ? 2 * kRadius : kRadius);
    stage(first, buffer(0));
    if constexpr (kMaps > 0) {
      for (int i = thread_; i < kFoldPlaces * kTaps; i += kDepthThreads) {
        const int place = i / kTaps, k = i % kTaps;
        fold_taps()[place * (kTaps + 1) + k] = fold_tap(p_.depth, p_.taps, place, k);
      }
      __syncthreads();
    }
    int turn = 0;
#pragma unroll 1
    for (int slice = first; slice < last; slice += kSlices, turn ^= 1) {
      wait_for_copies();
      if (slice + kSlices < last) stage(slice + kSlices, buffer(turn ^ 1));
      const T* const from = buffer(turn);
      const int z = slice - kRadius;  // the first output this step completes
      T step[Config::kSums] = {};
      if (z >= plain_begin && z + kSlices <= plain_end) {
#pragma unroll
        for (int s = 0; s < kSlices; ++s) output<false>(from, s, z + s, step);
      } else {
#pragma unroll 1
        for (int s = 0; s < kSlices; ++s) output<true>(from, s, z + s, step);
      }
#pragma unroll
      for (int n = 0; n < Config::kSums; ++n) totals_[n] += static_cast<double>(step[n]);
    }
    write_sums();
  }

 private:
  static SSIM_DEVICE bool is_output_in_crop(const DeviceAxis& axis, int output) {
    return output >= axis.pad && output < axis.output_length() - axis.pad;
  }

  SSIM_DEVICE T* buffer(int turn) const {
    return reinterpret_cast<T*>(shared_memory() + turn * Config::kBuffer) + thread_;
  }
  SSIM_DEVICE T* fold_taps() const { return reinterpret_cast<T*>(shared_memory() + Config::kFoldTapsAt); }
  static SSIM_DEVICE int place_in_buffer(int s, int map) { return (s * 4 + map) * kDepthThreads; }

  // ---- 1. Moments to shared memory

  SSIM_DEVICE void stage(int slice, T* to) const {
    const bool inside = slice >= 0 && slice + kSlices <= p_.depth.n;
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      const int from = inside ? slice + s : source(slice + s);
      if (from >= 0) {
        const T* const moments = maps_ + from * slice_size_;
#pragma unroll
        for (int m = 0; m < 4; ++m) copy_async<sizeof(T)>(to + place_in_buffer(s, m), moments + m * kGroup);
        continue;
      }
      // Zero padding: a slice of zeros less the pivot. Slices that no output reads may be so, too.
      const T zero = -pivot_ * p_.slice_sum;
      to[place_in_buffer(s, 0)] = zero;
      to[place_in_buffer(s, 1)] = zero;
      to[place_in_buffer(s, 2)] = -pivot_ * zero;
      to[place_in_buffer(s, 3)] = T(0);
    }
  }

  // The slice that position e reads, -1 where it reads none.
  SSIM_DEVICE int source(int e) const {
    return e < -p_.depth.pad || e >= p_.depth.n + p_.depth.pad ? -1 : p_.depth.source(e);
  }

  // ---- 2. and 3. Down the depth

  // Takes in the moments of one slice, which complete output z and, with it, the derivatives of slice
  // z - kRadius. `Edge`: z may be any; else it is owned and counts for both means, and no reflection reaches
  // it.
  template <bool Edge>
  SSIM_DEVICE void output(const T* from, int s, int z, T (&step)[Config::kSums]) {
    const T* const taps = p_.taps;
    const int radius = p_.depth.radius;
    T complete[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      complete[m] = filter<Config::kNarrow>(moment_[m], from[place_in_buffer(s, m)], radius,
                                            [&](int k) { return taps[kTaps - 1 - k]; });
    }
    T maps[4] = {};
    if (!Edge || (exists(p_.depth, z) && z >= begin_ && z < end_)) {
      const Moments<T> f = formula(complete, z, !Edge || in_crop(p_.depth, z), step);
      maps[0] = f.a, maps[1] = f.p, maps[2] = f.d, maps[3] = f.b;
    }
    if constexpr (kMaps > 0) {
      const T* const edge_taps = Edge ? fold_taps() + fold_place(p_.depth, z) * (kTaps + 1) : nullptr;
      const int slice = z - kRadius;
      T* const out = maps_ + slice * slice_size_;
#pragma unroll
      for (int m = 0; m < kMaps; ++m) {
        const T sum = filter<Config::kNarrow>(derivative_[m], maps[m], radius,
                                              [&](int k) { return Edge ? edge_taps[k] : taps[k]; });
        if (!Edge || (slice >= 0 && slice < p_.depth.n)) out[m * kGroup] = sum;
      }
    }
  }

  // The output at z: its share of the sums, its pixel of the map, its derivatives.
  SSIM_DEVICE Moments<T> formula(const T (&complete)[4], int z, bool counts, T (&step)[Config::kSums]) {
    const auto terms =
        local_terms(Moments<T>{complete[0], complete[1], complete[2], complete[3]}, pivot_, c1_, c2_);
    const T similarity = terms.similarity();
    step[kSimilarity] += similarity;
    if (counts) step[kContrastSensitivity] += terms.contrast_sensitivity();
    if constexpr (Config::kGeneral) {
      T of_similarity = of_similarity_;
      const T of_contrast = counts && is_cropped_in_ ? of_contrast_ : T(0);
      if (is_inside_) {
        const int64_t place = z - (p_.depth.radius - p_.depth.pad);
        if (grad_map_) of_similarity += to_compute(grad_map_[place * p_.grad_map.slice_stride]);
        if (map_) store_as(map_[place * p_.map.slice_stride], similarity);
        if (p_.wants_constants) {
          const auto by = constant_partials(terms, of_similarity, of_contrast);
          step[kByC1] += by.c1;
          step[kByC2] += by.c2;
        }
      }
      if constexpr (kMaps > 0) return partials(terms, of_similarity, of_contrast);
    } else if constexpr (kMaps > 0 && Config::kOfContrast) {
      return partials_of_doubled_contrast(terms, counts && is_cropped_in_ ? T(2) * of_contrast_ : T(0));
    } else if constexpr (kMaps > 0) {
      const T weight = T(2) * of_similarity_;
      return partials_of_doubled(terms, weight * terms.contrast_sensitivity(), weight * terms.luminance());
    }
    return {};
  }

  SSIM_DEVICE void write_sums() {
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      if (!(n == kContrastSensitivity ? is_cropped_in_ : is_inside_)) totals_[n] = 0;
    }
    __syncthreads();  // the fold taps' place serves the summation, too
    add_up_block<kDepthThreads>(
        totals_, reinterpret_cast<double*>(shared_memory() + Config::kFoldTapsAt),
        p_.partial + (p_.first_volume * p_.splits * SliceLayout(p_.rows, p_.columns).blocks() + blockIdx.x) *
                         Config::kSums,
        thread_);
  }

  const Params& p_;
  const int thread_;
  int64_t image_;
  int begin_, end_;  // depths of outputs owned
  int64_t slice_size_;
  T* maps_;  // the thread's column, in the volume's first slice and map
  bool is_inside_, is_cropped_in_;
  Storage* map_ = nullptr;
  const Storage* grad_map_ = nullptr;
  T pivot_, c1_, c2_, of_similarity_, of_contrast_;
  double totals_[Config::kSums] = {};
  T moment_[4][kTaps - 1] = {}, derivative_[kMapsOr1][kTaps - 1] = {};  // the filters' unfinished sums
};

template <class Config>
constexpr int kDepthRegisters = sizeof(typename Config::T) == 8 ? 255
                                : Config::kMaps == 0            ? (Config::kGeneral ? 128 : 96)
                                : Config::kMaps == 3            ? (Config::kGeneral ? 168 : 128)
                                                                : (Config::kGeneral ? 200 : 168);

template <class Config>
SSIM_KERNEL(kDepthThreads, 65536 / (kDepthRegisters<Config> * kDepthThreads))
depth_kernel(SSIM_PARAMS DepthParams<typename Config::Storage> p) {
  DepthMarch<Config>(p).run();
}

}  // namespace ssim_fused
