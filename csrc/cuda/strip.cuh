// The CUDA kernel for windows of radius at most 5: one block marches down one strip of one plane, from raw
// pixels to sums, map and gradients, and nothing in between leaves the chip. kRows rows are taken a step:
//
//   1. raw rows arrive in shared memory by asynchronous copies, during steps 3 and 4 of the rows before;
//   2. along the row: a thread makes the four moments (math/ssim.h) of a chunk of 8 columns of one row;
//   3. down the column: a thread owns a column; its window is a transposed FIR filter in registers, in which
//      a row adds to the sums of all outputs it belongs to, so that shifting costs nothing. Then the formula,
//      and a second such filter over the derivative maps;
//   4. along the row again: a thread gathers the derivatives of a chunk and writes 8 pixels of the gradient.
//
// Positions and taps are those of fir.cuh. Of volumes it marches over single slices, in two parts, between
// which depth.cuh works along the depth: stages 1 to 3 with the moments as result; then the second filter of
// stage 3, over derivatives that arrive as raw rows do, and stage 4.
#pragma once

#include <cstdint>

#include "../math/geometry.h"
#include "../math/ssim.h"
#include "device.cuh"
#include "fir.cuh"
#include "picture.cuh"
#include "slices.cuh"

namespace ssim_fused {

constexpr int kRows = 8;   // of a step
constexpr int kChunk = 8;  // columns a thread takes along a row

// Rows marched through before the first gradient row (the first value) of a split is complete.
constexpr int warm_up_rows(bool with_gradient) { return with_gradient ? 4 * kRadius : 2 * kRadius; }

// Whose gradient is computed. That of a mean is the path of training, and serves the plain metric: there is
// neither map, nor upstream gradient, nor derivative by the constants.
enum class Weights { mean_similarity, mean_contrast, general };

// An image is marched through as a whole; slices of volumes in two parts, from pixels to moments and from
// derivatives to the gradient.
enum class Part { whole, moments, gradient };

// One variant of the kernel. `Columns` is the strip's width and the block's threads. `Maps` counts the
// derivative maps: 0 without gradients, 3 for preds, 4 for preds and target. `Single`: one strip holds the
// whole picture.
template <class Storage_, int Columns_, int Maps_, Weights Weights_, bool Narrow_, bool Single_ = false,
          Part Part_ = Part::whole>
struct StripConfig {
  using Storage = Storage_;
  using T = ComputeOf<Storage>;
  static constexpr int kColumns = Columns_, kThreads = Columns_, kMaps = Maps_;
  static constexpr bool kGeneral = Weights_ == Weights::general, kNarrow = Narrow_, kSingle = Single_;
  static constexpr bool kOfContrast = Weights_ == Weights::mean_contrast;
  static constexpr Part kPart = Part_;

  // Columns of outputs computed before the first owned column: the gradient needs its neighbours' too.
  static constexpr int kLead = kMaps > 0 && !kSingle ? kRadius : 0;
  // A strip owns kStep columns, whole vectors; the last up to kLast, having nothing to its right.
  static constexpr int kVector = Vector<Storage>::kSize;
  static constexpr int kStep = kMaps > 0 ? (kColumns - 2 * kRadius) / kVector * kVector : kColumns;
  static constexpr int kLast = kColumns - kLead;

  // Raw rows start at a whole vector: kRawShift columns before the first one that is read. A chunk's windows
  // read 18 columns, which together with the shift fill whole vectors.
  static constexpr int kRawLead = (kLead + kRadius + kVector - 1) / kVector * kVector;
  static constexpr int kRawShift = kRawLead - kLead - kRadius;
  static constexpr int kWindowed = kChunk + 2 * kRadius;
  static constexpr int kRawVectors = (kWindowed + kRawShift + kVector - 1) / kVector;
  static constexpr int kRawColumns = kColumns - kChunk + kRawVectors * kVector;

  // Shared memory, in bytes. Along a row, eight threads that read sixteen bytes at once are four chunks of
  // one row and four of the next, or where a warp has one row, of its other half. These begin an odd number
  // of sixteen bytes later, or for 16-bit pixels four modulo eight, so that the eight meet in no bank (two at
  // a time for double).
  static constexpr bool kHalves = kColumns == 256;
  template <class Element>
  static constexpr int kBankShift = sizeof(Element) == 2 ? 64 : 16;
  template <class Element>
  static constexpr int padded(int columns) {
    constexpr int kShift = kBankShift<Element>;
    const int bytes = columns * int{sizeof(Element)} + (kHalves ? columns / 128 * kShift : 0);
    return (bytes + kShift - 1) / (2 * kShift) * (2 * kShift) + kShift;
  }
  static constexpr int kRawRow = padded<Storage>(kRawColumns);
  static constexpr int kRawImage = kRows * kRawRow;
  static constexpr int kRaw = kPart == Part::gradient ? 0 : 2 * kRawImage;  // preds, target
  // The pixels that step 4 multiplies by: owned columns of preds and target.
  static constexpr int kPixelRow = padded<Storage>(kColumns);
  static constexpr int kPixelImage = kRows * kPixelRow;
  static constexpr int kPixels = kMaps > 0 ? 2 * kPixelImage : 0;
  // Moments and, in their place, derivatives: [map][row][column], with margins for outputs that the block
  // does not compute. A single strip has one on the left, too. Where there is but one of the two, there are
  // two such buffers, in turns.
  static constexpr int kLeft = kMaps > 0 && kSingle ? 8 : 0;
  static constexpr int kGatherShift = kLeft > 0 ? kLeft - kRadius : 0;
  static constexpr int kGatherVectors =
      (kWindowed + kGatherShift + 16 / int{sizeof(T)} - 1) / (16 / int{sizeof(T)});
  static constexpr int kMapColumns =
      kMaps > 0 ? kColumns - kChunk + kGatherVectors * (16 / int{sizeof(T)}) : kColumns;
  static constexpr int kMapRow = padded<T>(kMapColumns);
  static constexpr int kMap = kRows * kMapRow;
  static constexpr int kExchangeMaps = kPart == Part::gradient ? kMaps : 4;
  static constexpr int kExchange = kExchangeMaps * kMap;
  static constexpr int kBuffers = kMaps > 0 && kPart == Part::whole ? 1 : 2;
  // Taps that fold the reflection of rows back, for the first rows, the last rows, all others; and what the
  // reflection of columns adds to the gradients of a step.
  static constexpr int kFoldTaps = kMaps > 0 ? kFoldPlaces * (kTaps + 1) * sizeof(T) : 0;
  static constexpr int kFoldColumns = kRows * 2 * kRadius;  // pixels of one gradient
  static constexpr int kFolds = kMaps > 0 ? (kMaps - 2) * kFoldColumns * sizeof(T) : 0;
  static constexpr int kSums = kGeneral ? int{kWithConstants} : int{kMeans};
  static constexpr int kTotals = kPart == Part::whole ? kSums * kThreads * sizeof(double) : 0;
  static constexpr int kNumbers = 8 * sizeof(T) + 4 * sizeof(int64_t) + 4 * sizeof(int);
  // Where they begin.
  static constexpr int kPixelsAt = kRaw, kExchangeAt = kPixelsAt + kPixels,
                       kFoldTapsAt = kExchangeAt + kBuffers * kExchange, kFoldsAt = kFoldTapsAt + kFoldTaps,
                       kTotalsAt = kFoldsAt + kFolds, kNumbersAt = kTotalsAt + kTotals;
  static constexpr int kSharedBytes = kNumbersAt + kNumbers;

  // Rows of a step that one warp stages and reads, so that nobody else need wait for it; 0: they are not one
  // warp's.
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowsOfWarp = kRows % kWarps == 0 ? kRows / kWarps : 0;

  static_assert(kColumns % 32 == 0 && kThreads == kRows * kColumns / kChunk, "one chunk a thread and step");
  static_assert(kRawVectors * kVector <= kWindowed + kRawShift + kVector - 1);
  static_assert(kTotalsAt % 8 == 0 && kMap % 16 == 0 && kRawRow % 16 == 0, "everything is aligned");
  static_assert(kMaps == 0 || kMaps == 3 || kMaps == 4);
  static_assert(kPart == Part::whole || (kMaps > 0) == (kPart == Part::gradient));
};

template <class Storage>
struct StripParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  // The rows of all strips of all planes are counted through, `rows_of_strip` each, of which the last may lie
  // beyond the picture; a block marches down `rows_of_block` of them.
  int64_t rows_of_block, rows_of_strip, all_strips;
  int strips;             // of a plane
  int parts;              // of a strip, at most, in different blocks
  bool vectors;           // every row of every image is whole, aligned vectors
  uint32_t row_bytes[4];  // from one row to the next, where they are: preds, target, their gradients
  bool mirrors;           // columns: the adjoint of reflection is to mirror the derivatives
  T row_taps[kTaps], column_taps[kTaps];
  // Of volumes; planes are slices then, and there are no sums.
  int64_t first_plane;   // of this launch
  int64_t first_volume;  // with which `maps` begins
  const T* pivots;       // [B C]
  T* maps;               // moments or derivatives (slices.cuh)
};

template <class Config>
class StripMarch {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Params = StripParams<Storage>;
  static constexpr int kColumns = Config::kColumns, kMaps = Config::kMaps;
  static constexpr int kMapsOr1 = kMaps > 0 ? kMaps : 1;  // an array needs an element
  static constexpr int kVector = Config::kVector;
  static constexpr bool kOfMoments = Config::kPart == Part::moments,
                        kOfGradient = Config::kPart == Part::gradient;
  static constexpr int kWindowLag = kOfGradient ? 0 : kRadius;              // rows that a window lags behind
  static constexpr int kHalo = kMaps > 0 ? kWindowLag + kRadius : kRadius;  // rows before the owned ones

 public:
  SSIM_DEVICE explicit StripMarch(const Params& p)
      : p_(p), shared_(shared_memory()), thread_(opaque(threadIdx.x)) {}

  SSIM_DEVICE void run() {
    int64_t at = blockIdx.x * p_.rows_of_block;
    const int64_t end = min(at + p_.rows_of_block, p_.rows_of_strip * p_.all_strips);
    while (at < end) {
      const int64_t strip = at / p_.rows_of_strip;
      const int64_t next = min(end, (strip + 1) * p_.rows_of_strip);
      row_begin_ = static_cast<int>(at - strip * p_.rows_of_strip);
      row_end_ = static_cast<int>(min(int64_t{p_.rows.n}, next - strip * p_.rows_of_strip));
      begin_strip(strip);
      if constexpr (kOfGradient) {
        march_from_derivatives();
      } else {
        march();
      }
      if constexpr (Config::kPart == Part::whole) write_sums(strip);
      at = next;
      if (at < end) __syncthreads();  // the next one writes where the sums were added up
    }
  }

 private:
  SSIM_DEVICE void begin_strip(int64_t strip_of_all) {
    int64_t plane = strip_of_all / p_.strips;
    const int strip = static_cast<int>(strip_of_all - plane * p_.strips);
    int64_t slice = 0;
    if constexpr (kOfMoments || kOfGradient) {
      plane += p_.first_plane;
      volume_ = plane / p_.depth.n;
      slice = plane - volume_ * p_.depth.n;
      maps_ =
          p_.maps + (plane - p_.first_volume * p_.depth.n) * SliceLayout(p_.rows, p_.columns).slice_size();
      plane = volume_;
    }
    image_ = plane / p_.channels;
    channel_ = plane - image_ * p_.channels;
    if constexpr (Config::kGeneral) {
      map_ = p_.map.data ? p_.map.plane(image_, channel_) : nullptr;
      grad_map_ = p_.grad_map.data ? p_.grad_map.plane(image_, channel_) : nullptr;
    }
    column_begin_ = strip * Config::kStep;
    column_end_ = strip + 1 == p_.strips ? p_.columns.n : column_begin_ + Config::kStep;
    raw_begin_ = column_begin_ - Config::kRawLead;
    if (thread() == 0) {
      mirrors_raw() =
          p_.columns.reflects && (raw_begin_ < 0 || raw_begin_ + Config::kRawColumns > p_.columns.n);
      const bool folds = p_.columns.reflects && p_.columns.pad > 0 &&
                         (column_begin_ <= p_.columns.pad || column_end_ >= p_.columns.n - p_.columns.pad);
      has_folded_columns() = folds && !p_.mirrors;
      mirrors_derivatives() = folds && p_.mirrors;
      const auto place = [&](const auto& picture, int column) {
        return reinterpret_cast<uint64_t>(picture.data) +
               sizeof(Storage) * (picture.plane_offset(image_, channel_, slice) + (p_.vectors ? column : 0));
      };
      first_row(0) = place(p_.preds, raw_begin_);
      first_row(1) = place(p_.target, raw_begin_);
      first_row(2) = place(p_.grad_preds, column_begin_);
      first_row(3) = place(p_.grad_target, column_begin_);
    }
    __syncthreads();
  }

  SSIM_DEVICE void march() {
    const int first = row_begin_ > 0 ? row_begin_ - kHalo : -kRadius;
    const int last = row_end_ + kHalo;
    stage(first);
    prepare();
    wait_for_copies();
    __syncthreads();
    int buffer = 0;
    for (int row = first; row < last; row += kRows) {
      if (mirrors_raw()) {
        mirror_raw();
        sync_rows();
      }
      along_the_row(buffer);
      const auto stage_next = [&] {
        if (row + kRows < last) stage(row + kRows);
        if constexpr (kMaps > 0) stage_pixels(row - 2 * kRadius);
      };
      if constexpr (kRowsOfWarp > 0) {
        sync_warp();
        stage_next();
        __syncthreads();
      } else {
        __syncthreads();
        stage_next();
      }
      if constexpr (kOfMoments) {
        moments_down_the_column(row, buffer);
      } else {
        down_the_column(row, buffer);
      }
      wait_for_copies();
      if constexpr (kMaps > 0) {
        __syncthreads();
        along_the_row_again(row - 2 * kRadius, 0);
      } else {
        buffer = Config::kExchange - buffer;
      }
      sync_rows();
    }
  }

  // The derivatives of a step arrive in the exchange, and are filtered in place: while a thread gathers,
  // those of the next step arrive in the other buffer; while it filters, the pixels to multiply by.
  SSIM_DEVICE void march_from_derivatives() {
    const int first = row_begin_ > 0 ? row_begin_ - kHalo : 0;
    const int last = row_end_ + kHalo;
    stage_derivatives(first, last, 0);
    commit_copies();
    prepare();
    __syncthreads();
    int buffer = 0;
    for (int row = first; row < last; row += kRows) {
      stage_pixels(row - kRadius);
      commit_copies();
      wait_for_copies_before_last();  // for the derivatives, not for the pixels
      derivatives_down_the_column(row, buffer);
      wait_for_copies();
      __syncthreads();
      if (row + kRows < last) stage_derivatives(row + kRows, last, Config::kExchange - buffer);
      commit_copies();
      along_the_row_again(row - kRadius, buffer);
      buffer = Config::kExchange - buffer;
      sync_rows();
    }
  }

  // ---- Geometry

  // Where a column lies in a row of shared memory, in bytes.
  template <class Element>
  static SSIM_DEVICE int slot(int column) {
    const int place = column * static_cast<int>(sizeof(Element));
    if constexpr (!Config::kHalves) return place;
    return place +
           static_cast<int>(static_cast<unsigned>(column) / 128) * Config::template kBankShift<Element>;
  }

  static SSIM_DEVICE bool has_tap(int k, int radius) {
    return ssim_fused::has_tap<Config::kNarrow>(k, radius);
  }

  // Input row or column that position e reads, -1 for zero. Positions that only outputs which do not exist
  // would read yield some valid one.
  static SSIM_DEVICE int source(const DeviceAxis& axis, int e) {
    const int i = axis.source(e);
    return i < 0 ? (axis.reflects ? 0 : -1) : min(i, axis.n - 1);
  }

  // ---- Threads. Where their index places them is cheaper to compute in every step than to keep: the filters
  // of step 3 fill the registers.

  SSIM_DEVICE unsigned thread() const { return opaque(thread_); }

  static constexpr int kRowsOfWarp = Config::kRowsOfWarp, kWarps = Config::kWarps;

  // Between threads that share rows.
  static SSIM_DEVICE void sync_rows() {
    if constexpr (kRowsOfWarp > 0) {
      sync_warp();
    } else {
      __syncthreads();
    }
  }

  // A thread's chunk of 8 columns of one row.
  struct Chunk {
    int row, column;  // within the step and the strip

    SSIM_DEVICE explicit Chunk(unsigned thread) {
      const unsigned place = thread % 4, second = thread / 4 % 2, eight = thread / 8;
      if constexpr (Config::kHalves) {
        row = static_cast<int>(eight / 4);
        column = static_cast<int>((second * 16 + eight % 4 * 4 + place) * kChunk);
      } else {
        constexpr unsigned kEights = kColumns / 32;  // of two rows
        row = static_cast<int>(eight / kEights * 2 + second);
        column = static_cast<int>((eight % kEights * 4 + place) * kChunk);
      }
    }
    // Where it and the chunks after it lie in rows of kRowBytes.
    template <class Element, int kRowBytes>
    SSIM_DEVICE int place(int columns_on) const {
      return row * kRowBytes + slot<Element>(column + columns_on);
    }
  };

  // A thread's column of outputs.
  struct Column {
    int place;  // in the exchange's first row, in shared memory
    int z;
    bool exists, is_owned, is_cropped_in;

    SSIM_DEVICE explicit Column(const StripMarch& march) {
      const int thread = static_cast<int>(march.thread());
      place = Config::kExchangeAt + slot<T>(thread + Config::kLeft);
      z = march.column_begin_ - Config::kLead + thread;
      exists = ssim_fused::exists(march.p_.columns, z);
      is_owned = exists && z >= march.column_begin_ && z < march.column_end_;
      is_cropped_in = exists && in_crop(march.p_.columns, z);
    }

    // Twice the weight of its outputs in the mean. Where derivatives are mirrored about the first column or
    // the last, that one counts twice.
    SSIM_DEVICE T weight(const StripMarch& march) const {
      if constexpr (kMaps == 0 || Config::kGeneral) return T(0);
      if constexpr (Config::kOfContrast) return is_cropped_in ? T(2) * march.number(kContrastWeight) : T(0);
      const T weight = exists ? T(2) * march.number(kSimilarityWeight) : T(0);
      return march.p_.mirrors && (z == 0 || z == march.p_.columns.n - 1) ? T(2) * weight : weight;
    }
  };

  // ---- Before the march

  SSIM_DEVICE T* fold_taps() const { return reinterpret_cast<T*>(shared_ + Config::kFoldTapsAt); }
  SSIM_DEVICE T* folds() const { return reinterpret_cast<T*>(shared_ + Config::kFoldsAt); }
  // What all threads need in every step; shared memory is a better place for it than registers.
  enum Number { kPivot, kC1, kC2, kSimilarityWeight, kContrastWeight };
  static constexpr int kWeight = 3;  // in the thread's own list, of the column
  SSIM_DEVICE T& number(Number n) const { return reinterpret_cast<T*>(shared_ + Config::kNumbersAt)[n]; }
  // Likewise where the plane's first row begins: preds, target, their gradients. Where rows are whole
  // vectors, at the first raw column or the first owned one, of a gradient; else at the first column.
  SSIM_DEVICE uint64_t& first_row(int image) const {
    return reinterpret_cast<uint64_t*>(shared_ + Config::kNumbersAt + 8 * sizeof(T))[image];
  }
  // That of another row, where rows are whole vectors.
  SSIM_DEVICE uint64_t row_of(int image, int row) const {
    return first_row(image) + uint64_t{static_cast<uint32_t>(row)} * p_.row_bytes[image];
  }
  // What a strip at a border that reflects has to do: mirror raw pixels; mirror derivatives, or where that is
  // not the adjoint, fold gradients.
  SSIM_DEVICE int& flag(int i) const {
    return reinterpret_cast<int*>(shared_ + Config::kNumbersAt + 8 * sizeof(T) + 4 * sizeof(int64_t))[i];
  }
  SSIM_DEVICE int& has_folded_columns() const { return flag(0); }
  SSIM_DEVICE int& mirrors_raw() const { return flag(1); }
  SSIM_DEVICE int& mirrors_derivatives() const { return flag(2); }
  SSIM_DEVICE double* totals() const { return reinterpret_cast<double*>(shared_ + Config::kTotalsAt); }

  SSIM_DEVICE void prepare() {
    const int thread = static_cast<int>(this->thread());
    if (thread < 32) {
      const T value = pivot(thread);
      if (thread == 0) {
        number(kPivot) = value;
        number(kC1) = formula_constant(p_.constants ? p_.constants[0] : p_.c1);
        number(kC2) = formula_constant(p_.constants ? p_.constants[1] : p_.c2);
        number(kSimilarityWeight) = p_.of_similarity.of(image_);
        number(kContrastWeight) = p_.of_contrast.of(image_);
      }
    }
    // Raw columns beyond the border: zeros, unless they are mirrored in every step.
    if (!kOfGradient && (raw_begin_ < 0 || raw_begin_ + Config::kRawColumns > p_.columns.n)) {
#pragma unroll 1
      for (int j = thread; j < Config::kRawColumns; j += Config::kThreads) {
        if (static_cast<unsigned>(raw_begin_ + j) < static_cast<unsigned>(p_.columns.n)) continue;
#pragma unroll 1
        for (int row = 0; row < 2 * kRows; ++row) {
          *reinterpret_cast<Storage*>(shared_ + row * Config::kRawRow + slot<Storage>(j)) = Storage{};
        }
      }
    }
    if constexpr (kMaps > 0) {
      // Step 4 reads beyond the columns computed, for pixels that the next strip owns, or none does.
      constexpr int kMargin = Config::kMapColumns - kColumns;
#pragma unroll 1
      for (int i = thread; i < Config::kBuffers * Config::kExchangeMaps * kRows * kMargin;
           i += Config::kThreads) {
        const int j = i % kMargin;
        *reinterpret_cast<T*>(shared_ + Config::kExchangeAt + i / kMargin * Config::kMapRow +
                              slot<T>(j < Config::kLeft ? j : kColumns + j)) = T(0);
      }
#pragma unroll 1
      for (int i = thread; i < kFoldPlaces * kTaps; i += Config::kThreads) {
        const int place = i / kTaps, k = i % kTaps;
        fold_taps()[place * (kTaps + 1) + k] = fold_tap(p_.rows, p_.row_taps, place, k);
      }
    }
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) {
#pragma unroll
      for (int m = 0; m < 4; ++m) moment_[m][k] = T(0);
#pragma unroll
      for (int m = 0; m < kMaps; ++m) derivative_[m][k] = T(0);
    }
    if constexpr (Config::kPart == Part::whole) {
#pragma unroll
      for (int n = 0; n < Config::kSums; ++n) totals()[n * Config::kThreads + thread] = 0;
    }
  }

  // For one warp.
  SSIM_DEVICE T pivot(int lane) const {
    if constexpr (Config::kPart != Part::whole) return p_.pivots[volume_];
    return choose_pivot(p_.target.plane(image_, channel_), p_.target.stride[2], p_.target.stride[3],
                        row_begin_, row_end_ - row_begin_, column_begin_, column_end_ - column_begin_, lane);
  }

  // ---- 1. Raw rows to shared memory

  SSIM_DEVICE void stage(int row) {
    const bool inside = row >= 0 && row + kRows <= p_.rows.n;
    for_each_row([&](int r, int lane) {
      char* const to = shared_ + r * Config::kRawRow;
      const int from = inside ? row + r : source(p_.rows, row + r);
      if (from >= 0) {
        stage_row<0, Config::kRawColumns, Config::kRawImage>(to, from, lane);
      } else {
#pragma unroll 1
        for (int j = lane; j < Config::kRawColumns; j += 32) {
          *reinterpret_cast<Storage*>(to + slot<Storage>(j)) = Storage{};
          *reinterpret_cast<Storage*>(to + slot<Storage>(j) + Config::kRawImage) = Storage{};
        }
      }
    });
  }

  // Those that step 4 will want, of the rows from `first_row` on that are owned.
  SSIM_DEVICE void stage_pixels(int first_row) {
    for_each_row([&](int r, int lane) {
      const int row = first_row + r;
      if (row < row_begin_ || row >= row_end_) return;
      stage_row<Config::kRawLead, kColumns, Config::kPixelImage>(
          shared_ + Config::kPixelsAt + r * Config::kPixelRow, row, lane);
    });
  }

  // Calls f(row of the step, lane) for the rows of the thread's warp.
  template <class F>
  SSIM_DEVICE void for_each_row(F&& f) const {
    const unsigned thread = this->thread();
    const int warp = static_cast<int>(thread / 32), lane = static_cast<int>(thread % 32);
    if constexpr (kRowsOfWarp > 0) {
#pragma unroll 1
      for (int i = 0; i < kRowsOfWarp; ++i) f(warp * kRowsOfWarp + i, lane);
    } else {
#pragma unroll 1
      for (int r = warp; r < kRows; r += kWarps) f(r, lane);
    }
  }

  // One warp copies `Columns` columns of a row of both images, from raw column `Begin` on, as far as they lie
  // in the picture.
  template <int Begin, int Columns, int ImageBytes>
  SSIM_DEVICE void stage_row(char* to, int row, int lane) {
    if (p_.vectors) {
      constexpr int kUnits = Columns / kVector;
      static_assert(Columns % kVector == 0 && Begin % kVector == 0);
      const int column = raw_begin_ + Begin + lane * kVector;
      char* const first = to + slot<Storage>(lane * kVector);
      const uint64_t at = static_cast<uint32_t>(lane) * uint64_t{16} + Begin * sizeof(Storage);
      const auto* const x = global_memory<const Storage>(row_of(0, row) + at);
      const auto* const y = global_memory<const Storage>(row_of(1, row) + at);
#pragma unroll
      for (int u = 0; u < kUnits; u += 32) {
        const bool is_unit = u + 32 <= kUnits || lane < kUnits - u;
        if (is_unit && static_cast<unsigned>(column + u * kVector) < static_cast<unsigned>(p_.columns.n)) {
          constexpr int kShift = Config::kHalves ? Config::template kBankShift<Storage> : 0;
          char* const unit = first + u * 16 + u * kVector / 128 * kShift;
          copy_async<16>(unit, x + u * kVector);
          copy_async<16>(unit + ImageBytes, y + u * kVector);
        }
      }
      return;
    }
    const int column_begin = raw_begin_ + Begin;
    const auto* const x = global_memory<const Storage>(first_row(0)) + row * p_.preds.stride[2];
    const auto* const y = global_memory<const Storage>(first_row(1)) + row * p_.target.stride[2];
    const auto is_pixel = [&](int j) {
      return j < Columns && static_cast<unsigned>(column_begin + j) < static_cast<unsigned>(p_.columns.n);
    };
    constexpr int kAtOnce = 3;  // loads under way, where they are too small for asynchronous copies
#pragma unroll 1
    for (int begin = lane; begin < Columns; begin += 32 * kAtOnce) {
      Storage xs[kAtOnce], ys[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int j = begin + 32 * i;
        if (!is_pixel(j)) continue;
        const Storage* const from_x = x + (column_begin + j) * p_.preds.stride[3];
        const Storage* const from_y = y + (column_begin + j) * p_.target.stride[3];
        if constexpr (sizeof(Storage) == 2) {
          xs[i] = *from_x, ys[i] = *from_y;
        } else {
          copy_async<sizeof(Storage)>(to + slot<Storage>(j), from_x);
          copy_async<sizeof(Storage)>(to + slot<Storage>(j) + ImageBytes, from_y);
        }
      }
      if constexpr (sizeof(Storage) == 2) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int j = begin + 32 * i;
          if (!is_pixel(j)) continue;
          *reinterpret_cast<Storage*>(to + slot<Storage>(j)) = xs[i];
          *reinterpret_cast<Storage*>(to + slot<Storage>(j) + ImageBytes) = ys[i];
        }
      }
    }
  }

  // Calls f(row of the step, distance to the border, whether it is the right one) for the kRadius columns
  // beyond either border, in the rows of the warp, or of the block where warps have none.
  template <class F>
  SSIM_DEVICE void for_each_mirrored(F&& f) const {
    const unsigned thread = this->thread();
    constexpr bool kByWarp = kRowsOfWarp > 0;
    constexpr unsigned kThreads = kByWarp ? 32 : Config::kThreads,
                       kTasks = 16 * (kByWarp ? kRowsOfWarp : kRows);
    const unsigned first_row = kByWarp ? thread / 32 * kRowsOfWarp : 0;
#pragma unroll 1
    for (unsigned task = thread % kThreads; task < kTasks; task += kThreads) {
      const int distance = static_cast<int>(task % 8) + 1;
      if (distance <= kRadius) f(static_cast<int>(first_row + task / 16), distance, task % 16 >= 8);
    }
  }

  SSIM_DEVICE void mirror_raw() {
    for_each_mirrored([&](int row, int distance, bool right) {
      const int last = p_.columns.n - 1;
      const int to = (right ? last + distance : -distance) - raw_begin_;
      // Where that is outside, too, no output that exists reads it.
      const int from = (right ? max(last - distance, 0) : min(distance, last)) - raw_begin_;
      if (static_cast<unsigned>(to) >= unsigned{Config::kRawColumns}) return;
      char* const first = shared_ + row * Config::kRawRow;
#pragma unroll
      for (int image = 0; image < 2; ++image) {
        *reinterpret_cast<Storage*>(first + image * Config::kRawImage + slot<Storage>(to)) =
            *reinterpret_cast<const Storage*>(first + image * Config::kRawImage + slot<Storage>(from));
      }
    });
  }

  // Those of a slice, as far as the rows before `last` want them. A thread copies what it will filter itself,
  // so that it need not wait for others.
  SSIM_DEVICE void stage_derivatives(int row, int last, int buffer) {
    const Column column(*this);
    char* const to = shared_ + (column.place + buffer);
    const SliceColumn<T> maps = column_of_slice(row, column);
    const auto copy_row = [&](int r) {
      const T* const from = maps.on(r * p_.columns.output_length());
#pragma unroll
      for (int m = 0; m < kMaps; ++m)
        copy_async<sizeof(T)>(to + r * Config::kMapRow + m * Config::kMap, from + m * kGroup);
    };
    if (column.exists && exists(p_.rows, row) && exists(p_.rows, row + kRows - 1) && row + kRows <= last) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) copy_row(r);
      return;
    }
#pragma unroll 1
    for (int r = 0; r < kRows; ++r) {
      if (column.exists && exists(p_.rows, row + r) && row + r < last) {
        copy_row(r);
      } else {
#pragma unroll
        for (int m = 0; m < kMaps; ++m) {
          *reinterpret_cast<T*>(to + r * Config::kMapRow + m * Config::kMap) = T(0);
        }
      }
    }
  }

  // A column's moments or derivatives from row z on.
  SSIM_DEVICE SliceColumn<T> column_of_slice(int z, const Column& column) const {
    const int row = z - (p_.rows.radius - p_.rows.pad);
    return {maps_, static_cast<int64_t>(row) * p_.columns.output_length() +
                       (column.z - (p_.columns.radius - p_.columns.pad))};
  }

  // ---- 2. Along the row

  static constexpr int kWindowed = Config::kWindowed;

  SSIM_DEVICE void along_the_row(int buffer) {
    const Chunk chunk(thread());
    const T pivot = number(kPivot);
    constexpr int kVectorsOfChunk = kChunk / kVector > 0 ? kChunk / kVector : 1;
    static_assert(kVectorsOfChunk * kVector == kChunk);
    T sum[4][kChunk];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) sum[m][j] = T(0);
    }
#pragma unroll
    for (int v = 0; v < Config::kRawVectors; ++v) {
      const char* const from = shared_ +
                               chunk.template place<Storage, Config::kRawRow>(v / kVectorsOfChunk * kChunk) +
                               v % kVectorsOfChunk * 16;
      const Vector<Storage> xs = *reinterpret_cast<const Vector<Storage>*>(from);
      const Vector<Storage> ys = *reinterpret_cast<const Vector<Storage>*>(from + Config::kRawImage);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int i = v * kVector + e - Config::kRawShift;
        if (i < 0 || i >= kWindowed) continue;
        const T raw_x = to_compute(xs.value[e]), raw_y = to_compute(ys.value[e]);
        const T difference = raw_x - raw_y, x = raw_x - pivot, y = raw_y - pivot;
        const T product = x * y, square = difference * difference;
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
          const int k = i - j;
          if (k < 0 || k >= kTaps || !has_tap(k, p_.columns.radius)) continue;
          const T tap = p_.column_taps[k];
          sum[0][j] += tap * x;
          sum[1][j] += tap * y;
          sum[2][j] += tap * product;
          sum[3][j] += tap * square;
        }
      }
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) store_chunk(exchange(chunk, m, Config::kLeft) + buffer, sum[m]);
  }

  SSIM_DEVICE char* exchange(const Chunk& chunk, int map, int columns_on) const {
    return shared_ + Config::kExchangeAt + map * Config::kMap +
           chunk.template place<T, Config::kMapRow>(columns_on);
  }

  static SSIM_DEVICE void store_chunk(char* to, const T (&values)[kChunk]) {
    constexpr int kSize = Vector<T>::kSize;
#pragma unroll
    for (int v = 0; v < kChunk / kSize; ++v) {
      Vector<T> out;
#pragma unroll
      for (int e = 0; e < kSize; ++e) out.value[e] = values[v * kSize + e];
      *reinterpret_cast<Vector<T>*>(to + v * 16) = out;
    }
  }

  // ---- 3. Down the column

  // What the rows of a step have in common. `inside`: every row is owned (unless General), counts for both
  // means, and no reflection reaches it; `gated`: the same but for being owned; `border`: nothing.
  enum class Rows { inside, gated, border };

  SSIM_DEVICE void down_the_column(int row, int buffer) {
    const int z = row - kRadius;  // the first output this step completes
    const Column column(*this);
    char* const place = shared_ + (column.place + buffer);
    T step[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) step[n] = T(0);
    const T numbers[] = {number(kPivot), number(kC1), number(kC2), column.weight(*this)};
    const auto owned = [&] { return z >= row_begin_ && z + kRows <= row_end_; };
    const int reach = kMaps > 0 ? kRadius : 0;
    const int free = Config::kGeneral ? reach : max(reach, p_.rows.radius);
    const bool is_free = (Config::kGeneral && kMaps == 0) || (z >= free && z + kRows <= p_.rows.n - free);
    if (is_free && (Config::kGeneral || owned())) {
#pragma unroll 4
      for (int r = 0; r < kRows; ++r) {
        output<Rows::inside>(column, z + r, place + r * Config::kMapRow, numbers, step);
      }
    } else if (!Config::kGeneral && is_free) {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) {
        output<Rows::gated>(column, z + r, place + r * Config::kMapRow, numbers, step);
      }
    } else {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) {
        output<Rows::border>(column, z + r, place + r * Config::kMapRow, numbers, step);
      }
    }
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      totals()[n * Config::kThreads + thread()] += static_cast<double>(step[n]);
    }
  }

  // Takes in one row of moments, which completes output z.
  template <Rows rows>
  SSIM_DEVICE void output(const Column& column, int z, char* place, const T (&numbers)[4],
                          T (&step)[Config::kSums]) {
    T complete[4];
    filter_moments(place, complete);
    const auto terms = local_terms(Moments<T>{complete[0], complete[1], complete[2], complete[3]},
                                   numbers[kPivot], numbers[kC1], numbers[kC2]);
    const T similarity = terms.similarity();

    constexpr bool kAllExist = rows != Rows::border && !Config::kGeneral;
    constexpr bool kAllOwned = rows == Rows::inside && !Config::kGeneral;
    const bool row_exists = kAllExist || exists(p_.rows, z);
    const bool row_is_owned = kAllOwned || (row_exists && z >= row_begin_ && z < row_end_);
    const bool row_is_cropped_in = kAllOwned || (row_is_owned && (kAllExist || in_crop(p_.rows, z)));
    if (row_is_owned) step[kSimilarity] += similarity;
    if (row_is_cropped_in) step[kContrastSensitivity] += terms.contrast_sensitivity();

    Moments<T> f;
    if constexpr (Config::kGeneral) {
      T of_similarity = T(0), of_contrast = T(0);
      if (row_exists && column.exists) {
        const int64_t i = z - (p_.rows.radius - p_.rows.pad),
                      j = column.z - (p_.columns.radius - p_.columns.pad);
        of_similarity = number(kSimilarityWeight);
        if (grad_map_) {
          of_similarity += to_compute(grad_map_[i * p_.grad_map.stride[2] + j * p_.grad_map.stride[3]]);
        }
        if (in_crop(p_.rows, z) && in_crop(p_.columns, column.z)) of_contrast = number(kContrastWeight);
        if (map_ && row_is_owned && column.is_owned) {
          store_as(map_[i * p_.map.stride[2] + j * p_.map.stride[3]], similarity);
        }
      }
      if (p_.wants_constants && row_is_owned) {
        const auto by = constant_partials(terms, of_similarity, of_contrast);
        step[kByC1] += by.c1;
        step[kByC2] += by.c2;
      }
      if constexpr (kMaps > 0) f = partials(terms, of_similarity, of_contrast);
    } else if constexpr (kMaps > 0 && Config::kOfContrast) {
      f = partials_of_doubled_contrast(terms, kAllExist || in_crop(p_.rows, z) ? numbers[kWeight] : T(0));
    } else if constexpr (kMaps > 0) {
      // An output that does not exist gets weight zero. It may be a NaN all the same, but then its neighbours
      // that do exist have the NaN in their windows, too, and with them every pixel this one reaches.
      const T weight = row_exists ? numbers[kWeight] : T(0);
      f = partials_of_doubled(terms, weight * terms.contrast_sensitivity(), weight * terms.luminance());
    }
    if constexpr (kMaps > 0) {
      filter_derivatives<rows == Rows::border>(place, z, {f.a, f.p, f.d, f.b});
    }
  }

  // Of a slice: the moments of the windows that the step completes, to scratch.
  SSIM_DEVICE void moments_down_the_column(int row, int buffer) {
    const int z = row - kRadius;
    const Column column(*this);
    const char* const place = shared_ + (column.place + buffer);
    const SliceColumn<T> maps = column_of_slice(z, column);
    const int shift = p_.rows.radius - p_.rows.pad, width = p_.columns.output_length();
    const int begin = max(row_begin_, shift), end = min(row_end_, p_.rows.n - shift);
    const auto output = [&](int r, bool is_owned) {
      T complete[4];
      filter_moments(place + r * Config::kMapRow, complete);
      if (!is_owned) return;
      T* const to = maps.on(r * width);
#pragma unroll
      for (int m = 0; m < 4; ++m) to[m * kGroup] = complete[m];
    };
    if (z >= begin && z + kRows <= end) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) output(r, column.is_owned);
    } else {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) output(r, column.is_owned && z + r >= begin && z + r < end);
    }
  }

  // Of a slice: the derivatives that arrived, to their adjoint's sums.
  SSIM_DEVICE void derivatives_down_the_column(int z, int buffer) {
    const Column column(*this);
    char* const place = shared_ + (column.place + buffer);
    const auto output = [&]<bool Border>(int r) {
      char* const row = place + r * Config::kMapRow;
      T maps[4] = {};
#pragma unroll
      for (int m = 0; m < kMaps; ++m) maps[m] = *reinterpret_cast<const T*>(row + m * Config::kMap);
      filter_derivatives<Border>(row, z + r, maps);
    };
    if (z >= kRadius && z + kRows <= p_.rows.n - kRadius) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) output.template operator()<false>(r);
    } else {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) output.template operator()<true>(r);
    }
  }

  // Takes in one row of moments, which completes those of the window kRadius rows above.
  SSIM_DEVICE void filter_moments(const char* place, T (&complete)[4]) {
    const T* const taps = p_.row_taps;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const T value = *reinterpret_cast<const T*>(place + m * Config::kMap);
      complete[m] = filter<Config::kNarrow>(moment_[m], value, p_.rows.radius,
                                            [&](int k) { return taps[kTaps - 1 - k]; });
    }
  }

  // Takes in the derivatives at z, which completes the adjoint at z - kRadius. `Border`: z may be any row;
  // else no reflection reaches it.
  template <bool Border>
  SSIM_DEVICE void filter_derivatives(char* place, int z, const T (&maps)[4]) {
    const T* const taps = p_.row_taps;
    const T* const edge_taps = Border ? fold_taps() + fold_place(p_.rows, z) * (kTaps + 1) : nullptr;
#pragma unroll
    for (int m = 0; m < kMaps; ++m) {
      const T sum = filter<Config::kNarrow>(derivative_[m], maps[m], p_.rows.radius,
                                            [&](int k) { return Border ? edge_taps[k] : taps[k]; });
      *reinterpret_cast<T*>(place + m * Config::kMap) = sum;
    }
  }

  // ---- 4. Along the row again

  SSIM_DEVICE void along_the_row_again(int first_row, int buffer) {
    if (mirrors_derivatives()) {
      mirror_derivatives(buffer);
      sync_rows();
    } else if (has_folded_columns()) {
      fold_columns(first_row, buffer);
      __syncthreads();
    }
    gradient(first_row, buffer);
    if (!p_.vectors) {
      sync_rows();
      write_rows(first_row);
    }
  }

  SSIM_DEVICE void mirror_derivatives(int buffer) {
    const bool is_first = column_begin_ == 0, is_last = column_end_ + kRadius > p_.columns.n;
    for_each_mirrored([&](int row, int distance, bool right) {
      if (!(right ? is_last : is_first)) return;
      const int border = (right ? p_.columns.n - 1 : 0) - column_begin_ + Config::kLead + Config::kLeft;
      const int outwards = right ? distance : -distance;
      char* const first = shared_ + Config::kExchangeAt + buffer + row * Config::kMapRow;
#pragma unroll
      for (int m = 0; m < kMaps; ++m) {
        *reinterpret_cast<T*>(first + m * Config::kMap + slot<T>(border + outwards)) =
            *reinterpret_cast<const T*>(first + m * Config::kMap + slot<T>(border - outwards));
        // The column that it is about counts twice; in images, by its weight.
        if (kOfGradient && distance == 1) {
          *reinterpret_cast<T*>(first + m * Config::kMap + slot<T>(border)) *= T(2);
        }
      }
    });
  }

  SSIM_DEVICE void gradient(int first_row, int buffer) {
    const Chunk chunk(thread());
    const int row = first_row + chunk.row, column = column_begin_ + chunk.column;
    if (row < row_begin_ || row >= row_end_ || column >= column_end_) return;
    const T pivot = number(kPivot);

    // The maps one after the other, so that few sums are under way at once.
    T by_preds[kChunk], by_target[kChunk], difference[kChunk], sum[kChunk];
    gather<false>(chunk, buffer, 1, sum);
    char* const pixels = shared_ + Config::kPixelsAt + chunk.template place<Storage, Config::kPixelRow>(0);
#pragma unroll
    for (int v = 0; v < kChunk / kVector; ++v) {
      const auto xs = *reinterpret_cast<const Vector<Storage>*>(pixels + v * 16);
      const auto ys = *reinterpret_cast<const Vector<Storage>*>(pixels + Config::kPixelImage + v * 16);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int j = v * kVector + e;
        const T x = to_compute(xs.value[e]), y = to_compute(ys.value[e]);
        difference[j] = x - y;
        by_preds[j] = (y - pivot) * sum[j];
        if constexpr (kMaps == 4) by_target[j] = (x - pivot) * sum[j];
      }
    }
    gather<false>(chunk, buffer, 2, sum);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      by_preds[j] += difference[j] * sum[j];
      if constexpr (kMaps == 4) by_target[j] -= difference[j] * sum[j];
    }
    gather<true>(chunk, buffer, 0, by_preds);
    if constexpr (kMaps == 4) gather<true>(chunk, buffer, 3, by_target);
    if (mirrors_derivatives() && (column == 0 || column + kChunk >= p_.columns.n)) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {  // what is mirrored about the first and the last column
        if (column + j != 0 && column + j != p_.columns.n - 1) continue;
        by_preds[j] *= T(0.5);
        if constexpr (kMaps == 4) by_target[j] *= T(0.5);
      }
    }
    if (has_folded_columns()) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        const int i = column + j;
        if (!p_.columns.is_folded(i)) continue;
        const T* const fold = folds() + chunk.row * 2 * kRadius + column_fold(i);
        by_preds[j] += fold[0];
        if constexpr (kMaps == 4) by_target[j] += fold[Config::kFoldColumns];
      }
    }
    store_pixels(2, row, chunk.column, by_preds, pixels);
    if constexpr (kMaps == 4) store_pixels(3, row, chunk.column, by_target, pixels + Config::kPixelImage);
  }

  // A chunk of a gradient, the column counted from the first owned one. Where rows are not whole vectors, in
  // the place of the pixels.
  SSIM_DEVICE void store_pixels(int image, int row, int column, const T (&values)[kChunk],
                                char* pixels) const {
    Vector<Storage> vectors[kChunk / kVector];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) store_as(vectors[j / kVector].value[j % kVector], values[j]);
    if (p_.vectors) {
      const uint64_t at = row_of(image, row) + static_cast<uint32_t>(column) * uint64_t{sizeof(Storage)};
      auto* const to = global_memory<Vector<Storage>>(at);
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        if (v == 0 || column_begin_ + column + v * kVector < column_end_) to[v] = vectors[v];
      }
    } else {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) reinterpret_cast<Vector<Storage>*>(pixels)[v] = vectors[v];
    }
  }

  // From there to the gradients, pixel by pixel.
  SSIM_DEVICE void write_rows(int first_row) {
    for_each_row([&](int r, int lane) {
      const int row = first_row + r;
      if (row < row_begin_ || row >= row_end_) return;
      const char* const pixels = shared_ + Config::kPixelsAt + r * Config::kPixelRow;
      write_row(2, p_.grad_preds.stride, row, lane, pixels);
      if constexpr (kMaps == 4) write_row(3, p_.grad_target.stride, row, lane, pixels + Config::kPixelImage);
    });
  }
  SSIM_DEVICE void write_row(int image, const int64_t (&stride)[4], int row, int lane, const char* pixels) {
    auto* const to = global_memory<Storage>(this->first_row(image)) + row * stride[2];
#pragma unroll 4
    for (int column = column_begin_ + lane; column < column_end_; column += 32) {
      to[column * stride[3]] =
          *reinterpret_cast<const Storage*>(pixels + slot<Storage>(column - column_begin_));
    }
  }

  // The adjoint along the row, of one derivative map: eight sums, or added to those given.
  template <bool Add>
  SSIM_DEVICE void gather(const Chunk& chunk, int buffer, int map, T (&sum)[kChunk]) const {
    constexpr int kSize = Vector<T>::kSize, kVectorsOfChunk = kChunk / kSize;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) sum[j] = Add ? sum[j] : T(0);
#pragma unroll
    for (int v = 0; v < Config::kGatherVectors; ++v) {
      const Vector<T> values = *reinterpret_cast<const Vector<T>*>(
          exchange(chunk, map, v / kVectorsOfChunk * kChunk) + buffer + v % kVectorsOfChunk * 16);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        const int i = v * kSize + e - Config::kGatherShift;  // of output column + i - kRadius
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
          const int k = kTaps - 1 - (i - j);
          if (k < 0 || k >= kTaps || !has_tap(k, p_.columns.radius)) continue;
          sum[j] += p_.column_taps[k] * values.value[e];
        }
      }
    }
  }

  // Columns next to the border, counted through: 1 ... kRadius, then as many on the right, 0 perhaps among
  // them.
  static SSIM_DEVICE bool is_left(int column) { return column >= 1 && column <= kRadius; }
  SSIM_DEVICE int column_fold(int column) const {
    return is_left(column) ? column - 1 : column - (p_.columns.n - 1 - 2 * kRadius);
  }

  // What the derivatives of the step's rows send to columns beyond the border, which folds back onto the
  // first and last `pad` columns next to it.
  SSIM_DEVICE void fold_columns(int first_row, int buffer) {
    const DeviceAxis& axis = p_.columns;
    for (int task = static_cast<int>(thread()); task < Config::kFoldColumns; task += Config::kThreads) {
      const int r = task / (2 * kRadius), side = task % (2 * kRadius);
      const int row = first_row + r;
      const int column = side < kRadius ? side + 1 : side + axis.n - 1 - 2 * kRadius;
      const bool is_own = column >= column_begin_ && column < column_end_ && axis.is_folded(column);
      if (!is_own || row < row_begin_ || row >= row_end_) continue;
      if (side >= kRadius && is_left(column)) continue;  // a narrow picture's column, which has its place
      T sum[kMapsOr1] = {};
      const auto gather = [&](int extended) {
        const int begin = max(0, extended - axis.radius), end = min(axis.n, extended + axis.radius + 1);
#pragma unroll 1
        for (int z = begin; z < end; ++z) {
          const T tap = p_.column_taps[extended - z + kRadius];
          const char* const from = shared_ + Config::kExchangeAt + buffer + r * Config::kMapRow +
                                   slot<T>(z - column_begin_ + Config::kLead + Config::kLeft);
#pragma unroll
          for (int m = 0; m < kMaps; ++m)
            sum[m] += tap * *reinterpret_cast<const T*>(from + m * Config::kMap);
        }
      };
      if (column >= 1 && column <= axis.pad) gather(-column);
      if (column <= axis.n - 2 && column >= axis.n - 1 - axis.pad) gather(2 * (axis.n - 1) - column);

      const char* const pixel =
          shared_ + Config::kPixelsAt + r * Config::kPixelRow + slot<Storage>(column - column_begin_);
      const T x = to_compute(*reinterpret_cast<const Storage*>(pixel));
      const T y = to_compute(*reinterpret_cast<const Storage*>(pixel + Config::kPixelImage));
      const T by_difference = (x - y) * sum[2];
      T* const fold = folds() + r * 2 * kRadius + column_fold(column);
      fold[0] = sum[0] + ((y - number(kPivot)) * sum[1] + by_difference);
      if constexpr (kMaps == 4)
        fold[Config::kFoldColumns] = sum[3] + ((x - number(kPivot)) * sum[1] - by_difference);
    }
  }

  // ---- After the march

  SSIM_DEVICE void write_sums(int64_t strip) {
    const int thread = static_cast<int>(this->thread());
    const Column column(*this);
    double sums[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      const bool counts = column.is_owned && (n != kContrastSensitivity || in_crop(p_.columns, column.z));
      sums[n] = counts ? totals()[n * Config::kThreads + thread] : 0.0;
    }
    const int part = static_cast<int>(blockIdx.x - strip * p_.rows_of_strip / p_.rows_of_block);
    double* const out = p_.partial + (strip * p_.parts + part) * Config::kSums;
    if (row_end_ == p_.rows.n) {  // the strip has no more parts
      for (int i = thread; i < (p_.parts - 1 - part) * Config::kSums; i += Config::kThreads) {
        out[Config::kSums + i] = 0;
      }
    }
    __syncthreads();  // the totals' place serves the summation, too
    add_up_block<Config::kThreads>(sums, totals(), out, thread);
  }

  const Params& p_;
  char* const shared_;
  const unsigned thread_;

  int64_t image_, channel_;
  int64_t volume_ = 0;  // of a slice
  T* maps_ = nullptr;   // likewise, in scratch
  Storage* map_ = nullptr;
  const Storage* grad_map_ = nullptr;
  int row_begin_, row_end_, column_begin_, column_end_;  // input rows and columns owned

  int raw_begin_;  // input column of the first raw column

  T moment_[4][kTaps - 1], derivative_[kMapsOr1][kTaps - 1];  // the filters' unfinished sums
};

// Registers a thread may have: enough that nothing spills, few enough that an SM holds many threads. Calls
// that are not on the path of training keep more in them.
template <class Config>
constexpr int kRegistersOf = sizeof(typename Config::T) == 8   ? 255
                             : Config::kPart == Part::gradient ? (Config::kMaps == 3 ? 80 : 128)
                             : Config::kMaps == 0              ? (Config::kGeneral ? 128 : 96)
                             : Config::kMaps == 3              ? (Config::kGeneral ? 168 : 128)
                                                               : (Config::kGeneral ? 200 : 168);

// Blocks an SM should hold, from which the compiler derives that number: a quarter of an SM has 16384
// registers for whole warps.
template <class Config>
constexpr int wanted_blocks() {
  constexpr int kWarps = 16384 / (32 * kRegistersOf<Config>)*4;
  constexpr int kBlocks = kWarps * 32 / Config::kThreads;
  return kBlocks < 1 ? 1 : kBlocks;
}

template <class Config>
SSIM_KERNEL(Config::kThreads, wanted_blocks<Config>())
strip_kernel(SSIM_PARAMS StripParams<typename Config::Storage> p) {
  StripMarch<Config>(p).run();
}

}  // namespace ssim_fused
