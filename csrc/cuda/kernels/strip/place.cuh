// The positions of blocks and threads in the strip march: the part of a strip that a block processes, rows of
// shared memory, chunks of columns, columns of outputs; and the numbers that all threads need in every step.
#pragma once

#include <cstdint>

#include "../slices.cuh"
#include "config.cuh"

namespace ssim_fused::cuda {

// The layout of rows of elements in shared memory. In stages 2 and 4, eight threads that together access 128
// bytes in vectors of 16 read four chunks of one row and four of the next row or, if a warp has one row
// (kHalves), of the other half of the row. The second four begin an odd multiple of 16 bytes later, or for
// 16-bit pixels 64 bytes modulo 128, so that the eight vectors are in different banks. For double, two
// vectors share each bank.
template <class Config, class Element>
struct SharedRow {
  static constexpr bool kHalves = Config::kColumns == 256;
  static constexpr int kBankShift = sizeof(Element) == 2 ? 64 : 16;

  static constexpr int bytes(int columns) {
    const int unpadded = columns * int{sizeof(Element)} + (kHalves ? columns / 128 * kBankShift : 0);
    return (unpadded + kBankShift - 1) / (2 * kBankShift) * (2 * kBankShift) + kBankShift;
  }
  // Returns the offset of a column in a row, in bytes.
  static SSIM_DEVICE int slot(int column) {
    const int place = column * static_cast<int>(sizeof(Element));
    if constexpr (!kHalves) return place;
    return place + static_cast<int>(static_cast<unsigned>(column) / 128) * kBankShift;
  }
  // Returns the distance in bytes from a column to the one that is `columns` further on. The first column
  // must be one of the first kWarpSize columns or vectors, and `columns` a multiple of kWarpSize columns or
  // vectors.
  static constexpr SSIM_HOST_DEVICE int span(int columns) {
    return columns * static_cast<int>(sizeof(Element)) + (kHalves ? columns / 128 * kBankShift : 0);
  }
};

// A chunk of 8 columns of one row, which one thread processes in the stages along rows.
template <class Config>
struct Chunk {
  int row, column;  // relative to the step and to the strip

  SSIM_DEVICE explicit Chunk(unsigned thread) {
    const unsigned place = thread % 4, second = thread / 4 % 2, eight = thread / 8;
    if constexpr (SharedRow<Config, typename Config::T>::kHalves) {
      row = static_cast<int>(eight / 4);
      column = static_cast<int>((second * 16 + eight % 4 * 4 + place) * kChunk);
    } else {
      constexpr unsigned kEights = Config::kColumns / (4 * kChunk);  // groups of eight threads in two rows
      row = static_cast<int>(eight / kEights * 2 + second);
      column = static_cast<int>((eight % kEights * 4 + place) * kChunk);
    }
  }
  // Returns the offset of the column that is `columns_on` after the chunk's first one, for rows of kRowBytes.
  template <class Element, int kRowBytes>
  SSIM_DEVICE int place(int columns_on) const {
    return row * kRowBytes + SharedRow<Config, Element>::slot(column + columns_on);
  }
};

// Values that all threads need in every step. They are kept in shared memory to save registers.
template <class Config>
class StripNumbers {
  using T = typename Config::T;

 public:
  static constexpr int kBytes = 8 * sizeof(T) + 4 * sizeof(int64_t) + 4 * sizeof(int);
  enum Number { kPivot, kC1, kC2, kSimilarityWeight, kContrastWeight };

  SSIM_DEVICE explicit StripNumbers(char* memory) : memory_(memory) {}

  SSIM_DEVICE T& operator[](Number n) const { return reinterpret_cast<T*>(memory_)[n]; }
  // The address of row 0 of the plane: of preds, target and their gradients. If rows consist of whole
  // vectors, it is that of the first raw column, or for gradients of the first owned column; otherwise of
  // column 0.
  SSIM_DEVICE uint64_t& first_row(int image) const {
    return reinterpret_cast<uint64_t*>(memory_ + 8 * sizeof(T))[image];
  }
  // What a strip at a reflecting border must do: mirror raw pixels, and either mirror derivatives or, where
  // that is not the adjoint of reflection, fold gradients.
  SSIM_DEVICE int& has_folded_columns() const { return flag(0); }
  SSIM_DEVICE int& mirrors_raw() const { return flag(1); }
  SSIM_DEVICE int& mirrors_derivatives() const { return flag(2); }

 private:
  SSIM_DEVICE int& flag(int i) const {
    return reinterpret_cast<int*>(memory_ + 8 * sizeof(T) + 4 * sizeof(int64_t))[i];
  }
  char* memory_;
};

// The part of a strip that a block processes. Functions recompute positions from the thread index in every
// step instead of keeping them, because the filters of stage 3 fill the registers.
template <class Config>
class StripBlock {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  static constexpr int kRowsOfWarp = Config::kRowsOfWarp;

 public:
  SSIM_DEVICE StripBlock(const StripParamsOf<Config>& params, char* numbers_memory)
      : p(params), numbers(numbers_memory), thread_(opaque(threadIdx.x)) {}

  const StripParamsOf<Config>& p;
  const StripNumbers<Config> numbers;

 private:
  const unsigned thread_;

 public:
  int64_t image, channel;
  int64_t volume = 0;                                // the volume of the slice
  T* fields = nullptr;                               // the fields of the slice, in scratch
  int row_begin, row_end, column_begin, column_end;  // owned rows and columns of the input
  int raw_begin;                                     // input column of raw column 0

  // Sets the strip, by its index among those of all planes. The rows [row_begin, row_end) are already set.
  SSIM_DEVICE void begin_strip(int64_t strip_of_all) {
    int64_t plane = strip_of_all / p.strips;
    const int strip = static_cast<int>(strip_of_all - plane * p.strips);
    int64_t slice = 0;
    if constexpr (Config::kPass != Pass::image) {
      plane += p.first_plane;
      volume = plane / p.depth.n;
      slice = plane - volume * p.depth.n;
      fields = p.fields + (plane - p.first_volume * p.depth.n) * SliceLayout(p.rows, p.columns).slice_size();
      plane = volume;
    }
    image = plane / p.channels;
    channel = plane - image * p.channels;
    column_begin = strip * Config::kOwned;
    column_end = strip + 1 == p.strips ? p.columns.n : column_begin + Config::kOwned;
    raw_begin = column_begin - Config::kRawLead;
    if (thread() == 0) {
      numbers.mirrors_raw() =
          p.columns.reflects && (raw_begin < 0 || raw_begin + Config::kRawColumns > p.columns.n);
      const bool folds = p.columns.reflects && p.columns.pad > 0 &&
                         (column_begin <= p.columns.pad || column_end >= p.columns.n - p.columns.pad);
      numbers.has_folded_columns() = folds && !p.mirrors;
      numbers.mirrors_derivatives() = folds && p.mirrors;
      const auto place = [&](const auto& array, int column) {
        return reinterpret_cast<uint64_t>(array.data) +
               static_cast<uint64_t>(pixel_bytes(array)) *
                   (array.plane_offset(image, channel, slice) + (p.vectors ? column : 0));
      };
      numbers.first_row(0) = place(p.preds, raw_begin);
      numbers.first_row(1) = place(p.target, raw_begin);
      numbers.first_row(2) = place(p.grad_preds, column_begin);
      numbers.first_row(3) = place(p.grad_target, column_begin);
    }
  }

  // Returns the address of a row, if rows consist of whole vectors.
  SSIM_DEVICE uint64_t row_of(int image_of_four, int row) const {
    return numbers.first_row(image_of_four) +
           uint64_t{static_cast<uint32_t>(row)} * p.row_bytes[image_of_four];
  }

  SSIM_DEVICE bool owns_row(int row) const { return row >= row_begin && row < row_end; }

  // ---- Threads

  SSIM_DEVICE unsigned thread() const { return opaque(thread_); }

  // Synchronizes the threads that share rows: a warp, or the block.
  static SSIM_DEVICE void sync_rows(SSIM_CALLER_PARAM) {
    if constexpr (kRowsOfWarp > 0) {
      sync_warp(SSIM_CALLER);
    } else {
      __syncthreads(SSIM_CALLER);
    }
  }

  // Calls f(row of the step, lane) for each row of the thread's warp.
  template <class F>
  SSIM_DEVICE void for_each_row(F&& f) const {
    const unsigned thread = this->thread();
    const int warp = static_cast<int>(thread / kWarpSize), lane = static_cast<int>(thread % kWarpSize);
    if constexpr (kRowsOfWarp > 0) {
#pragma unroll 1
      for (int i = 0; i < kRowsOfWarp; ++i) f(warp * kRowsOfWarp + i, lane);
    } else {
#pragma unroll 1
      for (int r = warp; r < kStepRows; r += Config::kWarps) f(r, lane);
    }
  }

  // Calls f(row of the step, distance to the border, is right border) for the kRadius columns beyond each
  // border. A warp does this for its rows; if rows belong to several warps, the block does it for all rows.
  template <class F>
  SSIM_DEVICE void for_each_mirrored(F&& f) const {
    const unsigned thread = this->thread();
    constexpr bool kByWarp = kRowsOfWarp > 0;
    constexpr unsigned kSide = Config::kRadius <= 8 ? 8 : 16;  // tasks per border and row, a power of two
    constexpr unsigned kThreads = kByWarp ? kWarpSize : Config::kThreads,
                       kTasks = 2 * kSide * (kByWarp ? kRowsOfWarp : kStepRows);
    static_assert(Config::kRadius <= int{kSide});
    const unsigned first_row = kByWarp ? thread / kWarpSize * kRowsOfWarp : 0;
#pragma unroll 1
    for (unsigned task = thread % kThreads; task < kTasks; task += kThreads) {
      const int distance = static_cast<int>(task % kSide) + 1;
      if (distance <= Config::kRadius)
        f(static_cast<int>(first_row + task / (2 * kSide)), distance, task % (2 * kSide) >= kSide);
    }
  }
};

// The column of outputs that one thread processes in stage 3.
template <class Config>
struct StripColumn {
  using T = typename Config::T;
  using Numbers = StripNumbers<Config>;
  int thread;
  int z;
  bool exists, is_owned, is_cropped_in;

  SSIM_DEVICE explicit StripColumn(const StripBlock<Config>& at) : thread(static_cast<int>(at.thread())) {
    const DeviceAxis& axis = at.p.columns;
    z = at.column_begin - Config::kLead + thread;
    exists = axis.has_output_at(z);
    is_owned = exists && z >= at.column_begin && z < at.column_end;
    is_cropped_in = exists && axis.is_in_crop_at(z);
  }

  // Returns twice the weight of the column's outputs in the mean. If derivatives are mirrored, the first and
  // the last column, about which they are, count twice.
  SSIM_DEVICE T doubled_weight(const StripBlock<Config>& at) const {
    if constexpr (Config::kGradients == GradientsOf::none || Config::kGeneral) return T(0);
    if constexpr (Config::kObjective == Objective::mean_contrast)
      return is_cropped_in ? T(2) * at.numbers[Numbers::kContrastWeight] : T(0);
    const T weight = exists ? T(2) * at.numbers[Numbers::kSimilarityWeight] : T(0);
    return at.p.mirrors && (z == 0 || z == at.p.columns.n - 1) ? T(2) * weight : weight;
  }

  // Returns the addresses of the column's moments or derivatives in the scratch of the slice, from row
  // `row_z` on.
  SSIM_DEVICE SliceColumn<T> of_slice(const StripBlock<Config>& at, int row_z) const {
    const auto &rows = at.p.rows, &columns = at.p.columns;
    return {at.fields,
            static_cast<int64_t>(rows.output_at(row_z)) * columns.output_length() + columns.output_at(z)};
  }
};

}  // namespace ssim_fused::cuda
