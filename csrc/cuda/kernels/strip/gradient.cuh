// Stage 4 of the strip march, along the rows: each thread applies the adjoint of the window to the
// derivatives of a chunk, combines them with the pixels and writes 8 pixels of the gradient.
#pragma once

#include <cstdint>

#include "../../../math/ssim.h"
#include "exchange.cuh"
#include "stage.cuh"

namespace ssim_fused::cuda {

template <class Config>
class StripGradient {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Block = StripBlock<Config>;
  using Exchange = StripExchange<Config>;
  using Stage = StripStage<Config>;
  using Numbers = StripNumbers<Config>;
  static constexpr int kDerivatives = Config::kDerivatives, kVector = Config::kVector;
  static constexpr int kRadius = Config::kRadius, kTaps = Config::kTaps;
  static constexpr bool kBoth = Config::kGradients == GradientsOf::both;
  static constexpr int kFoldColumns = kStepRows * 2 * kRadius;  // per gradient

 public:
  // Contributions of reflected columns to the gradients of a step: [gradient][row][2 kRadius].
  static constexpr int kFoldBytes = gradient_count(Config::kGradients) * kFoldColumns * sizeof(T);

  // Computes the gradients of the owned rows among those from `first_row` on, and adds the sum of the pixel
  // term to `pixel_total`.
  static SSIM_DEVICE void run(const Block& at, int first_row, char* exchange, char* pixels, char* fold_memory,
                              double* pixel_total) {
    T* const folds = reinterpret_cast<T*>(fold_memory);
    if (at.numbers.mirrors_derivatives()) {
      mirror(at, exchange);
      Block::sync_rows();
    } else if (at.numbers.has_folded_columns()) {
      fold_columns(at, first_row, exchange, pixels, folds);
      __syncthreads();
    }
    gradient(at, first_row, exchange, pixels, folds, pixel_total);
    if (!at.p.vectors) {
      Block::sync_rows();
      write_rows(at, first_row, pixels);
    }
  }

 private:
  static SSIM_DEVICE void mirror(const Block& at, char* exchange) {
    const int width = at.p.columns.n;
    const bool is_first = at.column_begin == 0, is_last = at.column_end + kRadius > width;
    at.for_each_mirrored([&](int row, int distance, bool right) {
      if (!(right ? is_last : is_first)) return;
      const int border = right ? width - 1 : 0, outwards = right ? distance : -distance;
      char* const first = exchange + row * Exchange::kRow;
#pragma unroll
      for (int f = 0; f < kDerivatives; ++f) {
        char* const field = first + f * Exchange::kField;
        *reinterpret_cast<T*>(field + Exchange::slot_of(at, border + outwards)) =
            *reinterpret_cast<const T*>(field + Exchange::slot_of(at, border - outwards));
        // The column about which derivatives are mirrored counts twice. In Pass::image its weight already
        // does.
        if (Config::kPass == Pass::gradient && distance == 1)
          *reinterpret_cast<T*>(field + Exchange::slot_of(at, border)) *= T(2);
      }
    });
  }

  static SSIM_DEVICE void gradient(const Block& at, int first_row, const char* exchange, char* all_pixels,
                                   const T* folds, double* pixel_total) {
    const Chunk<Config> chunk(at.thread());
    const int row = first_row + chunk.row, column = at.column_begin + chunk.column, width = at.p.columns.n;
    if (!at.owns_row(row) || column >= at.column_end) return;
    const T pivot = at.numbers[Numbers::kPivot];

    // One field after the other, so that few sums are live at once.
    T by_preds[kChunk], by_target[kChunk], difference[kChunk], sum[kChunk];
    adjoint<false>(at, chunk, exchange, kByP, sum);
    char* const pixels = all_pixels + chunk.template place<Storage, Stage::kPixelRow>(0);
#pragma unroll
    for (int v = 0; v < kChunk / kVector; ++v) {
      const auto xs = *reinterpret_cast<const Vector<Storage>*>(pixels + v * 16);
      const auto ys = *reinterpret_cast<const Vector<Storage>*>(pixels + Stage::kPixelImage + v * 16);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int j = v * kVector + e;
        const T x = to_compute(xs.value[e]), y = to_compute(ys.value[e]);
        difference[j] = x - y;
        by_preds[j] = gradient_by_product(y, pivot, sum[j]);
        if constexpr (kBoth) by_target[j] = gradient_by_product(x, pivot, sum[j]);
      }
    }
    adjoint<false>(at, chunk, exchange, kByD, sum);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      by_preds[j] += gradient_by_difference(difference[j], sum[j]);
      if constexpr (kBoth) by_target[j] -= gradient_by_difference(difference[j], sum[j]);
    }
    adjoint<true>(at, chunk, exchange, kByA, by_preds);
    if constexpr (kBoth) adjoint<true>(at, chunk, exchange, kByB, by_target);
    if (at.numbers.mirrors_derivatives() && (column == 0 || column + kChunk >= width)) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {  // the columns about which derivatives are mirrored
        if (column + j != 0 && column + j != width - 1) continue;
        by_preds[j] *= T(0.5);
        if constexpr (kBoth) by_target[j] *= T(0.5);
      }
    }
    if (at.numbers.has_folded_columns()) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        const int i = column + j;
        if (!at.p.columns.is_folded(i)) continue;
        const T* const fold = folds + chunk.row * 2 * kRadius + column_fold(at, i);
        by_preds[j] += fold[0];
        if constexpr (kBoth) by_target[j] += fold[kFoldColumns];
      }
    }
    if constexpr (Config::kHasPixelTerm) {
      add_pixel_term(at, column, pixels, by_preds, by_target, pixel_total);
    } else if constexpr (Config::kGeneral) {
      if (at.p.pixel_term.adds_slopes()) add_pixel_term(at, column, pixels, by_preds, by_target, nullptr);
    }
    store_pixels(at, 2, row, chunk.column, by_preds, pixels);
    if constexpr (kBoth) store_pixels(at, 3, row, chunk.column, by_target, pixels + Stage::kPixelImage);
  }

  // Adds the slopes of the pixel term to the gradients of a chunk, and its sum to `total`. It reads the
  // pixels again, which costs less than keeping them in registers.
  static SSIM_DEVICE void add_pixel_term(const Block& at, int column, const char* pixels,
                                         T (&by_preds)[kChunk], T (&by_target)[kChunk], double* total) {
    // The term is selected once per chunk. Selected per pixel, there would be 3^8 paths, all of which nvcc
    // explores.
    with_pixel_term(at.p.pixel_term.term, [&]<PixelTerm term>() {
      if constexpr (term != PixelTerm::none) add_term<term>(at, column, pixels, by_preds, by_target, total);
    });
  }

  template <PixelTerm term>
  static SSIM_DEVICE void add_term(const Block& at, int column, const char* pixels, T (&by_preds)[kChunk],
                                   T (&by_target)[kChunk], double* total) {
    const PixelTermParams<T>& request = at.p.pixel_term;
    T sum = T(0);
#pragma unroll
    for (int v = 0; v < kChunk / kVector; ++v) {
      const auto xs = *reinterpret_cast<const Vector<Storage>*>(pixels + v * 16);
      const auto ys = *reinterpret_cast<const Vector<Storage>*>(pixels + Stage::kPixelImage + v * 16);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int j = v * kVector + e;
        const auto phi =
            pixel_term<term, T>(to_compute(xs.value[e]) - to_compute(ys.value[e]), request.eps_squared);
        if (column + j < at.column_end) sum += phi.value;
        by_preds[j] += request.weight * phi.slope;
        if constexpr (kBoth) by_target[j] -= request.weight * phi.slope;
      }
    }
    if (total) *total += static_cast<double>(sum);
  }

  // Applies the adjoint of the window along the row to one field, for the eight columns of a chunk. `Add`:
  // adds the results to `sum`.
  template <bool Add>
  static SSIM_DEVICE void adjoint(const Block& at, const Chunk<Config>& chunk, const char* exchange,
                                  int field, T (&sum)[kChunk]) {
    constexpr int kSize = Vector<T>::kSize, kVectorsOfChunk = kChunk / kSize;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) sum[j] = Add ? sum[j] : T(0);
#pragma unroll
    for (int v = 0; v < Exchange::kAdjointVectors; ++v) {
      const Vector<T> values = *reinterpret_cast<const Vector<T>*>(
          exchange + Exchange::place(chunk, field, v / kVectorsOfChunk * kChunk) + v % kVectorsOfChunk * 16);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        const int i = v * kSize + e - Exchange::kAdjointShift;  // derivative of column + i - kRadius
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
          const int k = kTaps - 1 - (i - j);
          if (k < 0 || k >= kTaps || !has_tap<Config::kNarrow, kRadius>(k, at.p.columns.radius)) continue;
          sum[j] += at.p.column_taps[k] * values.value[e];
        }
      }
    }
  }

  // Stores a chunk of a gradient. `column` counts from the first owned one. If rows are not whole vectors,
  // the gradient replaces the pixels in shared memory, from where write_rows copies it.
  static SSIM_DEVICE void store_pixels(const Block& at, int image, int row, int column,
                                       const T (&values)[kChunk], char* pixels) {
    Vector<Storage> vectors[kChunk / kVector];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) store_as(vectors[j / kVector].value[j % kVector], values[j]);
    if (at.p.vectors) {
      const uint64_t address =
          at.row_of(image, row) + static_cast<uint32_t>(column) * uint64_t{sizeof(Storage)};
      auto* const to = global_memory<Vector<Storage>>(address);
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        if (v == 0 || at.column_begin + column + v * kVector < at.column_end) to[v] = vectors[v];
      }
    } else {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) reinterpret_cast<Vector<Storage>*>(pixels)[v] = vectors[v];
    }
  }

  // Copies gradients from shared memory to global memory, pixel by pixel.
  static SSIM_DEVICE void write_rows(const Block& at, int first_row, const char* pixels) {
    at.for_each_row([&](int r, int lane) {
      const int row = first_row + r;
      if (!at.owns_row(row)) return;
      const char* const from = pixels + r * Stage::kPixelRow;
      write_row(at, 2, at.p.grad_preds.stride, row, lane, from);
      if constexpr (kBoth) write_row(at, 3, at.p.grad_target.stride, row, lane, from + Stage::kPixelImage);
    });
  }
  static SSIM_DEVICE void write_row(const Block& at, int image, const int64_t (&stride)[4], int row, int lane,
                                    const char* pixels) {
    const int first = at.column_begin + lane;
    const int64_t offset = row * stride[2] + first * stride[3];
    // Opaque: otherwise the compiler recomputes each address from the row and the strides.
    const uint64_t to = opaque(at.numbers.first_row(image) + static_cast<uint64_t>(offset) * sizeof(Storage));
    const char* const first_slot = pixels + SharedRow<Config, Storage>::slot(lane);
    const auto write = [&](int columns_on, uint64_t bytes_on) {
      if (first + columns_on < at.column_end)
        *global_memory<Storage>(to + bytes_on) =
            *reinterpret_cast<const Storage*>(first_slot + SharedRow<Config, Storage>::span(columns_on));
    };
    const uint64_t step = kWarpSize * sizeof(Storage) * static_cast<uint64_t>(stride[3]);
    if (at.p.dense) {
#pragma unroll
      for (int i = 0; i < Config::kColumns / kWarpSize; ++i)
        write(kWarpSize * i, i * kWarpSize * sizeof(Storage));
    } else {
#pragma unroll
      for (int i = 0; i < Config::kColumns / kWarpSize; ++i) write(kWarpSize * i, i * step);
    }
  }

  // Columns next to the border are numbered: 1 to kRadius on the left, then the last kRadius before the last
  // column, which in a narrow image may include column 0.
  static SSIM_DEVICE bool is_left(int column) { return column >= 1 && column <= kRadius; }
  static SSIM_DEVICE int column_fold(const Block& at, int column) {
    return is_left(column) ? column - 1 : column - (at.p.columns.n - 1 - 2 * kRadius);
  }

  // Computes the contributions of the step's rows to columns beyond the border, which fold back onto the
  // `pad` columns next to the first and the last one.
  static SSIM_DEVICE void fold_columns(const Block& at, int first_row, const char* exchange,
                                       const char* pixels, T* folds) {
    const DeviceAxis& axis = at.p.columns;
    for (int task = static_cast<int>(at.thread()); task < kFoldColumns; task += Config::kThreads) {
      const int r = task / (2 * kRadius), side = task % (2 * kRadius);
      const int row = first_row + r;
      const int column = side < kRadius ? side + 1 : side + axis.n - 1 - 2 * kRadius;
      const bool is_own = column >= at.column_begin && column < at.column_end && axis.is_folded(column);
      if (!is_own || !at.owns_row(row)) continue;
      if (side >= kRadius && is_left(column)) continue;  // counted on the left: the image is narrow
      T sum[kDerivatives > 0 ? kDerivatives : 1] = {};
      const auto add_beyond = [&](int extended) {
        const int begin = max(0, extended - axis.radius), end = min(axis.n, extended + axis.radius + 1);
#pragma unroll 1
        for (int z = begin; z < end; ++z) {
          const T tap = at.p.column_taps[extended - z + kRadius];
          const char* const from = exchange + r * Exchange::kRow + Exchange::slot_of(at, z);
#pragma unroll
          for (int f = 0; f < kDerivatives; ++f)
            sum[f] += tap * *reinterpret_cast<const T*>(from + f * Exchange::kField);
        }
      };
      if (column >= 1 && column <= axis.pad) add_beyond(-column);
      if (column <= axis.n - 2 && column >= axis.n - 1 - axis.pad) add_beyond(2 * (axis.n - 1) - column);

      const char* const pixel =
          pixels + r * Stage::kPixelRow + SharedRow<Config, Storage>::slot(column - at.column_begin);
      const T x = to_compute(*reinterpret_cast<const Storage*>(pixel));
      const T y = to_compute(*reinterpret_cast<const Storage*>(pixel + Stage::kPixelImage));
      const auto by =
          pixel_gradient(x, y, at.numbers[Numbers::kPivot],
                         partials_of_fields<Config::kGradients, T>([&](int f) { return sum[f]; }));
      T* const fold = folds + r * 2 * kRadius + column_fold(at, column);
      fold[0] = by.by_x;
      if constexpr (kBoth) fold[kFoldColumns] = by.by_y;
    }
  }
};

}  // namespace ssim_fused::cuda
