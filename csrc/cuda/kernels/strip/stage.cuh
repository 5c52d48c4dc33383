// Stage 1 of the strip march: asynchronous copies to shared memory. It copies the rows of pixels that stage 2
// filters and those that stage 4 multiplies by, and in Pass::gradient rows of derivatives.
#pragma once

#include <cstdint>

#include "exchange.cuh"
#include "place.cuh"

namespace ssim_fused::cuda {

template <class Config>
class StripStage {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Block = StripBlock<Config>;
  using Row = SharedRow<Config, Storage>;

 public:
  // Raw rows for stage 2: [preds, target][row][raw column].
  static constexpr int kRawRow = Row::bytes(Config::kRawColumns), kRawImage = kStepRows * kRawRow;
  static constexpr int kRawBytes = Config::kPass == Pass::gradient ? 0 : 2 * kRawImage;
  // Pixels for stage 4, which stores gradients in place: [preds, target][row][owned column].
  static constexpr int kPixelRow = Row::bytes(Config::kColumns), kPixelImage = kStepRows * kPixelRow;
  static constexpr int kPixelBytes = Config::kDerivatives > 0 ? 2 * kPixelImage : 0;
  static_assert(kRawRow % 16 == 0 && kPixelRow % 16 == 0);

  // Zeroes the raw columns beyond the border. If the image is padded by reflection, `mirror` overwrites them
  // in every step.
  static SSIM_DEVICE void clear_border(const Block& at, char* raw) {
    if (Config::kPass == Pass::gradient) return;
    if (at.raw_begin >= 0 && at.raw_begin + Config::kRawColumns <= at.p.columns.n) return;
#pragma unroll 1
    for (int j = static_cast<int>(at.thread()); j < Config::kRawColumns; j += Config::kThreads) {
      if (static_cast<unsigned>(at.raw_begin + j) < static_cast<unsigned>(at.p.columns.n)) continue;
#pragma unroll 1
      for (int row = 0; row < 2 * kStepRows; ++row) {
        *reinterpret_cast<Storage*>(raw + row * kRawRow + Row::slot(j)) = Storage{};
      }
    }
  }

  // Copies the kStepRows rows from `row` on, for stage 2.
  static SSIM_DEVICE void rows(const Block& at, int row, char* raw) {
    const bool inside = row >= 0 && row + kStepRows <= at.p.rows.n;
    at.for_each_row([&](int r, int lane) {
      char* const to = raw + r * kRawRow;
      const int from = inside ? row + r : source(at.p.rows, row + r);
      if (from >= 0) {
        copy_row<0, Config::kRawColumns, kRawImage>(at, to, from, lane);
      } else {  // a row of zeros; columns beyond the border are zero already
#pragma unroll 1
        for (int j = lane; j < Config::kRawColumns; j += kWarpSize) {
          if (static_cast<unsigned>(at.raw_begin + j) >= static_cast<unsigned>(at.p.columns.n)) continue;
          *reinterpret_cast<Storage*>(to + Row::slot(j)) = Storage{};
          *reinterpret_cast<Storage*>(to + Row::slot(j) + kRawImage) = Storage{};
        }
      }
    });
  }

  // Copies pixels to the columns beyond the border that reflect them.
  static SSIM_DEVICE void mirror(const Block& at, char* raw) {
    at.for_each_mirrored([&](int row, int distance, bool right) {
      const int last = at.p.columns.n - 1;
      const int to = (right ? last + distance : -distance) - at.raw_begin;
      // If the reflected column is also outside the image, no existing output reads this one.
      const int from = (right ? max(last - distance, 0) : min(distance, last)) - at.raw_begin;
      if (static_cast<unsigned>(to) >= unsigned{Config::kRawColumns}) return;
      char* const first = raw + row * kRawRow;
#pragma unroll
      for (int image = 0; image < 2; ++image) {
        *reinterpret_cast<Storage*>(first + image * kRawImage + Row::slot(to)) =
            *reinterpret_cast<const Storage*>(first + image * kRawImage + Row::slot(from));
      }
    });
  }

  // Copies the pixels for stage 4 of those rows that are owned, from `first_row` on.
  static SSIM_DEVICE void pixels(const Block& at, int first_row, char* pixels) {
    at.for_each_row([&](int r, int lane) {
      const int row = first_row + r;
      if (!at.owns_row(row)) return;
      copy_row<Config::kRawLead, Config::kColumns, kPixelImage>(at, pixels + r * kPixelRow, row, lane);
    });
  }

  // Copies the derivatives of a slice for the kStepRows rows from `row` on. Rows without outputs, and rows
  // from `last` on, are set to zero. Each thread copies what it will filter, so it need not wait for other
  // threads.
  static SSIM_DEVICE void derivatives(const Block& at, int row, int last, char* exchange) {
    using Exchange = StripExchange<Config>;
    const StripColumn<Config> column(at);
    char* const to = exchange + Exchange::slot(column);
    const SliceColumn<T> fields = column.of_slice(at, row);
    const DeviceAxis& rows = at.p.rows;
    const auto copy = [&](int r) {
      const T* const from = fields.on(r * at.p.columns.output_length());
#pragma unroll
      for (int f = 0; f < Config::kDerivatives; ++f)
        copy_async<sizeof(T)>(to + r * Exchange::kRow + f * Exchange::kField, from + f * kGroup);
    };
    if (column.exists && rows.has_output_at(row) && rows.has_output_at(row + kStepRows - 1) &&
        row + kStepRows <= last) {
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) copy(r);
      return;
    }
#pragma unroll 1
    for (int r = 0; r < kStepRows; ++r) {
      if (column.exists && rows.has_output_at(row + r) && row + r < last) {
        copy(r);
      } else {
#pragma unroll
        for (int f = 0; f < Config::kDerivatives; ++f)
          *reinterpret_cast<T*>(to + r * Exchange::kRow + f * Exchange::kField) = T(0);
      }
    }
  }

 private:
  // Returns the input row that extended position e reads, or -1 for zero. For positions that only nonexistent
  // outputs would read, it returns some valid row.
  static SSIM_DEVICE int source(const DeviceAxis& axis, int e) {
    const int i = axis.source(e);
    return i < 0 ? (axis.reflects ? 0 : -1) : min(i, axis.n - 1);
  }

  // Copies `Columns` columns of a row of both images, from raw column `Begin` on, if they are inside the
  // image. Called by one warp.
  template <int Begin, int Columns, int ImageBytes>
  static SSIM_DEVICE void copy_row(const Block& at, char* to, int row, int lane) {
    if constexpr (std::is_same_v<typename Config::Source, AnyPixel>) {
      convert_pixels<Begin, Columns, ImageBytes>(at, to, row, lane);
    } else if (at.p.vectors) {
      copy_vectors<Begin, Columns, ImageBytes>(at, to, row, lane);
    } else if (at.p.dense) {
      copy_pixels<Begin, Columns, ImageBytes, true>(at, to, row, lane);
    } else {
      copy_pixels<Begin, Columns, ImageBytes, false>(at, to, row, lane);
    }
  }

  template <int Begin, int Columns, int ImageBytes>
  static SSIM_DEVICE void copy_vectors(const Block& at, char* to, int row, int lane) {
    constexpr int kVector = Config::kVector, kUnits = Columns / kVector;
    static_assert(Columns % kVector == 0 && Begin % kVector == 0);
    const int column = at.raw_begin + Begin + lane * kVector;
    char* const first = to + Row::slot(lane * kVector);
    const uint64_t offset = static_cast<uint32_t>(lane) * uint64_t{16} + Begin * sizeof(Storage);
    const auto* const x = global_memory<const Storage>(at.row_of(0, row) + offset);
    const auto* const y = global_memory<const Storage>(at.row_of(1, row) + offset);
#pragma unroll
    for (int u = 0; u < kUnits; u += kWarpSize) {
      const bool is_unit = u + kWarpSize <= kUnits || lane < kUnits - u;
      if (is_unit && static_cast<unsigned>(column + u * kVector) < static_cast<unsigned>(at.p.columns.n)) {
        char* const unit = first + Row::span(u * kVector);
        copy_async<16>(unit, x + u * kVector);
        copy_async<16>(unit + ImageBytes, y + u * kVector);
      }
    }
  }

  // Like copy_row, for pixels whose type in shared memory differs from that in global memory.
  template <int Begin, int Columns, int ImageBytes>
  static SSIM_DEVICE void convert_pixels(const Block& at, char* to, int row, int lane) {
    const auto& p = at.p;
    const int column_begin = at.raw_begin + Begin;
    const auto pixels = [&](int image, const auto& array) {
      return AnyPixels(global_memory<const char>(at.numbers.first_row(image)), array.type) +
             row * array.stride[2];
    };
    const auto x = pixels(0, p.preds), y = pixels(1, p.target);
#pragma unroll 2
    for (int j = lane; j < Columns; j += kWarpSize) {
      const int column = column_begin + j;
      if (static_cast<unsigned>(column) >= static_cast<unsigned>(p.columns.n)) continue;
      *reinterpret_cast<Storage*>(to + Row::slot(j)) = x[column * p.preds.stride[3]];
      *reinterpret_cast<Storage*>(to + Row::slot(j) + ImageBytes) = y[column * p.target.stride[3]];
    }
  }

  // Copies pixel by pixel. The pixels of a lane are kWarpSize columns apart. `Dense`: the pixels of a row are
  // contiguous, so that this distance is a compile-time number of bytes.
  template <int Begin, int Columns, int ImageBytes, bool Dense>
  static SSIM_DEVICE void copy_pixels(const Block& at, char* to, int row, int lane) {
    const auto& p = at.p;
    const int first = at.raw_begin + Begin + lane;
    char* const first_slot = to + Row::slot(lane);
    const auto is_pixel = [&](int columns_on) {
      return (columns_on + kWarpSize <= Columns || lane < Columns - columns_on) &&
             static_cast<unsigned>(first + columns_on) < static_cast<unsigned>(p.columns.n);
    };
    // Opaque addresses: otherwise the compiler recomputes each one from the row and the strides.
    const auto first_pixel = [&](int image, const auto& array) {
      const int64_t offset = row * array.stride[2] + (Dense ? first : first * array.stride[3]);
      return opaque(at.numbers.first_row(image) + static_cast<uint64_t>(offset) * sizeof(Storage));
    };
    const auto step = [](const auto& array) {
      return kWarpSize * sizeof(Storage) * (Dense ? 1 : static_cast<uint64_t>(array.stride[3]));
    };
    uint64_t x = first_pixel(0, p.preds), y = first_pixel(1, p.target);
    const uint64_t step_x = step(p.preds), step_y = step(p.target);
    constexpr int kAtOnce = 3;  // loads in flight, for pixels too small for asynchronous copies
#pragma unroll
    for (int begin = 0; begin < Columns; begin += kWarpSize * kAtOnce) {
      // Initialized, because ptxas would carry unset values from step to step, on 10.0 and 12.0 through local
      // memory.
      Storage xs[kAtOnce] = {}, ys[kAtOnce] = {};
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int on = begin + kWarpSize * i;
        if (on >= Columns || !is_pixel(on)) continue;
        const auto* const from_x = global_memory<const Storage>(x + i * step_x);
        const auto* const from_y = global_memory<const Storage>(y + i * step_y);
        if constexpr (sizeof(Storage) == 2) {
          xs[i] = *from_x, ys[i] = *from_y;
        } else {
          copy_async<sizeof(Storage)>(first_slot + Row::span(on), from_x);
          copy_async<sizeof(Storage)>(first_slot + Row::span(on) + ImageBytes, from_y);
        }
      }
      if constexpr (sizeof(Storage) == 2) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int on = begin + kWarpSize * i;
          if (on >= Columns || !is_pixel(on)) continue;
          *reinterpret_cast<Storage*>(first_slot + Row::span(on)) = xs[i];
          *reinterpret_cast<Storage*>(first_slot + Row::span(on) + ImageBytes) = ys[i];
        }
      }
      x += kAtOnce * step_x, y += kAtOnce * step_y;
    }
  }
};

}  // namespace ssim_fused::cuda
