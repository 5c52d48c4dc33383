// The strip march: the CUDA kernel for windows whose maximal radius is fixed at compile time. A block marches
// down a strip of a plane, from raw pixels to sums, map and gradients, without intermediate results in global
// memory. Each step processes kStepRows rows in four stages:
//
//   1. stage.cuh     copies raw rows to shared memory, during stages 3 and 4 of the step before
//   2. row.cuh       along the rows: the four moments of every column
//   3. column.cuh    down the columns: the windows' moments, the formula, the adjoint of the derivatives
//   4. gradient.cuh  along the rows again: the gradient
//
// fir.cuh defines positions and taps. For volumes the kernel processes slices in two passes, with depth.cuh
// between them: Pass::moments runs stages 1 to 3 and writes the moments; Pass::gradient copies derivatives in
// place of raw rows and runs the second filter of stage 3, and stage 4.
#pragma once

#include <cstdint>

#include "../pivot.cuh"
#include "column.cuh"
#include "gradient.cuh"
#include "row.cuh"
#include "stage.cuh"

namespace ssim_fused::cuda {

template <class Config>
class StripMarch {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Block = StripBlock<Config>;
  using Stage = StripStage<Config>;
  using Row = StripRow<Config>;
  using Columns = StripColumns<Config>;
  using Gradient = StripGradient<Config>;
  using Exchange = StripExchange<Config>;
  using Numbers = StripNumbers<Config>;
  static constexpr int kRadius = Config::kRadius;
  static constexpr bool kHasGradient = Config::kDerivatives > 0,
                        kOfGradient = Config::kPass == Pass::gradient;
  static constexpr int kWindowLag = kOfGradient ? 0 : kRadius;  // rows from an output to its last input
  static constexpr int kHalo = kHasGradient ? kWindowLag + kRadius : kRadius;  // rows above the owned ones

  // Offsets into shared memory.
  static constexpr int kRawAt = 0, kPixelsAt = kRawAt + Stage::kRawBytes,
                       kExchangeAt = kPixelsAt + Stage::kPixelBytes,
                       kFoldTapsAt = kExchangeAt + Exchange::kBytes,
                       kFoldsAt = kFoldTapsAt + Columns::kFoldBytes,
                       kTotalsAt = kFoldsAt + Gradient::kFoldBytes,
                       kNumbersAt = kTotalsAt + Columns::kTotalBytes;
  static_assert(kExchangeAt % 16 == 0 && kTotalsAt % 8 == 0, "everything is aligned");

 public:
  static constexpr int kSharedBytes = kNumbersAt + Numbers::kBytes;

  SSIM_DEVICE explicit StripMarch(const StripParamsOf<Config>& p)
      : shared_(shared_memory()),
        at_(p, shared_ + kNumbersAt),
        columns_(shared_ + kFoldTapsAt, shared_ + kTotalsAt) {}

  SSIM_DEVICE void run() {
    const auto& p = at_.p;
    int64_t from = block() * p.rows_of_block;
    const int64_t end = min(from + p.rows_of_block, p.rows_of_strip * p.all_strips);
    while (from < end) {
      const int64_t strip = from / p.rows_of_strip;
      const int64_t next = min(end, (strip + 1) * p.rows_of_strip);
      at_.row_begin = static_cast<int>(from - strip * p.rows_of_strip);
      at_.row_end = static_cast<int>(min(int64_t{p.rows.n}, next - strip * p.rows_of_strip));
      at_.begin_strip(of_all(strip));
      __syncthreads();
      if constexpr (kOfGradient) {
        march_from_derivatives();
      } else {
        march();
      }
      if constexpr (Config::kPass == Pass::image) {
        const int part = static_cast<int>(block() - strip * p.rows_of_strip / p.rows_of_block);
        columns_.write_sums(at_, of_all(strip), part);
      }
      from = next;
      if (from < end) __syncthreads();  // the next strip writes `numbers`, which the last step reads
    }
  }

 private:
  // If channels are interleaved, consecutive blocks process different channels. `block` is the block's index
  // among those of its channel. `of_all` converts the index of a strip among those of one channel of all
  // images to its index among all strips.
  SSIM_DEVICE int64_t block() const {
    return Config::kPass == Pass::image ? blockIdx.x / static_cast<unsigned>(at_.p.abreast) : blockIdx.x;
  }
  SSIM_DEVICE int64_t of_all(int64_t strip) const {
    const auto& p = at_.p;
    if (Config::kPass != Pass::image || p.abreast == 1) return strip;
    const int64_t image = strip / p.strips, channel = blockIdx.x % static_cast<unsigned>(p.abreast);
    return strip + (image * (p.abreast - 1) + channel) * p.strips;
  }

  SSIM_DEVICE void march() {
    const int first = at_.row_begin > 0 ? at_.row_begin - kHalo : -kRadius;
    const int last = at_.row_end + kHalo;
    Stage::rows(at_, first, raw());
    prepare();
    wait_for_copies();
    __syncthreads();
    int buffer = 0;
    for (int row = first; row < last; row += kStepRows) {
      if (at_.numbers.mirrors_raw()) {
        Stage::mirror(at_, raw());
        Block::sync_rows();
      }
      Row::moments(at_, raw(), exchange(buffer));
      const auto stage_next = [&] {
        if (row + kStepRows < last) Stage::rows(at_, row + kStepRows, raw());
        if constexpr (kHasGradient) Stage::pixels(at_, row - 2 * kRadius, pixels());
      };
      if constexpr (Config::kRowsOfWarp > 0) {
        sync_warp();
        stage_next();
        __syncthreads();
      } else {
        __syncthreads();
        stage_next();
      }
      if constexpr (Config::kPass == Pass::moments) {
        columns_.moments(at_, row, exchange(buffer));
      } else {
        columns_.image(at_, row, exchange(buffer));
      }
      wait_for_copies();
      if constexpr (kHasGradient) {
        __syncthreads();
        Gradient::run(at_, row - 2 * kRadius, exchange(0), pixels(), shared_ + kFoldsAt,
                      columns_.pixel_total(at_));
      } else {
        buffer = Exchange::kBuffer - buffer;
      }
      Block::sync_rows();
    }
  }

  // The derivatives of a step are copied to the exchange buffer and filtered in place. While gradients are
  // computed from one buffer, the derivatives of the next step arrive in the other; while derivatives are
  // filtered, the pixels that stage 4 multiplies by arrive.
  SSIM_DEVICE void march_from_derivatives() {
    const int first = at_.row_begin > 0 ? at_.row_begin - kHalo : 0;
    const int last = at_.row_end + kHalo;
    Stage::derivatives(at_, first, last, exchange(0));
    commit_copies();
    prepare();
    __syncthreads();
    int buffer = 0;
    for (int row = first; row < last; row += kStepRows) {
      Stage::pixels(at_, row - kRadius, pixels());
      commit_copies();
      wait_for_copies_before_last();  // waits for the derivatives, not for the pixels
      columns_.derivatives(at_, row, exchange(buffer));
      wait_for_copies();
      __syncthreads();
      if (row + kStepRows < last)
        Stage::derivatives(at_, row + kStepRows, last, exchange(Exchange::kBuffer - buffer));
      commit_copies();
      Gradient::run(at_, row - kRadius, exchange(buffer), pixels(), shared_ + kFoldsAt, nullptr);
      buffer = Exchange::kBuffer - buffer;
      static_assert(Config::kRowsOfWarp > 0, "else the next step's pixels arrive where others read");
      sync_warp();
    }
  }

  // Sets what is constant during the march down a strip, and clears borders, margins and filters.
  SSIM_DEVICE void prepare() {
    const auto& p = at_.p;
    const int thread = static_cast<int>(at_.thread());
    if (thread < kWarpSize) {
      const T value = pivot(thread);
      if (thread == 0) {
        at_.numbers[Numbers::kPivot] = value;
        at_.numbers[Numbers::kC1] = p.constants.c1_of(at_.image);
        at_.numbers[Numbers::kC2] = p.constants.c2_of(at_.image);
        at_.numbers[Numbers::kSimilarityWeight] = p.of_similarity.of(at_.image);
        at_.numbers[Numbers::kContrastWeight] = p.of_contrast.of(at_.image);
      }
    }
    Stage::clear_border(at_, raw());
    Exchange::clear_margins(at_, exchange(0));
    columns_.begin(at_);
  }

  // Returns the pivot of the strip or the volume. Called by one warp.
  SSIM_DEVICE T pivot(int lane) const {
    const auto& p = at_.p;
    if constexpr (Config::kPass != Pass::image) return p.pivots[at_.volume];
    return choose_pivot<T>(p.target.plane(at_.image, at_.channel), p.target.stride[2], p.target.stride[3],
                           at_.row_begin, at_.row_end - at_.row_begin, at_.column_begin,
                           at_.column_end - at_.column_begin, lane);
  }

  SSIM_DEVICE char* raw() const { return shared_ + kRawAt; }
  SSIM_DEVICE char* pixels() const { return shared_ + kPixelsAt; }
  SSIM_DEVICE char* exchange(int buffer) const { return shared_ + (kExchangeAt + buffer); }

  char* const shared_;
  Block at_;
  Columns columns_;
};

template <class Config>
SSIM_KERNEL(Config::kThreads, wanted_blocks<Config>())
strip_kernel(SSIM_PARAMS StripParamsOf<Config> p) {
  StripMarch<Config>(p).run();
}

}  // namespace ssim_fused::cuda
