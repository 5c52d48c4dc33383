// Shared memory between the stages that work along rows and the one that works down columns: moments, and in
// their place derivatives, [field][row][column].
#pragma once

#include "place.cuh"

namespace ssim_fused::cuda {

template <class Config>
struct StripExchange {
  using T = typename Config::T;
  using Row = SharedRow<Config, T>;
  static constexpr int kVector = 16 / int{sizeof(T)};

  // Margins for outputs that the block does not compute. A single strip has one on the left, too.
  static constexpr int kLeft =
      Config::kDerivatives > 0 && Config::kSingle ? (Config::kRadius + 7) / 8 * 8 : 0;
  // What stage 4 reads of a row for a chunk: whole vectors, kAdjointShift columns before the first one that
  // it needs.
  static constexpr int kAdjointShift = kLeft > 0 ? kLeft - Config::kRadius : 0;
  static constexpr int kAdjointVectors = (Config::kWindowed + kAdjointShift + kVector - 1) / kVector;
  static constexpr int kColumns =
      Config::kDerivatives > 0 ? Config::kColumns - kChunk + kAdjointVectors * kVector : Config::kColumns;
  static constexpr int kFields = Config::kPass == Pass::gradient ? Config::kDerivatives : int{kPlainMoments};
  // In bytes. Where there are only moments, or only derivatives, there are two buffers, in turns.
  static constexpr int kRow = Row::bytes(kColumns), kField = kStepRows * kRow, kBuffer = kFields * kField;
  static constexpr int kBuffers = Config::kDerivatives > 0 && Config::kPass == Pass::image ? 1 : 2;
  static constexpr int kBytes = kBuffers * kBuffer;
  static_assert(kField % 16 == 0);

  static SSIM_DEVICE int slot(const StripColumn<Config>& column) { return Row::slot(column.thread + kLeft); }
  // Where a chunk, or one after it, lies, counted from the margin on.
  static SSIM_DEVICE int place(const Chunk<Config>& chunk, int field, int columns_on) {
    return field * kField + chunk.template place<T, kRow>(columns_on);
  }
  // Of an input column.
  static SSIM_DEVICE int slot_of(const StripBlock<Config>& at, int z) {
    return Row::slot(z - at.column_begin + Config::kLead + kLeft);
  }

  // Step 4 reads beyond the columns computed, for pixels that the next strip owns, or none does.
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
