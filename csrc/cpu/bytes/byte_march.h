// SSIM of 8-bit images under a uniform window: a march down one strip of a plane, row by row. Every moment
// is a sum of integers, kept exactly in 32 bits. The formula is computed in double, so that nothing is
// rounded before the quotients.
//
// A window of n pixels has the sums Sx, Sy, P = 2 sum xy and Q = sum (x^2 + y^2). With the constants C1 =
// n^2 c1 and C2 = n^2 c2,
//
//     delta = Sx - Sy            S = 2 Sx Sy + delta^2    B1 = S + C1          1 - l  = delta^2 / B1
//     V = n (Q - P) - delta^2    N1 = 2 Sx Sy + C1        B2 = (n Q - S) + C2    1 - cs = V / B2
//
// This is the formula of math/ssim.h times n^2, with moments about zero: exact sums need no pivot.
//
// Sums over windows slide in both directions. Down the rows, the entering row is added to the column sums
// and the leaving row is subtracted. Along a row, the same is done with columns. For integers this is
// exact, and it costs the same for any window. Columns lie in the order of simd/interleave.h, so that the
// column to the right is in the next vector. Columns are flat: in an interleaved plane (RGBRGB...) the next
// pixel of the same channel is `step` columns further. Stretches are whole pixels, so all lanes of a vector
// belong to one channel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../../math/geometry.h"
#include "../rows/image_rows.h"
#include "../scratch.h"
#include "../simd/interleave.h"
#include "../simd/lanes.h"
#include "../simd/outlined.h"

namespace ssim_fused::cpu {

constexpr int64_t kMostInterleaved = 4;  // channels of an interleaved plane, at most: RGBA
constexpr int64_t kByteSegment = 32;     // rows whose sums are kept together

// The largest window, in pixels, whose sums Sx and Sy fit in 16 bits each.
constexpr int64_t kMostBytesOfWindow = 257;
static_assert(kMostBytesOfWindow * 255 <= 65535);

// Whether the constants suit the march with a window of `n` pixels: products of eight denominators, which are
// at least the constants, must neither overflow nor underflow.
inline bool are_ordinary(double c1, double c2, double n) {
  const auto is_ordinary = [&](double c) { return c * n * n >= 0x1p-40 && c * n * n <= 0x1p40; };
  return is_ordinary(c1) && is_ordinary(c2);
}

// A plane of 8-bit pixels. In an interleaved plane a pixel is `step` columns, and the stride `column` is 1.
struct BytePlane {
  const uint8_t* data;
  int64_t row, column;  // strides
};

// Sums over a segment of rows of a plane, for each channel: of 1 - SSIM and of 1 - contrast sensitivity.
struct ByteSums {
  double similarity_loss[kMostInterleaved] = {}, contrast_loss[kMostInterleaved] = {};
};

// A task: outputs [begin, end) x [left, right) of a plane. `left` and `right` are flat columns, at
// multiples of a pixel.
struct ByteTask {
  BytePlane preds, target;
  Axis rows, columns;  // in pixels
  int64_t step;        // interleaved channels of the plane
  int64_t begin, end, left, right;
  double c1, c2;
  bool wants_contrast;
  // The map of the batch, if requested, in one of the two types.
  ImageRows<float> map;
  ImageRows<double> map_in_double;
  Plane channel[kMostInterleaved];  // position in the batch of each channel
  ByteSums* sums;                   // [segments of the task]
};

// The loops over a row's pixels, compiled for each instruction set. They are functions because a lambda has
// no target attribute, and GCC then compiles integer conversions and products in it for the baseline.
struct ByteRows {
  // Packs the pixels of both images: preds' in the lower 16 bits, target's in the upper.
  void (*pack)(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out);
  // Adds the packed row `in` to the sums of every column and subtracts `out`: Sx and Sy (packed), P and Q.
  // `count` is a multiple of 16, and all rows are aligned to cache lines.
  void (*slide)(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s, uint32_t* p,
                uint32_t* q);
};

template <int Bytes>
class ByteMarch {
  using U32 = Lanes<uint32_t, Bytes>;
  using D = Lanes<double, Bytes>;
  static constexpr int64_t kLanes = Bytes / 4, kHalf = kLanes / 2;

 public:
  SSIM_INLINE ByteMarch(const ByteTask& task, ByteRows of_rows)
      : t_(task),
        of_rows_(of_rows),
        height_(2 * task.rows.radius + 1),
        reach_(2 * task.columns.radius * task.step),
        count_(task.right - task.left),
        vectors_((count_ + kLanes * task.step - 1) / (kLanes * task.step) * task.step),
        row_((vectors_ + reach_ + kLanes - 1) / kLanes * kLanes * kLanes),
        pitch_(pitch_of(row_)),
        natural_((kLanes - 1) * vectors_ + row_ / kLanes),
        whole_(std::clamp<int64_t>(count_ - (kLanes - 1) * vectors_, 0, vectors_)),
        sums_(kFields * pitch_),
        pixels_((height_ + 2) * pitch_),
        packed_(natural_),
        bytes_(2 * (count_ + reach_)),
        exists_((vectors_ - whole_) * kLanes),
        losses_(keeps_losses() ? 2 * vectors_ * kLanes : 0) {
    std::memset(sums_.get(), 0, static_cast<size_t>(kFields * pitch_) * sizeof(uint32_t));
    std::memset(row(height_ + 1), 0, static_cast<size_t>(row_) * sizeof(uint32_t));
    std::memset(packed_.get(), 0, static_cast<size_t>(natural_) * sizeof(uint32_t));
    for (int64_t i = whole_; i < vectors_; ++i) {
      for (int64_t k = 0; k < kLanes; ++k)
        exists_.get()[(i - whole_) * kLanes + k] = stretch_of(k) * vectors_ + i < count_ ? 1 : 0;
    }
  }

  SSIM_INLINE void run() const {
    for (int64_t k = 0; k < t_.end - t_.begin + height_ - 1; ++k) {
      outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { enter(k); });
      const int64_t q = t_.begin + k - (height_ - 1);
      if (q < t_.begin) continue;
      if (keeps_losses()) {
        outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { compute<true>(q); });
        if (t_.wants_contrast) add_contrast(q);
        if (t_.map) write_map(t_.map, q);
        if (t_.map_in_double) write_map(t_.map_in_double, q);
      } else {
        outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { compute<false>(q); });
      }
    }
  }

 private:
  // Fields of the column sums, which are taken over the rows of a window. kS has Sx in the lower and Sy in
  // the upper 16 bits.
  enum { kS, kP, kQ, kFields };
  static constexpr int64_t kRowsAhead = 2;  // prefetch distance

  // A sum of losses as a fraction, so that several are added before one division.
  struct Quotient {
    D over, under;
  };

  SSIM_INLINE bool keeps_losses() const { return t_.wants_contrast || t_.map || t_.map_in_double; }

  SSIM_INLINE uint32_t* sums(int field) const { return sums_.get() + field * pitch_; }

  // Returns a row of the ring buffer of packed pixels. The slot after the last of the ring is a row of
  // zeros.
  SSIM_INLINE uint32_t* row(int64_t slot) const { return pixels_.get() + slot * pitch_; }

  // Returns the distance between rows: an odd number of cache lines, so that rows do not map to the same
  // cache sets.
  static int64_t pitch_of(int64_t row) {
    constexpr int64_t kOfLine = kLine / sizeof(uint32_t);
    return ((row + kOfLine - 1) / kOfLine | 1) * kOfLine;
  }

  // Adds the k-th row that the task's windows see to the column sums, and subtracts the row that has left
  // the window.
  SSIM_INLINE void enter(int64_t k) const {
    const int64_t slots = height_ + 1, e = t_.begin - t_.rows.pad + k, seen = count_ + reach_;
    prefetch(t_.preds, e + kRowsAhead);
    prefetch(t_.target, e + kRowsAhead);
    uint32_t* const entering = row(k % slots);
    const uint32_t* const leaving = row(k < height_ ? slots : (k - height_) % slots);
    of_rows_.pack(see(t_.preds, e, bytes_.get()), see(t_.target, e, bytes_.get() + seen), seen,
                  packed_.get());
    interleave<U32>(packed_.get(), vectors_, row_ / kLanes, entering);
    of_rows_.slide(entering, leaving, (vectors_ + reach_) * kLanes, sums(kS), sums(kP), sums(kQ));
  }

  // Prefetches extended row e of a plane. The hardware prefetcher does not follow a strip from row to row.
  SSIM_INLINE void prefetch(const BytePlane& plane, int64_t e) const {
    const int64_t y = t_.rows.source(std::min(e, t_.rows.n - 1));
    if (y < 0 || plane.column != 1) return;
    const uint8_t* const from =
        plane.data + y * plane.row + std::max<int64_t>(t_.left - t_.columns.pad * t_.step, 0);
    for (int64_t i = 0; i < count_; i += static_cast<int64_t>(kLine)) __builtin_prefetch(from + i);
  }

  // Returns the part of extended row e that the task's windows see: in place if possible, otherwise in
  // `bytes`.
  SSIM_INLINE const uint8_t* see(const BytePlane& plane, int64_t e, uint8_t* bytes) const {
    const int64_t y = t_.rows.source(e), step = t_.step, length = t_.columns.n * step, seen = count_ + reach_;
    if (y < 0) {
      std::memset(bytes, 0, static_cast<size_t>(seen));
      return bytes;
    }
    const uint8_t* const from = plane.data + y * plane.row;
    const int64_t first = t_.left - t_.columns.pad * step;  // first flat extended column that windows see
    const int64_t begin = std::clamp<int64_t>(-first, 0, seen),
                  end = std::clamp<int64_t>(length - first, begin, seen);
    if (plane.column == 1) {
      if (begin == 0 && end == seen) return from + first;
      std::memcpy(bytes + begin, from + first + begin, static_cast<size_t>(end - begin));
    } else {
      for (int64_t i = begin; i < end; ++i) bytes[i] = from[(first + i) * plane.column];
    }
    const auto extend = [&](int64_t i) SSIM_INLINE_LAMBDA {
      const int64_t pixel = (first + i + t_.columns.pad * step) / step - t_.columns.pad;
      const int64_t source = t_.columns.source(pixel);
      bytes[i] = source < 0 ? uint8_t{0} : from[(source * step + (first + i - pixel * step)) * plane.column];
    };
    for (int64_t i = 0; i < begin; ++i) extend(i);
    for (int64_t i = end; i < seen; ++i) extend(i);
    return bytes;
  }

  // Computes the outputs of row q and adds their losses to the sums. `Keeps`: also stores the losses of
  // each output.
  template <bool Keeps>
  SSIM_INLINE void compute(int64_t q) const {
    ByteSums& sum = t_.sums[(q - t_.begin) / kByteSegment];
    for (int64_t channel = 0; channel < t_.step; ++channel) {
      const D total = channel_total<Keeps>(channel);
      for (int64_t k = 0; k < kHalf; ++k) sum.similarity_loss[channel] += total[k];
    }
  }

  static SSIM_INLINE Quotient sum_of(const Quotient& a, const Quotient& b) {
    return {a.over * b.under + b.over * a.under, a.under * b.under};
  }

  // Returns the sum of 1 - SSIM over the current row's outputs of a channel, one partial sum per lane.
  template <bool Keeps>
  SSIM_INLINE D channel_total(int64_t channel) const {
    const int64_t next = t_.step * kLanes, reach = reach_ * kLanes;
    const double pixels = static_cast<double>(height_ * (reach_ / t_.step + 1));
    const D n = broadcast<D>(pixels), c1 = broadcast<D>(pixels * pixels * t_.c1),
            c2 = broadcast<D>(pixels * pixels * t_.c2);
    const uint32_t* column = sums_.get() + channel * kLanes;
    const int64_t p = kP * pitch_, q = kQ * pitch_;  // offsets of the fields
    double* losses = Keeps ? losses_.get() + channel * kLanes : nullptr;
    // Sums over the first window without its last column.
    U32 window[kFields] = {};
    for (int64_t k = 0; k < reach; k += next) {
      unrolled<kFields>([&](auto f) SSIM_INLINE_LAMBDA { window[f] += load<U32>(column + f * pitch_ + k); });
    }
    const auto slide = [&](Quotient(&loss)[2]) SSIM_INLINE_LAMBDA {
      const uint32_t* const last = column + reach;
      const U32 s = window[kS] + load<U32>(last), of_p = window[kP] + load<U32>(last + p),
                of_q = window[kQ] + load<U32>(last + q);
      window[kS] = s - load<U32>(column);
      window[kP] = of_p - load<U32>(column + p);
      window[kQ] = of_q - load<U32>(column + q);
      column += next;
      const U32 x = s & 0xffff, y = s >> 16, of_r = of_q - of_p;
      unrolled<2>([&](auto half) SSIM_INLINE_LAMBDA {
        const D sx = half_of<half>(x), sy = half_of<half>(y);
        const D delta = sx - sy, delta2 = delta * delta;
        const D product = (sx + sx) * sy, squares = product + delta2;  // exact, as n Q - S is
        const D n1 = product + c1, b1 = squares + c1;
        const D v = n * half_of<half>(of_r) - delta2;
        const D b2 = (n * half_of<half>(of_q) - squares) + c2;
        loss[half] = {delta2 * b2 + n1 * v, b1 * b2};
        if constexpr (Keeps) {
          store(losses + half * kHalf, loss[half].over / loss[half].under);
          store(losses + vectors_ * kLanes + half * kHalf, v / b2);
        }
      });
      if constexpr (Keeps) losses += next;
    };
    // Eight vectors of quotients are added as fractions and take a single division.
    D total{};
    for (int64_t i = channel; i < vectors_;) {
      Quotient sum[2] = {{D{}, broadcast<D>(1.0)}, {D{}, broadcast<D>(1.0)}};
      for (int64_t k = 0; k < 8 && i < vectors_; ++k, i += t_.step) {
        Quotient loss[2];
        slide(loss);
        unrolled<2>([&](auto half) SSIM_INLINE_LAMBDA {
          if (i >= whole_) {
            const D exists = load<D>(exists_.get() + (i - whole_) * kLanes + half * kHalf);
            loss[half] = {loss[half].over * exists, loss[half].under * exists + (1 - exists)};
          }
          sum[half] = sum_of(sum[half], loss[half]);
        });
      }
      unrolled<2>([&](auto half) SSIM_INLINE_LAMBDA { total += sum[half].over / sum[half].under; });
    }
    return total;
  }

  // Converts half of the lanes to double: the first or the last two of each 16 bytes, because one
  // instruction pairs them with the upper half of 2^52.
  template <int half>
  static SSIM_INLINE D half_of(const U32& v) {
    const U32 exponent = broadcast<U32>(uint32_t{0x43300000});
    return [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
      const U32 together = __builtin_shufflevector(
          v, exponent, (I / 4 * 4 + 2 * half + (I & 3) / 2 + (I & 1 ? static_cast<int>(kLanes) : 0))...);
      return reinterpret_cast<D>(together) - 0x1p52;
    }(std::make_integer_sequence<int, kLanes>{});
  }

  // Returns the stretch of columns that lane k belongs to. Lanes are counted in the order of `half_of`:
  // those of the first half, then those of the second.
  static int64_t stretch_of(int64_t k) {
    const int64_t lane = k % kHalf;
    return lane / 2 * 4 + k / kHalf * 2 + lane % 2;
  }

  // Calls f(column, loss) for the outputs of a row. The loss is 1 - contrast sensitivity if `of_contrast`,
  // otherwise 1 - SSIM.
  template <class F>
  void for_losses(bool of_contrast, F&& f) const {
    const double* const losses = losses_.get() + (of_contrast ? vectors_ * kLanes : 0);
    for (int64_t k = 0; k < kLanes; ++k) {
      const int64_t first = stretch_of(k) * vectors_, end = std::min(vectors_, count_ - first);
      for (int64_t i = 0; i < end; ++i) f(first + i, losses[i * kLanes + k]);
    }
  }

  void add_contrast(int64_t q) const {
    if (!t_.rows.is_in_crop(q)) return;
    ByteSums& sum = t_.sums[(q - t_.begin) / kByteSegment];
    const int64_t from = t_.columns.crop_begin() * t_.step, to = t_.columns.crop_end() * t_.step;
    for_losses(true, [&](int64_t column, double loss) {
      const int64_t flat = t_.left + column;
      if (flat >= from && flat < to) sum.contrast_loss[flat % t_.step] += loss;
    });
  }

  template <class T>
  void write_map(const ImageRows<T>& map, int64_t q) const {
    const int64_t pixels = count_ / t_.step;
    const Scratch<T> values(count_);
    for_losses(false, [&](int64_t column, double loss) {
      values.get()[column % t_.step * pixels + column / t_.step] = static_cast<T>(1 - loss);
    });
    for (int64_t c = 0; c < t_.step; ++c)
      map.write_from(values.get() + c * pixels, map.offset(t_.channel[c]), q, t_.left / t_.step, pixels);
  }

  const ByteTask& t_;
  const ByteRows of_rows_;
  const int64_t height_;   // rows of the window
  const int64_t reach_;    // columns of a window after its first
  const int64_t count_;    // outputs of a row
  const int64_t vectors_;  // vectors of outputs in a row: the length of a stretch
  // Elements of a row in the order of interleave.h, with the columns that windows reach.
  const int64_t row_;
  const int64_t pitch_;           // distance between rows
  const int64_t natural_;         // elements of a row in natural order
  const int64_t whole_;           // vectors in which every lane has an output
  const Scratch<uint32_t> sums_;  // [kFields, pitch]: the column sums
  // [height + 2, pitch]: the rows of a window, the one that leaves, and zeros.
  const Scratch<uint32_t> pixels_;
  const Scratch<uint32_t> packed_;  // [natural]: a row of packed pixels
  const Scratch<uint8_t> bytes_;    // [2, count + reach]: a row of both images, if not read in place
  const Scratch<double> exists_;    // [vectors - whole, lanes]: one if an output is there, else zero
  const Scratch<double> losses_;    // [2, vectors, lanes], if they are kept
};

}  // namespace ssim_fused::cpu
