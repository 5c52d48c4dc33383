// The CUDA kernel for windows of radius at most 5: one block marches down one strip of one plane, from raw
// pixels to sums, map and gradients, and nothing in between leaves the chip. kRows rows are taken a step:
//
//   1. raw rows arrive in shared memory by asynchronous copies, one step ahead;
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

// One variant of the kernel. `Columns` is the strip's width and the block's threads. `Maps` counts the
// derivative maps: 0 without gradients, 3 for preds, 4 for preds and target. Without `General` the weights
// are those of the mean similarity, and there is neither map, nor upstream gradient, nor derivative by the
// constants: the path of training and of the plain metric.
template <class Storage_, int Columns_, int Maps_, bool General_, bool Narrow_>
struct StripConfig {
  using Storage = Storage_;
  using T = ComputeOf<Storage>;
  static constexpr int kColumns = Columns_, kThreads = Columns_, kMaps = Maps_;
  static constexpr bool kGeneral = General_, kNarrow = Narrow_;

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
  static constexpr int kRawBuffer = 2 * kRawImage;  // preds, target
  // Moments and, in their place, derivatives: [map][row][column], with a margin of zeros on the right.
  static constexpr int kMapRow = padded(kColumns + kWindowed - kChunk + 2, sizeof(T));
  static constexpr int kMap = kRows * kMapRow;
  static constexpr int kExchange = 4 * kMap;
  static constexpr int kFoldRows = 2 * kRadius + 1;  // first rows, last rows, all others
  static constexpr int kFoldTaps = kMaps > 0 ? kFoldRows * (kTaps + 1) * sizeof(T) : 0;
  static constexpr int kSums = kGeneral ? int{kWithConstants} : int{kMeans};
  static constexpr int kScratch = kThreads / 32 * kSums * sizeof(double) + 16;  // 16: the pivot
  static constexpr int kSharedBytes = 2 * kRawBuffer + kExchange + kFoldTaps + kScratch;

  static_assert(kColumns % 32 == 0 && kThreads == kRows * kColumns / kChunk, "one chunk a thread and step");
  static_assert(kRawVectors * kVector <= kWindowed + kRawShift + kVector - 1);
  static_assert(kFoldTaps % 8 == 0 && kMap % 16 == 0 && kRawRow % 16 == 0, "everything is aligned");
  static_assert(kMaps == 0 || kMaps == 3 || kMaps == 4);
};

template <class Storage>
struct StripParams {
  using T = ComputeOf<Storage>;
  Picture<const Storage> preds, target;
  Picture<Storage> grad_preds, grad_target;
  DeviceAxis rows, columns;
  int channels;
  int64_t first_plane;      // of this launch
  int strips, splits;       // of a plane; a block for each
  int rows_of_split;
  bool vectors;             // every row of every image is whole, aligned vectors
  T row_taps[kTaps], column_taps[kTaps];
  T c1, c2;
  const T* constants;       // [2], in place of c1 and c2
  double* partial;          // [blocks, sums]
  Weight<T> of_similarity;  // for the outputs' derivatives
  // Only for General:
  Weight<T> of_contrast;
  Picture<Storage> map;
  Picture<const Storage> grad_map;
  bool wants_constants;
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
    thread_ = threadIdx.x;
    lane_ = thread_ % 32;
    const unsigned strip = blockIdx.x % static_cast<unsigned>(p.strips);
    const unsigned rest = blockIdx.x / static_cast<unsigned>(p.strips);
    const unsigned split = rest % static_cast<unsigned>(p.splits);
    const int64_t plane = p.first_plane + rest / static_cast<unsigned>(p.splits);
    image_ = plane / p.channels;
    const int64_t channel = plane % p.channels;
    preds_ = p.preds.plane(image_, channel);
    target_ = p.target.plane(image_, channel);
    if constexpr (kMaps > 0) grad_preds_ = p.grad_preds.plane(image_, channel);
    if constexpr (kMaps == 4) grad_target_ = p.grad_target.plane(image_, channel);
    if constexpr (Config::kGeneral) {
      map_ = p.map.data ? p.map.plane(image_, channel) : nullptr;
      grad_map_ = p.grad_map.data ? p.grad_map.plane(image_, channel) : nullptr;
    }

    column_begin_ = static_cast<int>(strip) * Config::kStep;
    column_end_ = static_cast<int>(strip) + 1 == p.strips ? p.columns.n : column_begin_ + Config::kStep;
    row_begin_ = static_cast<int>(split) * p.rows_of_split;
    row_end_ = min(p.rows.n, row_begin_ + p.rows_of_split);

    raw_begin_ = column_begin_ - Config::kRawLead;
    raw_is_inside_ = p.vectors && raw_begin_ >= 0 && raw_begin_ + Config::kRawColumns <= p.columns.n;

    chunk_row_ = thread_ / (kColumns / kChunk);
    const int chunk = thread_ % (kColumns / kChunk);
    chunk_column_ = chunk * kChunk;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      raw_chunk_[i] = chunk_row_ * Config::kRawRow + slot<Storage>(chunk_column_ + i * kChunk);
      map_chunk_[i] = 2 * Config::kRawBuffer + chunk_row_ * Config::kMapRow + slot<T>(chunk_column_ + i * kChunk);
    }
    column_slot_ = 2 * Config::kRawBuffer + slot<T>(thread_);

    z_column_ = column_begin_ - Config::kLead + thread_;
    column_exists_ = exists(p.columns, z_column_);
    column_is_owned_ = column_exists_ && z_column_ >= column_begin_ && z_column_ < column_end_;
    column_is_cropped_in_ = column_is_owned_ && in_crop(p.columns, z_column_);
  }

  SSIM_DEVICE void run() {
    const int first = row_begin_ > 0 ? row_begin_ - kHalo : -kRadius;
    const int last = row_end_ + kHalo;
    stage(first, 0);
    prepare();

    int buffer = 0;
    for (int row = first; row < last; row += kRows, buffer ^= 1) {
      wait_for_copies();
      __syncthreads();
      if (row + kRows < last) stage(row + kRows, buffer ^ 1);
      along_the_row(buffer * Config::kRawBuffer);
      __syncthreads();
      down_the_column(row);
      if constexpr (kMaps > 0) {
        __syncthreads();
        gradient(row - 2 * kRadius + chunk_row_);
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
    return column * static_cast<int>(sizeof(Element)) + column / group * 16;
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

  // ---- Before the march

  SSIM_DEVICE T* fold_taps() const {
    return reinterpret_cast<T*>(shared_ + 2 * Config::kRawBuffer + Config::kExchange);
  }
  SSIM_DEVICE double* scratch() const {
    return reinterpret_cast<double*>(shared_ + 2 * Config::kRawBuffer + Config::kExchange + Config::kFoldTaps);
  }

  SSIM_DEVICE void prepare() {
    T* const pivot = reinterpret_cast<T*>(scratch());
    if (thread_ < 32) {
      const T value =
          choose_pivot(target_, p_.target.stride[2], p_.target.stride[3], row_begin_, row_end_ - row_begin_,
                       column_begin_, column_end_ - column_begin_, lane_);
      if (thread_ == 0) *pivot = value;
    }
    if constexpr (kMaps > 0) {
      // Step 4 reads beyond the last column, for pixels that the next strip owns or for none.
      constexpr int kMargin = kWindowed + 2 - kChunk;
      for (int i = thread_; i < kMaps * kRows * kMargin; i += Config::kThreads) {
        const int row = i / kMargin;
        *reinterpret_cast<T*>(shared_ + 2 * Config::kRawBuffer + row * Config::kMapRow +
                              slot<T>(kColumns + i % kMargin)) = T(0);
      }
      // How much the derivative at output row z enters gradient row z - kRadius + k.
      for (int i = thread_; i < Config::kFoldRows * kTaps; i += Config::kThreads) {
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
    for (int n = 0; n < Config::kSums; ++n) sum_[n] = lost_[n] = T(0);
    c1_ = p_.constants ? p_.constants[0] : p_.c1;
    c2_ = p_.constants ? p_.constants[1] : p_.c2;
    weight_ = column_exists_ ? p_.of_similarity.of(image_) : T(0);
    if constexpr (Config::kGeneral) {
      const bool counts = column_exists_ && in_crop(p_.columns, z_column_);
      contrast_weight_ = counts ? p_.of_contrast.of(image_) : T(0);
    }
    __syncthreads();
    pivot_ = *pivot;
  }

  // ---- 1. Raw rows to shared memory

  SSIM_DEVICE void stage(int row, int buffer) {
    constexpr int kWarps = Config::kThreads / 32;
    constexpr int kUnits = Config::kRawColumns / kVector;
    static_assert(Config::kRawColumns % kVector == 0);
    for (int r = thread_ / 32; r < kRows; r += kWarps) {
      char* const to = shared_ + buffer * Config::kRawBuffer + r * Config::kRawRow;
      const int from = source(p_.rows, row + r);
      const Storage* const x = preds_ + from * p_.preds.stride[2];
      const Storage* const y = target_ + from * p_.target.stride[2];
      if (raw_is_inside_ && from >= 0) {
        const Storage* const first_x = x + raw_begin_ + lane_ * kVector;
        const Storage* const first_y = y + raw_begin_ + lane_ * kVector;
        char* const first = to + slot<Storage>(lane_ * kVector);
#pragma unroll
        for (int u = 0; u < kUnits; u += 32) {
          if (u + 32 <= kUnits || lane_ < kUnits - u) {
            char* const unit = first + u / 8 * 144;  // 32 vectors on, see slot()
            copy_async<16>(unit, first_x + u * kVector);
            copy_async<16>(unit + Config::kRawImage, first_y + u * kVector);
          }
        }
      } else if (p_.vectors && from >= 0) {
        for (int u = lane_; u < kUnits; u += 32) {
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
        for (int j = lane_; j < Config::kRawColumns; j += 32) stage_pixel(to, j, from, x, y);
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

  SSIM_DEVICE void along_the_row(int buffer) {
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
      const char* const from = shared_ + buffer + raw_chunk_[v / kVectorsOfChunk] + v % kVectorsOfChunk * 16;
      const Vector<Storage> xs = *reinterpret_cast<const Vector<Storage>*>(from);
      const Vector<Storage> ys = *reinterpret_cast<const Vector<Storage>*>(from + Config::kRawImage);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int i = v * kVector + e - Config::kRawShift;
        if (i < 0 || i >= kWindowed) continue;
        const T raw_x = to_compute(xs.value[e]), raw_y = to_compute(ys.value[e]);
        const T difference = raw_x - raw_y, x = raw_x - pivot_, y = raw_y - pivot_;
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
    for (int m = 0; m < 4; ++m) store_chunk(m, sum[m]);
  }

  SSIM_DEVICE void store_chunk(int map, const T (&values)[kChunk]) {
    constexpr int kSize = Vector<T>::kSize;
#pragma unroll
    for (int v = 0; v < kChunk / kSize; ++v) {
      Vector<T> out;
#pragma unroll
      for (int e = 0; e < kSize; ++e) out.value[e] = values[v * kSize + e];
      *reinterpret_cast<Vector<T>*>(shared_ + map_chunk_[0] + map * Config::kMap + v * 16) = out;
    }
  }

  // ---- 3. Down the column

  SSIM_DEVICE void down_the_column(int row) {
    const int z = row - kRadius;  // the first output this step completes
    bool plain = true;            // no row of the step needs the taps that fold the reflection back
    if constexpr (kMaps > 0) plain = z >= kRadius && z + kRows <= p_.rows.n - kRadius;
    if constexpr (!Config::kGeneral) {  // all rows count for everything
      plain = plain && z >= row_begin_ && z + kRows <= row_end_ && in_crop(p_.rows, z) &&
              in_crop(p_.rows, z + kRows - 1);
    }
    T step[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) step[n] = T(0);
    if (plain) {
#pragma unroll 4
      for (int r = 0; r < kRows; ++r) output<false>(z + r, r * Config::kMapRow, step);
    } else {
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) output<true>(z + r, r * Config::kMapRow, step);
    }
    // Compensated, so that a tall split loses nothing.
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      const T add = step[n] - lost_[n];
      const T total = sum_[n] + add;
      lost_[n] = (total - sum_[n]) - add;
      sum_[n] = total;
    }
  }

  // Takes in one row of moments, which completes output z. `Edge`: z may be any row; else, it has to be owned
  // unless General, and no reflection reaches it.
  template <bool Edge>
  SSIM_DEVICE void output(int z, int row_offset, T (&step)[Config::kSums]) {
    char* const place = shared_ + column_slot_ + row_offset;
    const T* const taps = p_.row_taps;
    T complete[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const T value = *reinterpret_cast<const T*>(place + m * Config::kMap);
      complete[m] = filter(moment_[m], value, [&](int k) { return taps[kTaps - 1 - k]; });
    }
    const auto terms = local_terms(Moments<T>{complete[0], complete[1], complete[2], complete[3]}, pivot_, c1_, c2_);
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
      if (row_exists && column_exists_) {
        const int64_t i = z - (p_.rows.radius - p_.rows.pad), j = z_column_ - (p_.columns.radius - p_.columns.pad);
        of_similarity = weight_;
        if (grad_map_) {
          of_similarity += to_compute(grad_map_[i * p_.grad_map.stride[2] + j * p_.grad_map.stride[3]]);
        }
        if (in_crop(p_.rows, z)) of_contrast = contrast_weight_;
        if (map_ && row_is_owned && column_is_owned_) {
          store_as(map_[i * p_.map.stride[2] + j * p_.map.stride[3]], similarity);
        }
      }
      if (p_.wants_constants && row_is_owned) {
        const auto by = constant_partials(terms, of_similarity, of_contrast);
        step[kByC1] += by.c1;
        step[kByC2] += by.c2;
      }
      const T by_luminance = of_similarity * terms.contrast_sensitivity();
      const T by_contrast = of_similarity * terms.luminance() + of_contrast;
      if constexpr (kMaps > 0) f = partials_of_doubled(terms, by_luminance + by_luminance, by_contrast + by_contrast);
    } else if constexpr (kMaps > 0) {
      // An output that does not exist gets weight zero. It may be a NaN all the same, but then its neighbours
      // that do exist have the NaN in their windows, too, and with them every pixel this one reaches.
      const T weight = row_exists ? weight_ + weight_ : T(0);
      f = partials_of_doubled(terms, weight * terms.contrast_sensitivity(), weight * terms.luminance());
    }
    if constexpr (kMaps > 0) {
      const T maps[4] = {f.a, f.p, f.d, f.b};
      const T* edge_taps = nullptr;
      if constexpr (Edge) {
        const int from_end = z - (p_.rows.n - 2 * kRadius);
        const int place_of_z = z >= 0 && z < kRadius                        ? z
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

  SSIM_DEVICE void gradient(int row) {
    const int column = column_begin_ + chunk_column_;
    if (row < row_begin_ || row >= row_end_ || column >= column_end_) return;
    T x[kChunk], y[kChunk];
    load_pixels(preds_ + row * p_.preds.stride[2], p_.preds.stride[3], column, x);
    load_pixels(target_ + row * p_.target.stride[2], p_.target.stride[3], column, y);

    T sum[kMapsOr1][kChunk];
    constexpr int kSize = Vector<T>::kSize, kVectorsOfChunk = kChunk / kSize;
#pragma unroll
    for (int m = 0; m < kMaps; ++m) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) sum[m][j] = T(0);
#pragma unroll
      for (int v = 0; v * kSize < kWindowed; ++v) {
        const Vector<T> values = *reinterpret_cast<const Vector<T>*>(
            shared_ + map_chunk_[v / kVectorsOfChunk] + m * Config::kMap + v % kVectorsOfChunk * 16);
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
          const int i = v * kSize + e;  // holds output column + i - kRadius
#pragma unroll
          for (int j = 0; j < kChunk; ++j) {
            const int k = kTaps - 1 - (i - j);
            if (k < 0 || k >= kTaps || !has_tap(k, p_.columns.radius)) continue;
            sum[m][j] += p_.column_taps[k] * values.value[e];
          }
        }
      }
    }
    if (p_.columns.reflects && (column <= p_.columns.pad || column + kChunk >= p_.columns.n - p_.columns.pad)) {
      fold(column, sum);
    }

    T by_preds[kChunk], by_target[kChunk];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const T by_difference = (x[j] - y[j]) * sum[2][j];
      by_preds[j] = sum[0][j] + ((y[j] - pivot_) * sum[1][j] + by_difference);
      if constexpr (kMaps == 4) by_target[j] = sum[3][j] + ((x[j] - pivot_) * sum[1][j] - by_difference);
    }
    store_pixels(grad_preds_ + row * p_.grad_preds.stride[2], p_.grad_preds.stride[3], column, by_preds);
    if constexpr (kMaps == 4) {
      store_pixels(grad_target_ + row * p_.grad_target.stride[2], p_.grad_target.stride[3], column, by_target);
    }
  }

  // Folds the reflection back onto the first and last `pad` columns next to the border: what the derivatives
  // send to the columns beyond it.
  SSIM_DEVICE void fold(int column, T (&sum)[kMapsOr1][kChunk]) {
    const DeviceAxis& axis = p_.columns;
    const char* const row = shared_ + 2 * Config::kRawBuffer + chunk_row_ * Config::kMapRow;
    const T* const taps = p_.column_taps;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const int i = column + j;
      const auto gather = [&](int extended) {
        const int begin = max(0, extended - axis.radius), end = min(axis.n, extended + axis.radius + 1);
#pragma unroll 1
        for (int z = begin; z < end; ++z) {
          const T tap = taps[extended - z + kRadius];
          const char* const from = row + slot<T>(z - column_begin_ + kRadius);
#pragma unroll
          for (int m = 0; m < kMaps; ++m) {
            sum[m][j] += tap * *reinterpret_cast<const T*>(from + m * Config::kMap);
          }
        }
      };
      if (i >= 1 && i <= axis.pad) gather(-i);
      if (i <= axis.n - 2 && i >= axis.n - 1 - axis.pad) gather(2 * (axis.n - 1) - i);
    }
  }

  SSIM_DEVICE void load_pixels(const Storage* row, int64_t stride, int column, T (&pixels)[kChunk]) const {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) pixels[j] = T(0);
    if (p_.vectors) {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        if (column + v * kVector >= column_end_) continue;
        const auto values = *reinterpret_cast<const Vector<Storage>*>(row + column + v * kVector);
#pragma unroll
        for (int e = 0; e < kVector; ++e) pixels[v * kVector + e] = to_compute(values.value[e]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (column + j < column_end_) pixels[j] = to_compute(row[(column + j) * stride]);
      }
    }
  }

  SSIM_DEVICE void store_pixels(Storage* row, int64_t stride, int column, const T (&pixels)[kChunk]) const {
    if (p_.vectors) {
#pragma unroll
      for (int v = 0; v < kChunk / kVector; ++v) {
        if (column + v * kVector >= column_end_) continue;
        Vector<Storage> values;
#pragma unroll
        for (int e = 0; e < kVector; ++e) store_as(values.value[e], pixels[v * kVector + e]);
        *reinterpret_cast<Vector<Storage>*>(row + column + v * kVector) = values;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (column + j < column_end_) store_as(row[(column + j) * stride], pixels[j]);
      }
    }
  }

  // ---- After the march

  SSIM_DEVICE void write_sums() {
    double sums[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      const bool counts = n == kContrastSensitivity ? column_is_cropped_in_ : column_is_owned_;
      sums[n] = counts ? static_cast<double>(sum_[n]) : 0.0;
    }
    double* const out = p_.partial + (p_.first_plane * p_.splits * p_.strips + blockIdx.x) * Config::kSums;
    add_up_block<Config::kThreads>(sums, scratch(), out, thread_);
  }

  const Params& p_;
  char* const shared_;
  int thread_, lane_;

  int64_t image_;
  const Storage *preds_, *target_;
  Storage *grad_preds_ = nullptr, *grad_target_ = nullptr, *map_ = nullptr;
  const Storage* grad_map_ = nullptr;
  int row_begin_, row_end_, column_begin_, column_end_;  // input rows and columns owned

  int raw_begin_;       // input column of the first raw column
  bool raw_is_inside_;  // every raw row is whole vectors of input
  int chunk_row_, chunk_column_;         // the chunk of a thread, within the step and the strip
  int raw_chunk_[3], map_chunk_[3];      // where it and the next two lie, in bytes
  int column_slot_;                      // where the thread's column lies
  int z_column_;                         // the thread's output column
  bool column_exists_, column_is_owned_, column_is_cropped_in_;

  T pivot_, c1_, c2_, weight_, contrast_weight_;
  T moment_[4][kTaps - 1], derivative_[kMapsOr1][kTaps - 1];  // the filters' unfinished sums
  T sum_[Config::kSums], lost_[Config::kSums];
};

// Blocks an SM should hold: what 128 registers a thread allow, for the four derivative maps and double more.
template <class Config>
constexpr int wanted_blocks() {
  const int registers = sizeof(typename Config::T) == 8 ? 255 : Config::kMaps == 4 ? 168 : Config::kMaps == 3 ? 128 : 80;
  const int blocks = 65536 / (registers * Config::kThreads);
  return blocks < 1 ? 1 : blocks;
}

template <class Config>
SSIM_KERNEL(Config::kThreads, wanted_blocks<Config>())
strip_kernel(SSIM_PARAMS StripParams<typename Config::Storage> p) {
  StripMarch<Config>(p).run();
}

}  // namespace ssim_fused
