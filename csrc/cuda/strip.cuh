// The CUDA kernel for windows of radius at most 5: one block marches down one strip of one plane, from raw
// pixels to sums, map and gradients, and nothing in between leaves the chip. kRows rows are taken a step:
//
//   1. raw rows arrive in shared memory by asynchronous copies, during steps 3 and 4 of the rows before;
//   2. along the row: a thread makes the four moments (ssim_math.h) of a chunk of 8 columns of one row;
//   3. down the column: a thread owns a column; its window is a transposed FIR filter in registers, in which
//      a row adds to the sums of all outputs it belongs to, so that shifting costs nothing. Then the formula,
//      and a second such filter over the derivative maps;
//   4. along the row again: a thread gathers the derivatives of a chunk and writes 8 pixels of the gradient.
//
// Positions are counted in input rows and columns. An output is named by the input position z it is centred
// on, so the window's radius and padding only decide which z exist: radius - pad <= z < n - (radius - pad),
// always inside the input since pad <= radius here. Taps are centred in arrays of kTaps; a shorter window
// (`Narrow`) skips the taps beyond it, because a NaN times zero would be a NaN.
#pragma once

#include <cstdint>

#include "../geometry.h"
#include "../ssim_math.h"
#include "device.cuh"
#include "picture.cuh"

namespace ssim_fused {

constexpr int kRadius = 5;
constexpr int kTaps = 2 * kRadius + 1;
constexpr int kRows = 8;   // of a step
constexpr int kChunk = 8;  // columns a thread takes along a row

// Rows marched through before the first gradient row (the first value) of a split is complete.
constexpr int warm_up_rows(bool with_gradient) { return with_gradient ? 4 * kRadius : 2 * kRadius; }

// Whose gradient is computed. That of a mean is the path of training, and serves the plain metric: there is
// neither map, nor upstream gradient, nor derivative by the constants.
enum class Weights { mean_similarity, mean_contrast, general };

// One variant of the kernel. `Columns` is the strip's width and the block's threads. `Maps` counts the
// derivative maps: 0 without gradients, 3 for preds, 4 for preds and target.
template <class Storage_, int Columns_, int Maps_, Weights Weights_, bool Narrow_>
struct StripConfig {
  using Storage = Storage_;
  using T = ComputeOf<Storage>;
  static constexpr int kColumns = Columns_, kThreads = Columns_, kMaps = Maps_;
  static constexpr bool kGeneral = Weights_ == Weights::general, kNarrow = Narrow_;
  static constexpr bool kOfContrast = Weights_ == Weights::mean_contrast;

  // Columns of outputs computed before the first owned column: the gradient needs its neighbours' too.
  // (One would not be needed without gradients; it puts the first raw column in the right place.)
  static constexpr int kLead = kMaps > 0 ? kRadius : 1;
  // A strip owns kStep columns, whole vectors; the last up to kColumns - kLead, having nothing to its right.
  static constexpr int kVector = Vector<Storage>::kSize;
  static constexpr int kStep = (kColumns - (kMaps > 0 ? 2 * kRadius : kLead)) / kVector * kVector;

  // Raw rows start at a whole vector: kRawShift columns before the first one that is read. A chunk's windows
  // read 18 columns, which together with the shift fill whole vectors.
  static constexpr int kRawLead = (kLead + kRadius + kVector - 1) / kVector * kVector;
  static constexpr int kRawShift = kRawLead - kLead - kRadius;
  static constexpr int kWindowed = kChunk + 2 * kRadius;
  static constexpr int kRawVectors = (kWindowed + kRawShift + kVector - 1) / kVector;
  static constexpr int kRawColumns = kColumns - kChunk + kRawVectors * kVector;

  // Shared memory, in bytes. After every 128 bytes of a row come 16 unused, so that threads that read 16
  // bytes each, 16, 32 or 64 apart, meet in no bank (two at a time for double).
  static constexpr int padded(int columns, int size) {
    const int bytes = columns * size;
    return ((bytes + 127) / 128 * 144);
  }
  static constexpr int kRawRow = padded(kRawColumns, sizeof(Storage));
  static constexpr int kRawImage = kRows * kRawRow;
  static constexpr int kRaw = 2 * kRawImage;  // preds, target
  // Moments and, in their place, derivatives: [map][row][column], with a margin of zeros on the right.
  static constexpr int kMapRow = padded(kColumns + kWindowed - kChunk + 2, sizeof(T));
  static constexpr int kMap = kRows * kMapRow;
  static constexpr int kExchange = 4 * kMap;
  // Taps that fold the reflection of rows back, for the first rows, the last rows, all others; and what the
  // reflection of columns adds to the gradients of a step.
  static constexpr int kFoldRows = 2 * kRadius + 1;
  static constexpr int kFoldTaps = kMaps > 0 ? kFoldRows * (kTaps + 1) * sizeof(T) : 0;
  static constexpr int kFoldColumns = kRows * 2 * kRadius;  // pixels of one gradient
  static constexpr int kFolds = kMaps > 0 ? (kMaps - 2) * kFoldColumns * sizeof(T) : 0;
  static constexpr int kSums = kGeneral ? int{kWithConstants} : int{kMeans};
  static constexpr int kTotals = kSums * kThreads * sizeof(double);
  static constexpr int kNumbers = 8 * sizeof(T) + 4 * sizeof(int64_t) + 2 * sizeof(int);
  // Where they begin.
  static constexpr int kExchangeAt = kRaw, kFoldTapsAt = kExchangeAt + kExchange,
                       kFoldsAt = kFoldTapsAt + kFoldTaps, kTotalsAt = kFoldsAt + kFolds,
                       kNumbersAt = kTotalsAt + kTotals;
  static constexpr int kSharedBytes = kNumbersAt + kNumbers;

  static_assert(kColumns % 32 == 0 && kThreads == kRows * kColumns / kChunk, "one chunk a thread and step");
  static_assert(kRawVectors * kVector <= kWindowed + kRawShift + kVector - 1);
  static_assert(kTotalsAt % 8 == 0 && kMap % 16 == 0 && kRawRow % 16 == 0, "everything is aligned");
  static_assert(kMaps == 0 || kMaps == 3 || kMaps == 4);
};

template <class Storage>
struct StripParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  int64_t first_plane;  // of this launch
  int strips, splits;   // of a plane; a block for each
  int rows_of_split;
  bool vectors;  // every row of every image is whole, aligned vectors
  T row_taps[kTaps], column_taps[kTaps];
};

template <class Config>
class StripMarch {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Params = StripParams<Storage>;
  static constexpr int kColumns = Config::kColumns, kMaps = Config::kMaps;
  static constexpr int kMapsOr1 = kMaps > 0 ? kMaps : 1;  // an array needs an element
  static constexpr int kVector = Config::kVector;
  static constexpr int kHalo = kMaps > 0 ? 2 * kRadius : kRadius;  // rows before the owned ones

 public:
  SSIM_DEVICE explicit StripMarch(const Params& p) : p_(p), shared_(shared_memory()) {
    const unsigned strip = blockIdx.x % static_cast<unsigned>(p.strips);
    const unsigned rest = blockIdx.x / static_cast<unsigned>(p.strips);
    const unsigned split = rest % static_cast<unsigned>(p.splits);
    const int64_t plane = p.first_plane + rest / static_cast<unsigned>(p.splits);
    image_ = plane / p.channels;
    const int64_t channel = plane % p.channels;
    if constexpr (Config::kGeneral) {
      map_ = p.map.data ? p.map.plane(image_, channel) : nullptr;
      grad_map_ = p.grad_map.data ? p.grad_map.plane(image_, channel) : nullptr;
    }

    column_begin_ = static_cast<int>(strip) * Config::kStep;
    column_end_ = static_cast<int>(strip) + 1 == p.strips ? p.columns.n : column_begin_ + Config::kStep;
    row_begin_ = static_cast<int>(split) * p.rows_of_split;
    row_end_ = min(p.rows.n, row_begin_ + p.rows_of_split);

    raw_begin_ = column_begin_ - Config::kRawLead;
    if (threadIdx.x == 0) {
      raw_is_inside() = p.vectors && raw_begin_ >= 0 && raw_begin_ + Config::kRawColumns <= p.columns.n;
      has_folded_columns() = p.columns.reflects && p.columns.pad > 0 &&
                             (column_begin_ <= p.columns.pad || column_end_ >= p.columns.n - p.columns.pad);
      plane_offset(0) = p.preds.plane_offset(image_, channel);
      plane_offset(1) = p.target.plane_offset(image_, channel);
      plane_offset(2) = p.grad_preds.plane_offset(image_, channel);
      plane_offset(3) = p.grad_target.plane_offset(image_, channel);
    }
    __syncthreads();

    plain_begin_ = -kRows, plain_end_ = p.rows.n + kRows + kHalo;
    if constexpr (kMaps > 0) plain_begin_ = kRadius, plain_end_ = p.rows.n - kRadius;
    if constexpr (!Config::kGeneral) {
      plain_begin_ = max(row_begin_, max(plain_begin_, p.rows.radius));
      plain_end_ = min(row_end_, min(plain_end_, p.rows.n - p.rows.radius));
    }
  }

  SSIM_DEVICE void run() {
    const int first = row_begin_ > 0 ? row_begin_ - kHalo : -kRadius;
    const int last = row_end_ + kHalo;
    stage(first);
    prepare();
    for (int row = first; row < last; row += kRows) {
      wait_for_copies();
      __syncthreads();
      along_the_row();
      __syncthreads();
      if (row + kRows < last) stage(row + kRows);
      down_the_column(row);
      if constexpr (kMaps > 0) {
        __syncthreads();
        if (has_folded_columns()) {
          fold_columns(row - 2 * kRadius);
          __syncthreads();
        }
        gradient(row - 2 * kRadius);
      }
    }
    write_sums();
  }

 private:
  // ---- Geometry

  static SSIM_DEVICE bool exists(const DeviceAxis& axis, int z) {
    const int shift = axis.radius - axis.pad;
    return z >= shift && z < axis.n - shift;
  }
  // Whether the contrast sensitivity at z counts: the outputs without the first and last `pad`.
  static SSIM_DEVICE bool in_crop(const DeviceAxis& axis, int z) {
    return z >= axis.radius && z < axis.n - axis.radius;
  }

  // Where a column lies in a row of shared memory, in bytes.
  template <class Element>
  static SSIM_DEVICE int slot(int column) {
    constexpr int group = 128 / sizeof(Element);
    return column * static_cast<int>(sizeof(Element)) +
           static_cast<int>(static_cast<unsigned>(column) / group) * 16;
  }

  // Whether a window of this radius has tap k. Compiled away but for narrow windows.
  static SSIM_DEVICE bool has_tap(int k, int radius) {
    return !Config::kNarrow || (k >= kRadius - radius && k <= kRadius + radius);
  }

  // Input row or column that position e reads, -1 for zero. Positions that only outputs which do not exist
  // would read yield some valid one.
  static SSIM_DEVICE int source(const DeviceAxis& axis, int e) {
    const int i = axis.source(e);
    return i < 0 ? (axis.reflects ? 0 : -1) : min(i, axis.n - 1);
  }

  // ---- Threads. Their indices, and where these place them, are cheaper to compute in every step than to
  // keep: the filters of step 3 fill the registers.

  // A thread's chunk of 8 columns of one row.
  struct Chunk {
    int row, column;  // within the step and the strip

    SSIM_DEVICE Chunk() {
      const unsigned thread = fresh_thread_index();  // unsigned numbers divide in fewer instructions
      row = static_cast<int>(thread / (kColumns / kChunk));
      column = static_cast<int>(thread % (kColumns / kChunk) * kChunk);
    }
    // Where it and the chunks after it lie in rows of kRowBytes.
    template <class Element, int kRowBytes>
    SSIM_DEVICE int place(int chunks_on) const {
      return row * kRowBytes + slot<Element>(column + chunks_on * kChunk);
    }
  };

  // A thread's column of outputs.
  struct Column {
    int place;  // in the exchange's first row, in shared memory
    int z;
    bool exists, is_owned, is_cropped_in;

    SSIM_DEVICE explicit Column(const StripMarch& march) {
      const int thread = static_cast<int>(fresh_thread_index());
      place = Config::kExchangeAt + slot<T>(thread);
      z = march.column_begin_ - Config::kLead + thread;
      exists = StripMarch::exists(march.p_.columns, z);
      is_owned = exists && z >= march.column_begin_ && z < march.column_end_;
      is_cropped_in = exists && in_crop(march.p_.columns, z);
    }
  };

  // ---- Before the march

  SSIM_DEVICE T* fold_taps() const { return reinterpret_cast<T*>(shared_ + Config::kFoldTapsAt); }
  SSIM_DEVICE T* folds() const { return reinterpret_cast<T*>(shared_ + Config::kFoldsAt); }
  // What all threads need in every step; shared memory is a better place for it than registers.
  enum Number { kPivot, kC1, kC2, kSimilarityWeight, kContrastWeight };
  SSIM_DEVICE T& number(Number n) const { return reinterpret_cast<T*>(shared_ + Config::kNumbersAt)[n]; }
  // Where the block's plane begins in each image, likewise.
  SSIM_DEVICE int64_t& plane_offset(int image) const {
    return reinterpret_cast<int64_t*>(shared_ + Config::kNumbersAt + 8 * sizeof(T))[image];
  }
  // Whether the strip touches the border and the padding reflects; whether every raw row is whole vectors of
  // input.
  SSIM_DEVICE int& flag(int i) const {
    return reinterpret_cast<int*>(shared_ + Config::kNumbersAt + 8 * sizeof(T) + 4 * sizeof(int64_t))[i];
  }
  SSIM_DEVICE int& has_folded_columns() const { return flag(0); }
  SSIM_DEVICE int& raw_is_inside() const { return flag(1); }
  SSIM_DEVICE const Storage* preds() const { return p_.preds.data + plane_offset(0); }
  SSIM_DEVICE const Storage* target() const { return p_.target.data + plane_offset(1); }
  SSIM_DEVICE Storage* grad_preds() const { return p_.grad_preds.data + plane_offset(2); }
  SSIM_DEVICE Storage* grad_target() const { return p_.grad_target.data + plane_offset(3); }

  SSIM_DEVICE double* totals() const { return reinterpret_cast<double*>(shared_ + Config::kTotalsAt); }

  SSIM_DEVICE void prepare() {
    const int thread = static_cast<int>(fresh_thread_index());
    if (thread < 32) {
      const T value = choose_pivot(target(), p_.target.stride[2], p_.target.stride[3], row_begin_,
                                   row_end_ - row_begin_, column_begin_, column_end_ - column_begin_, thread);
      if (thread == 0) {
        number(kPivot) = value;
        number(kC1) = formula_constant(p_.constants ? p_.constants[0] : p_.c1);
        number(kC2) = formula_constant(p_.constants ? p_.constants[1] : p_.c2);
        number(kSimilarityWeight) = p_.of_similarity.of(image_);
        number(kContrastWeight) = p_.of_contrast.of(image_);
      }
    }
    if constexpr (kMaps > 0) {
      // Step 4 reads beyond the last column, for pixels that the next strip owns or for none.
      constexpr int kMargin = kWindowed + 2 - kChunk;
      for (int i = thread; i < kMaps * kRows * kMargin; i += Config::kThreads) {
        const int row = i / kMargin;
        *reinterpret_cast<T*>(shared_ + Config::kExchangeAt + row * Config::kMapRow +
                              slot<T>(kColumns + i % kMargin)) = T(0);
      }
      // How much the derivative at output row z enters gradient row z - kRadius + k.
      for (int i = thread; i < Config::kFoldRows * kTaps; i += Config::kThreads) {
        const int place = i / kTaps, k = i % kTaps;
        const int shift = p_.rows.radius - p_.rows.pad;
        T tap = p_.row_taps[k];
        if (place < 2 * kRadius && p_.rows.reflects) {
          const int z = place < kRadius ? place : p_.rows.n - 2 * kRadius + place;
          const int to = z - kRadius + k;
          const bool is_row = z >= 0 && to >= 0 && to < p_.rows.n;
          tap = is_row ? p_.rows.adjoint_tap(p_.row_taps + kRadius - p_.rows.radius, to, z - shift) : T(0);
        }
        fold_taps()[place * (kTaps + 1) + k] = tap;
      }
    }
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) {
#pragma unroll
      for (int m = 0; m < 4; ++m) moment_[m][k] = T(0);
#pragma unroll
      for (int m = 0; m < kMaps; ++m) derivative_[m][k] = T(0);
    }
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) totals()[n * Config::kThreads + thread] = 0;
    // The first step begins with a barrier.
  }

  // ---- 1. Raw rows to shared memory

  SSIM_DEVICE void stage(int row) {
    constexpr int kWarps = Config::kThreads / 32;
    const unsigned thread = fresh_thread_index();
    const int warp = static_cast<int>(thread / 32), lane = static_cast<int>(thread % 32);
    if (raw_is_inside() && row >= 0 && row + kRows <= p_.rows.n) {
      const Storage* const x = preds() + (row * p_.preds.stride[2] + raw_begin_);
      const Storage* const y = target() + (row * p_.target.stride[2] + raw_begin_);
#pragma unroll 1
      for (int r = warp; r < kRows; r += kWarps) {
        // `vectors` promises that eight rows on, offsets still fit 32 bits.
        stage_whole_row(shared_ + r * Config::kRawRow, x, y, r * static_cast<int>(p_.preds.stride[2]),
                        r * static_cast<int>(p_.target.stride[2]), lane);
      }
      return;
    }
#pragma unroll 1
    for (int r = warp; r < kRows; r += kWarps) {
      char* const to = shared_ + r * Config::kRawRow;
      const int from = source(p_.rows, row + r);
      const Storage* const x = preds() + from * p_.preds.stride[2];
      const Storage* const y = target() + from * p_.target.stride[2];
      if (raw_is_inside() && from >= 0) {
        stage_whole_row(to, x + raw_begin_, y + raw_begin_, 0, 0, lane);
      } else if (p_.vectors && from >= 0) {
#pragma unroll 1
        for (int u = lane; u < kUnits; u += 32) {
          const int column = raw_begin_ + u * kVector;
          if (column >= 0 && column + kVector <= p_.columns.n) {
            char* const unit = to + slot<Storage>(u * kVector);
            copy_async<16>(unit, x + column);
            copy_async<16>(unit + Config::kRawImage, y + column);
          } else {
#pragma unroll 1
            for (int j = 0; j < kVector; ++j) stage_pixel(to, u * kVector + j, from, x, y);
          }
        }
      } else {
#pragma unroll 1
        for (int j = lane; j < Config::kRawColumns; j += 32) stage_pixel(to, j, from, x, y);
      }
    }
  }

  static constexpr int kUnits = Config::kRawColumns / kVector;
  static_assert(Config::kRawColumns % kVector == 0);

  // A row of whole vectors, beginning at the offsets from x and y; one warp.
  SSIM_DEVICE void stage_whole_row(char* to, const Storage* x, const Storage* y, int offset_x, int offset_y,
                                   int lane) {
    const int at = lane * kVector;
    char* const first = to + slot<Storage>(at);
    const Storage* const first_x = x + (offset_x + at);
    const Storage* const first_y = y + (offset_y + at);
#pragma unroll
    for (int u = 0; u < kUnits; u += 32) {
      if (u + 32 <= kUnits || lane < kUnits - u) {
        char* const unit = first + u / 8 * 144;  // as slot() has it
        copy_async<16>(unit, first_x + u * kVector);
        copy_async<16>(unit + Config::kRawImage, first_y + u * kVector);
      }
    }
  }

  SSIM_DEVICE void stage_pixel(char* to, int j, int row, const Storage* x, const Storage* y) {
    const int column = source(p_.columns, raw_begin_ + j);
    char* const pixel = to + slot<Storage>(j);
    if (row >= 0 && column >= 0) {
      copy_async<sizeof(Storage)>(pixel, x + column * p_.preds.stride[3]);
      copy_async<sizeof(Storage)>(pixel + Config::kRawImage, y + column * p_.target.stride[3]);
    } else {
      *reinterpret_cast<Storage*>(pixel) = Storage{};
      *reinterpret_cast<Storage*>(pixel + Config::kRawImage) = Storage{};
    }
  }

  // ---- 2. Along the row

  static constexpr int kWindowed = Config::kWindowed;

  SSIM_DEVICE void along_the_row() {
    const Chunk chunk;
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
      const char* const from = shared_ + chunk.template place<Storage, Config::kRawRow>(v / kVectorsOfChunk) +
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
    for (int m = 0; m < 4; ++m) store_chunk(chunk, m, sum[m]);
  }

  SSIM_DEVICE char* exchange(const Chunk& chunk, int map, int chunks_on) const {
    return shared_ + Config::kExchangeAt + map * Config::kMap +
           chunk.template place<T, Config::kMapRow>(chunks_on);
  }

  SSIM_DEVICE void store_chunk(const Chunk& chunk, int map, const T (&values)[kChunk]) {
    constexpr int kSize = Vector<T>::kSize;
#pragma unroll
    for (int v = 0; v < kChunk / kSize; ++v) {
      Vector<T> out;
#pragma unroll
      for (int e = 0; e < kSize; ++e) out.value[e] = values[v * kSize + e];
      *reinterpret_cast<Vector<T>*>(exchange(chunk, map, 0) + v * 16) = out;
    }
  }

  // ---- 3. Down the column

  SSIM_DEVICE void down_the_column(int row) {
    const int z = row - kRadius;  // the first output this step completes
    const bool plain = z >= plain_begin_ && z + kRows <= plain_end_;
    const Column column(*this);
    T step[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) step[n] = T(0);
    const T numbers[] = {number(kPivot), number(kC1), number(kC2), number(kSimilarityWeight),
                         number(kContrastWeight)};
    if (plain) {
#pragma unroll 4
      for (int r = 0; r < kRows; ++r) output<false>(column, z + r, r * Config::kMapRow, numbers, step);
    } else {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) output<true>(column, z + r, r * Config::kMapRow, numbers, step);
    }
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      totals()[n * Config::kThreads + fresh_thread_index()] += static_cast<double>(step[n]);
    }
  }

  // Takes in one row of moments, which completes output z. `Edge`: z may be any row; else, it has to be owned
  // unless General, and no reflection reaches it.
  template <bool Edge>
  SSIM_DEVICE void output(const Column& column, int z, int row_offset, const T (&numbers)[5],
                          T (&step)[Config::kSums]) {
    char* const place = shared_ + column.place + row_offset;
    const T* const taps = p_.row_taps;
    T complete[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const T value = *reinterpret_cast<const T*>(place + m * Config::kMap);
      complete[m] = filter(moment_[m], value, [&](int k) { return taps[kTaps - 1 - k]; });
    }
    const auto terms = local_terms(Moments<T>{complete[0], complete[1], complete[2], complete[3]},
                                   numbers[kPivot], numbers[kC1], numbers[kC2]);
    const T similarity = terms.similarity();

    constexpr bool kAllRowsCount = !Edge && !Config::kGeneral;
    const bool row_exists = kAllRowsCount || exists(p_.rows, z);
    const bool row_is_owned = kAllRowsCount || (row_exists && z >= row_begin_ && z < row_end_);
    const bool row_is_cropped_in = kAllRowsCount || (row_is_owned && in_crop(p_.rows, z));
    if (row_is_owned) step[kSimilarity] += similarity;
    if (row_is_cropped_in) step[kContrastSensitivity] += terms.contrast_sensitivity();

    Moments<T> f;
    if constexpr (Config::kGeneral) {
      T of_similarity = T(0), of_contrast = T(0);
      if (row_exists && column.exists) {
        const int64_t i = z - (p_.rows.radius - p_.rows.pad),
                      j = column.z - (p_.columns.radius - p_.columns.pad);
        of_similarity = numbers[kSimilarityWeight];
        if (grad_map_) {
          of_similarity += to_compute(grad_map_[i * p_.grad_map.stride[2] + j * p_.grad_map.stride[3]]);
        }
        if (in_crop(p_.rows, z) && in_crop(p_.columns, column.z)) of_contrast = numbers[kContrastWeight];
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
      const bool counts = (kAllRowsCount || in_crop(p_.rows, z)) && column.is_cropped_in;
      f = partials_of_doubled_contrast(terms, counts ? T(2) * numbers[kContrastWeight] : T(0));
    } else if constexpr (kMaps > 0) {
      // An output that does not exist gets weight zero. It may be a NaN all the same, but then its neighbours
      // that do exist have the NaN in their windows, too, and with them every pixel this one reaches.
      const T weight = row_exists && column.exists ? T(2) * numbers[kSimilarityWeight] : T(0);
      f = partials_of_doubled(terms, weight * terms.contrast_sensitivity(), weight * terms.luminance());
    }
    if constexpr (kMaps > 0) {
      const T maps[4] = {f.a, f.p, f.d, f.b};
      const T* edge_taps = nullptr;
      if constexpr (Edge) {
        const int from_end = z - (p_.rows.n - 2 * kRadius);
        const int place_of_z = z >= 0 && z < kRadius                           ? z
                               : from_end >= kRadius && from_end < 2 * kRadius ? from_end
                                                                               : 2 * kRadius;
        edge_taps = fold_taps() + place_of_z * (kTaps + 1);
      }
#pragma unroll
      for (int m = 0; m < kMaps; ++m) {
        const T sum = filter(derivative_[m], maps[m], [&](int k) { return Edge ? edge_taps[k] : taps[k]; });
        *reinterpret_cast<T*>(place + m * Config::kMap) = sum;
      }
    }
  }

  // Transposed FIR: `value` adds to the kTaps sums it belongs to, of which the oldest is complete and leaves.
  template <class TapOf>
  SSIM_DEVICE T filter(T (&sums)[kTaps - 1], T value, TapOf&& tap) {
    const int radius = p_.rows.radius;
    T complete = sums[0];
    if (has_tap(0, radius)) complete += tap(0) * value;
#pragma unroll
    for (int k = 1; k < kTaps - 1; ++k) {
      T next = sums[k];
      if (has_tap(k, radius)) next += tap(k) * value;
      sums[k - 1] = next;
    }
    sums[kTaps - 2] = has_tap(kTaps - 1, radius) ? tap(kTaps - 1) * value : T(0);
    return complete;
  }

  // ---- 4. Along the row again

  SSIM_DEVICE void gradient(int first_row) {
    const Chunk chunk;
    const int row = first_row + chunk.row, column = column_begin_ + chunk.column;
    if (row < row_begin_ || row >= row_end_ || column >= column_end_) return;
    const T pivot = number(kPivot);
    T x[kChunk], y[kChunk];
    load_pixels(preds(), p_.preds.stride, first_row, chunk.row, column, x);
    load_pixels(target(), p_.target.stride, first_row, chunk.row, column, y);

    // The maps one after the other, so that few sums are under way at once.
    T by_preds[kChunk], by_target[kChunk], sum[kChunk];
    gather<false>(chunk, 1, sum);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      by_preds[j] = (y[j] - pivot) * sum[j];
      if constexpr (kMaps == 4) by_target[j] = (x[j] - pivot) * sum[j];
    }
    gather<false>(chunk, 2, sum);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      by_preds[j] += (x[j] - y[j]) * sum[j];
      if constexpr (kMaps == 4) by_target[j] -= (x[j] - y[j]) * sum[j];
    }
    gather<true>(chunk, 0, by_preds);
    if constexpr (kMaps == 4) gather<true>(chunk, 3, by_target);
    if (has_folded_columns()) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        const int i = column + j;
        if (!p_.columns.is_folded(i)) continue;
        const T* const fold = folds() + chunk.row * 2 * kRadius + fold_place(i);
        by_preds[j] += fold[0];
        if constexpr (kMaps == 4) by_target[j] += fold[Config::kFoldColumns];
      }
    }
    store_pixels(grad_preds(), p_.grad_preds.stride, first_row, chunk.row, column, by_preds);
    if constexpr (kMaps == 4) {
      store_pixels(grad_target(), p_.grad_target.stride, first_row, chunk.row, column, by_target);
    }
  }

  // The adjoint along the row, of one derivative map: eight sums, or added to those given.
  template <bool Add>
  SSIM_DEVICE void gather(const Chunk& chunk, int map, T (&sum)[kChunk]) const {
    constexpr int kSize = Vector<T>::kSize, kVectorsOfChunk = kChunk / kSize;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) sum[j] = Add ? sum[j] : T(0);
#pragma unroll
    for (int v = 0; v * kSize < kWindowed; ++v) {
      const Vector<T> values = *reinterpret_cast<const Vector<T>*>(exchange(chunk, map, v / kVectorsOfChunk) +
                                                                   v % kVectorsOfChunk * 16);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        const int i = v * kSize + e;  // of output column + i - kRadius
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
  SSIM_DEVICE int fold_place(int column) const {
    return is_left(column) ? column - 1 : column - (p_.columns.n - 1 - 2 * kRadius);
  }

  // What the derivatives of the step's rows send to columns beyond the border, which folds back onto the
  // first and last `pad` columns next to it.
  SSIM_DEVICE void fold_columns(int first_row) {
    const DeviceAxis& axis = p_.columns;
    for (int task = static_cast<int>(fresh_thread_index()); task < Config::kFoldColumns;
         task += Config::kThreads) {
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
          const char* const from =
              shared_ + Config::kExchangeAt + r * Config::kMapRow + slot<T>(z - column_begin_ + kRadius);
#pragma unroll
          for (int m = 0; m < kMaps; ++m)
            sum[m] += tap * *reinterpret_cast<const T*>(from + m * Config::kMap);
        }
      };
      if (column >= 1 && column <= axis.pad) gather(-column);
      if (column <= axis.n - 2 && column >= axis.n - 1 - axis.pad) gather(2 * (axis.n - 1) - column);

      const T x = to_compute(preds()[row * p_.preds.stride[2] + column * p_.preds.stride[3]]);
      const T y = to_compute(target()[row * p_.target.stride[2] + column * p_.target.stride[3]]);
      const T by_difference = (x - y) * sum[2];
      T* const fold = folds() + r * 2 * kRadius + fold_place(column);
      fold[0] = sum[0] + ((y - number(kPivot)) * sum[1] + by_difference);
      if constexpr (kMaps == 4)
        fold[Config::kFoldColumns] = sum[3] + ((x - number(kPivot)) * sum[1] - by_difference);
    }
  }

  // The pixels of a chunk, in row `first_row + r`. Beyond the row's end, its last ones instead.
  SSIM_DEVICE void load_pixels(const Storage* plane, const int64_t (&stride)[4], int first_row, int r,
                               int column, T (&pixels)[kChunk]) const {
    const Storage* const first = plane + first_row * stride[2];  // the same in all threads
    if (p_.vectors) {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        const int from = min(column + v * kVector, p_.columns.n - kVector);
        const auto values =
            *reinterpret_cast<const Vector<Storage>*>(first + (r * static_cast<int>(stride[2]) + from));
#pragma unroll
        for (int e = 0; e < kVector; ++e) pixels[v * kVector + e] = to_compute(values.value[e]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        pixels[j] = to_compute(first[r * stride[2] + min(column + j, p_.columns.n - 1) * stride[3]]);
      }
    }
  }

  SSIM_DEVICE void store_pixels(Storage* plane, const int64_t (&stride)[4], int first_row, int r, int column,
                                const T (&pixels)[kChunk]) const {
    Storage* const first = plane + first_row * stride[2];
    if (p_.vectors) {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        Vector<Storage> values;
#pragma unroll
        for (int e = 0; e < kVector; ++e) store_as(values.value[e], pixels[v * kVector + e]);
        if (column + v * kVector < column_end_) {
          *reinterpret_cast<Vector<Storage>*>(
              first + (r * static_cast<int>(stride[2]) + column + v * kVector)) = values;
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (column + j < column_end_) store_as(first[r * stride[2] + (column + j) * stride[3]], pixels[j]);
      }
    }
  }

  // ---- After the march

  SSIM_DEVICE void write_sums() {
    const int thread = static_cast<int>(fresh_thread_index());
    const Column column(*this);
    double sums[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      const bool counts = column.is_owned && (n != kContrastSensitivity || in_crop(p_.columns, column.z));
      sums[n] = counts ? totals()[n * Config::kThreads + thread] : 0.0;
    }
    double* const out = p_.partial + (p_.first_plane * p_.splits * p_.strips + blockIdx.x) * Config::kSums;
    __syncthreads();  // the totals' place serves the summation, too
    add_up_block<Config::kThreads>(sums, totals(), out, thread);
  }

  const Params& p_;
  char* const shared_;

  int64_t image_;
  Storage* map_ = nullptr;
  const Storage* grad_map_ = nullptr;
  int row_begin_, row_end_, column_begin_, column_end_;  // input rows and columns owned

  // Outputs for which step 3 needs no care: no tap that folds the reflection back, and unless General, all
  // count for both means.
  int plain_begin_, plain_end_;
  int raw_begin_;  // input column of the first raw column

  T moment_[4][kTaps - 1], derivative_[kMapsOr1][kTaps - 1];  // the filters' unfinished sums
};

// Registers a thread may have: enough that nothing spills, few enough that an SM holds many threads. Calls
// that are not on the path of training keep more in them.
template <class Config>
constexpr int kRegistersOf = sizeof(typename Config::T) == 8 ? 255
                             : Config::kMaps == 0            ? (Config::kGeneral ? 128 : 96)
                             : Config::kMaps == 3            ? (Config::kGeneral ? 168 : 128)
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
