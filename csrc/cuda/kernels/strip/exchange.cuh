// The layout of the exchange buffers in shared memory, [field][row][column], by which the stages along rows
// pass data to the stage down columns and back: moments, and derivatives in place of them.
#pragma once

#include "place.cuh"

namespace ssim_fused::cuda {

template <class Config>
struct StripExchange {
  using T = typename Config::T;
  using Row = SharedRow<Config, T>;
  static constexpr int kVector = 16 / int{sizeof(T)};

  // Margins next to the columns that the block computes, which hold zeros or mirrored derivatives. Only
  // single strips have one on the left.
  static constexpr int kLeft =
      Config::kDerivatives > 0 && Config::kSingle ? (Config::kRadius + 7) / 8 * 8 : 0;
  // The vectors that stage 4 reads of a row for a chunk. They start kAdjointShift columns before the first
  // column that it needs.
  static constexpr int kAdjointShift = kLeft > 0 ? kLeft - Config::kRadius : 0;
  static constexpr int kAdjointVectors = (Config::kWindowed + kAdjointShift + kVector - 1) / kVector;
  static constexpr int kColumns =
      Config::kDerivatives > 0 ? Config::kColumns - kChunk + kAdjointVectors * kVector : Config::kColumns;
  static constexpr int kFields = Config::kPass == Pass::gradient ? Config::kDerivatives : int{kPlainMoments};
  // Sizes in bytes. Passes that exchange only moments, or only derivatives, are double-buffered.
  static constexpr int kRow = Row::bytes(kColumns), kField = kStepRows * kRow, kBuffer = kFields * kField;
  static constexpr int kBuffers = Config::kDerivatives > 0 && Config::kPass == Pass::image ? 1 : 2;
  static constexpr int kBytes = kBuffers * kBuffer;
  static_assert(kField % 16 == 0);

  static SSIM_DEVICE int slot(const StripColumn<Config>& column) { return Row::slot(column.thread + kLeft); }
  // Returns the offset of a chunk that begins `columns_on` columns after `chunk`, counted from the margin.
  static SSIM_DEVICE int place(const Chunk<Config>& chunk, int field, int columns_on) {
    return field * kField + chunk.template place<T, kRow>(columns_on);
  }
  // Returns the slot of an input column.
  static SSIM_DEVICE int slot_of(const StripBlock<Config>& at, int z) {
    return Row::slot(z - at.column_begin + Config::kLead + kLeft);
  }

  // Zeroes the margins. Stage 4 reads them for pixels that belong to the next strip, or to no strip.
  static SSIM_DEVICE void clear_margins(const StripBlock<Config>& at, char* exchange) {
    if constexpr (Config::kDerivatives > 0) {
      constexpr int kMargin = kColumns - Config::kColumns;
#pragma unroll 1
      for (int i = static_cast<int>(at.thread()); i < kBuffers * kFields * kStepRows * kMargin;
           i += Config::kThreads) {
        const int j = i % kMargin;
        *reinterpret_cast<T*>(exchange + i / kMargin * kRow +
                              Row::slot(j < kLeft ? j : Config::kColumns + j)) = T(0);
      }
    }
  }
};

}  // namespace ssim_fused::cuda
