// The CPU kernel: one strip of one plane, marched down row by row, from raw pixels to sums, map and
// gradients.
//
//   raw rows --(along the row)--> four moments, a ring of 2r + kRows rows
//            --(down the ring)--> moments -> formula -> derivative maps, a second ring
//            --(down the ring)--(along the row)--> gradient rows
//
// Volumes take three marches, each a part of this one, with maps of a whole volume between them (`Pass`).
//
// kRows rows are taken at a time, so that each row loaded going down a ring serves kRows outputs. Everything
// between raw pixels and results stays in a workspace of O(strip width x window) elements. T is the compute
// type; `Maps` counts the derivative maps: 0 without gradients, 3 for preds, 4 for preds and target. The
// radius is compiled (`Radius`) or, where Radius is -1, taken from the problem.
//
// No result depends on how rows are divided among threads: each row's arithmetic is the same wherever a march
// begins, and sums are kept per segment of kSegment rows.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../math/geometry.h"
#include "../math/pass.h"
#include "../math/ssim.h"
#include "image.h"
#include "lanes.h"
#include "scratch.h"

namespace ssim_fused {

constexpr int kRows = 4;          // rows a step
constexpr int64_t kSegment = 32;  // rows whose sums are kept together; a multiple of kRows

// Sums over the outputs of a segment: of one minus similarity, of one minus contrast sensitivity, and of the
// derivatives by the constants.
struct Sums {
  double similarity_loss = 0, contrast_loss = 0, by_c1 = 0, by_c2 = 0;
};

// Between the passes: four moments, or in their place three or four derivatives, of each position of a
// volume.
template <class T>
struct MapRows {
  T* data = nullptr;
  int64_t volume, slice, row, map;  // strides; along a row they are one

  T* at(int64_t v, int64_t s, int64_t r) const { return data + v * volume + s * slice + r * row; }
};

// What all strips of a pass share.
template <class T>
struct Problem {
  Image<T> preds, target;
  Image<T> map, grad_preds, grad_target;  // outputs, where wanted
  Image<T> grad_map;                      // upstream picture, where given
  MapRows<T> maps;                        // of volumes, from pass to pass
  Axis rows, columns;
  std::array<std::vector<T>, 2> taps;      // rows, columns: [2 radius + 1]
  std::array<std::vector<T>, 2> reversed;  // the same, last tap first: the adjoint's
  int64_t crop_rows, crop_columns;  // outputs at either end that do not count for the contrast sensitivity
  T slice_sum;                      // in Pass::depth: of a slice's window, the rows' taps times the columns'
  std::vector<T> c1, c2;            // [B]
  std::vector<T> grad_similarity;  // [B], weight of every output in the derivatives
  std::vector<T> grad_contrast;    // [B], the same for the contrast sensitivity of the cropped outputs
  bool wants_constants;            // derivatives by c1 and c2 in the sums
};

// Column ranges of one strip: it owns input columns [begin, end), hence the gradient there and the outputs
// centred there (the first and last strip also those centred outside the input).
struct Columns {
  int64_t begin, end;
  int64_t owned_begin, owned_end;        // outputs whose value counts here
  int64_t extended_begin, extended_end;  // positions whose derivative folds back onto the owned columns
  int64_t output_begin, output_end;      // outputs computed

  Columns(const Axis& axis, int64_t begin, int64_t end, bool gradient) : begin(begin), end(end) {
    const bool first = begin == 0, last = end == axis.n;
    const int64_t length = axis.output_length(), shift = axis.radius - axis.pad;
    owned_begin = first ? 0 : std::clamp<int64_t>(begin - shift, 0, length);
    owned_end = last ? length : std::clamp<int64_t>(end - shift, 0, length);
    extended_begin = first && axis.reflects ? -axis.pad : begin;
    extended_end = last && axis.reflects ? axis.n + axis.pad : end;
    output_begin = owned_begin;
    output_end = owned_end;
    if (gradient) {
      output_begin = std::clamp<int64_t>(extended_begin + axis.pad - 2 * axis.radius, 0, length);
      output_end = std::clamp<int64_t>(extended_end + axis.pad, output_begin, length);
    }
  }
};

// Row buffers for one strip, carved out of one allocation. Nothing is initialised: lanes and rows that no pixel wrote
// reach no result.
template <class T>
class Workspace {
 public:
  Workspace(const Problem<T>& problem, const Columns& c, Pass pass, int maps)
      : outputs(padded(c.output_end - c.output_begin)),
        raw(padded(outputs + 2 * problem.columns.radius)),
        extended(padded(c.extended_end - c.extended_begin)),
        // One vector more, which the last vector of outputs may reach into.
        derivatives(padded(extended + 2 * problem.columns.radius) + padded(1)),
        // Room for several steps before the last 2 radius rows move back to the front.
        ring_rows(2 * problem.rows.radius + kRows * std::max<int64_t>(16, problem.rows.radius)),
        storage_(carve(nullptr, problem, pass, maps)) {
    carve(storage_.get(), problem, pass, maps);
  }

  // Row lengths, whole cache lines.
  const int64_t outputs, raw, extended, derivatives;
  const int64_t ring_rows;
  T* staged;           // [4, raw]: x', y', x'y', (x - y)^2 of one row
  T* moments;          // [ring_rows, 4, outputs]
  T* derivative_rows;  // [ring_rows, maps, derivatives]
  T* column_sums;      // [kRows, maps, derivatives]
  T* gathered;         // [maps, extended]
  T* pixels;           // [2, extended]: x' and y' of a gradient row
  T* gradient;         // [2, extended]
  T* values;           // [kRows, outputs]: the map
  T* weights;          // [kRows, 2, outputs]: upstream weights of similarity and contrast sensitivity
  T* folded_taps;      // [2 radius + 1]

 private:
  static int64_t padded(int64_t n) {
    constexpr int64_t lanes = kLine / sizeof(T);
    return (n + lanes - 1) / lanes * lanes;
  }

  // Sets the pointers; the number of elements from the first to the last.
  int64_t carve(T* const begin, const Problem<T>& problem, Pass pass, int maps) {
    int64_t used = 0;
    const auto part = [&](T*& pointer, int64_t elements) {
      pointer = begin + used;
      used += elements;
    };
    part(staged, 4 * raw);
    part(moments, pass == Pass::gradient ? 0 : ring_rows * 4 * outputs);
    part(derivative_rows, ring_rows * maps * derivatives);
    part(column_sums, kRows * maps * derivatives);
    part(gathered, maps * extended);
    part(pixels, 2 * extended);
    part(gradient, 2 * extended);
    part(values, kRows * outputs);
    part(weights, kRows * 2 * outputs);
    part(folded_taps, padded(2 * problem.rows.radius + 1));
    return used + padded(1);  // which the last vector of a row may reach into
  }

  const Scratch<T> storage_;
};

template <class T>
struct Strip {
  const Problem<T>& problem;
  Plane plane;
  Columns columns;
  int64_t row_begin, row_end;  // input rows owned
  T pivot;                     // the same for all passes over a volume
  Sums* sums;                  // one for each segment of rows owned
  int64_t volume = 0;          // in `maps`
  bool slice_counts = true;    // for the contrast sensitivity
};

// A value near the mean of target's slices and of columns [begin, end): the median of a few pixels, so that
// neither an outlier nor a NaN can be chosen. Zero, from which no pixel is rounded, where they lie on both
// sides of it, or where windows may see nothing but zero padding. It does not depend on the rows of a march.
template <class T>
T choose_pivot(const Problem<T>& problem, Plane plane, int64_t slices, int64_t begin, int64_t end) {
  if (!problem.columns.reflects && problem.columns.pad > problem.columns.radius) return T(0);
  const Image<T>& target = problem.target;
  std::array<T, 27> samples;
  size_t count = 0;
  for (int64_t k = 1; k <= (slices > 1 ? 3 : 1); ++k) {
    if (slices > 1) plane.slice = slices * k / 4;
    for (int64_t i = 1; i <= 3; ++i) {
      for (int64_t j = 1; j <= 3; ++j) {
        T sample;
        target.read_into(&sample, target.offset(plane), problem.rows.n * i / 4, begin + (end - begin) * j / 4,
                         1);
        if (std::isfinite(sample)) samples[count++] = sample;
      }
    }
  }
  if (count == 0) return T(0);
  const auto [low, high] = std::minmax_element(samples.begin(), samples.begin() + count);
  if (*low <= 0 && *high >= 0) return T(0);
  std::nth_element(samples.begin(), samples.begin() + count / 2, samples.begin() + count);
  return samples[count / 2];
}

// The march, for vectors of Bytes bytes.
template <class T, int Bytes, int Radius, int Maps, Pass pass>
class March {
  using V = Lanes<T, Bytes>;
  static constexpr int64_t kLanes = Bytes / sizeof(T);
  static_assert(kLine % Bytes == 0, "rows are whole cache lines, so also whole vectors");

 public:
  SSIM_HOST_DEVICE March(const Strip<T>& strip, Workspace<T>& work)
      : strip_(strip),
        problem_(strip.problem),
        c_(strip.columns),
        work_(work),
        row_radius_(Radius >= 0 ? Radius : problem_.rows.radius),
        column_radius_(pass == Pass::depth ? 0
                       : Radius >= 0       ? Radius
                                           : problem_.columns.radius),
        plane_preds_(problem_.preds.offset(strip.plane)),
        plane_target_(problem_.target.offset(strip.plane)),
        pivot_(strip.pivot) {}

  SSIM_HOST_DEVICE void run() {
    const Axis& rows = problem_.rows;
    const bool first = strip_.row_begin == 0, last = strip_.row_end == rows.n;
    // Outputs whose value counts here, and outputs computed.
    owned_begin_ = first ? 0 : strip_.row_begin - row_radius_ + rows.pad;
    owned_end_ = last ? rows.output_length() : strip_.row_end - row_radius_ + rows.pad;
    const int64_t begin = Maps ? strip_.row_begin + rows.pad - 2 * row_radius_ : owned_begin_;
    const int64_t end = Maps ? strip_.row_end + rows.pad : owned_end_;

    int64_t base = 0;  // of both rings: row `base` holds extended row (output row) `q - pad` (`q - 2 radius`)
    if constexpr (pass != Pass::gradient) {
      for (int64_t k = 0; k < 2 * row_radius_; ++k) moments_of_row(begin - rows.pad + k, k);
    }
    for (int64_t q = begin; q < end; q += kRows) {
      if constexpr (pass == Pass::gradient) {
        load_derivatives(q, base);
      } else {
        for (int j = 0; j < kRows; ++j) {
          moments_of_row(q - rows.pad + 2 * row_radius_ + j, base + 2 * row_radius_ + j);
        }
        if constexpr (pass == Pass::moments) store_moments(q, base);
        if constexpr (pass != Pass::moments) formula(q, base);
      }
      if constexpr (Maps > 0) gradient_rows(q - rows.pad, base);
      base += kRows;
      if (base + 2 * row_radius_ + kRows > work_.ring_rows) {
        if constexpr (pass != Pass::gradient) rewind(work_.moments, 4 * work_.outputs, base);
        if constexpr (Maps > 0) rewind(work_.derivative_rows, Maps * work_.derivatives, base);
        base = 0;
      }
    }
  }

 private:
  SSIM_HOST_DEVICE void rewind(T* ring, int64_t row, int64_t base) {
    std::memmove(ring, ring + base * row, static_cast<size_t>(2 * row_radius_ * row) * sizeof(T));
  }

  // Reads extended columns [e, e + count) of an input row.
  SSIM_HOST_DEVICE void read_extended(const Image<T>& image, int64_t plane, int64_t row, int64_t e,
                                      int64_t count, T* out) {
    const Axis& axis = problem_.columns;
    const int64_t from = std::max<int64_t>(e, 0), to = std::min(e + count, axis.n);
    image.read_into(out + (from - e), plane, row, from, to - from);
    for (int64_t i = e; i < from; ++i) out[i - e] = axis.reflects ? out[axis.source(i) - e] : T(0);
    for (int64_t i = to; i < e + count; ++i) out[i - e] = axis.reflects ? out[axis.source(i) - e] : T(0);
  }

  // Row `row` of the maps between the passes.
  SSIM_HOST_DEVICE T* row_of_maps(int64_t row) const {
    return problem_.maps.at(strip_.volume, strip_.plane.slice, row);
  }

  // The four moments along extended row e, for the ring's row `slot`.
  SSIM_HOST_DEVICE void moments_of_row(int64_t e, int64_t slot) {
    const Axis& rows = problem_.rows;
    if (e < -rows.pad || e >= rows.n + rows.pad) return;  // only outputs that do not exist would read it
    const int64_t row = rows.source(e);
    if constexpr (pass == Pass::depth) return load_moments(row, work_.moments + slot * 4 * work_.outputs);
    T* const x = work_.staged;
    T* const y = x + work_.raw;
    T* const p = y + work_.raw;
    T* const d = p + work_.raw;
    const int64_t from = c_.output_begin - problem_.columns.pad;
    const int64_t count = c_.output_end - c_.output_begin + 2 * column_radius_;
    if (row < 0) {
      std::fill(x, x + 2 * work_.raw, T(0));
    } else {
      if (row + kRows < rows.n) {
        problem_.preds.prefetch(plane_preds_, row + kRows, c_.begin, c_.end - c_.begin);
        problem_.target.prefetch(plane_target_, row + kRows, c_.begin, c_.end - c_.begin);
      }
      read_extended(problem_.preds, plane_preds_, row, from, count, x);
      read_extended(problem_.target, plane_target_, row, from, count, y);
    }
    const V pivot = broadcast<V>(pivot_);
    for (int64_t i = 0; i < work_.raw; i += kLanes) {
      const V raw_x = load<V>(x + i), raw_y = load<V>(y + i);
      const V difference = raw_x - raw_y, centred_x = raw_x - pivot, centred_y = raw_y - pivot;
      store(x + i, centred_x);
      store(y + i, centred_y);
      store(p + i, centred_x * centred_y);
      store(d + i, difference * difference);
    }
    const T* const taps = problem_.taps[1].data();
    T* const out = work_.moments + slot * 4 * work_.outputs;
    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V sum[4];
      along_row<4>(sum, x + i, work_.raw, taps);
      unrolled<4>([&](auto m) SSIM_INLINE_LAMBDA { store(out + m * work_.outputs + i, sum[m]); });
    }
  }

  // Those of a row of the maps. A slice of zeros, less the pivot, has the same moments everywhere.
  SSIM_HOST_DEVICE void load_moments(int64_t row, T* to) {
    const int64_t count = c_.output_end - c_.output_begin;
    const T zero = -pivot_ * problem_.slice_sum;
    const T of_zeros[4] = {zero, zero, -pivot_ * zero, T(0)};
    for (int m = 0; m < 4; ++m) {
      T* const out = to + m * work_.outputs;
      if (row < 0) {
        std::fill(out, out + count, of_zeros[m]);
      } else {
        copy(row_of_maps(row) + m * problem_.maps.map + c_.output_begin, count, out);
      }
    }
  }

  // The moments of outputs q ... q + kRows - 1, to the maps.
  SSIM_HOST_DEVICE void store_moments(int64_t q, int64_t base) {
    const T* const in = work_.moments + base * 4 * work_.outputs;
    const int64_t count = c_.output_end - c_.output_begin;
    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V moment[4][kRows];
      down_rows<4>(moment, in + i, 4 * work_.outputs, work_.outputs, problem_.taps[0].data());
      unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA {
        if (q + j >= owned_end_) return;
        T* const out = row_of_maps(q + j) + c_.output_begin + i;
        unrolled<4>([&](auto m) SSIM_INLINE_LAMBDA {
          store_some(out + m * problem_.maps.map, moment[m][j], count - i);
        });
      });
    }
  }

  // The derivatives of outputs q ... q + kRows - 1, from the maps into the second ring.
  SSIM_HOST_DEVICE void load_derivatives(int64_t q, int64_t base) {
    const int64_t margin = derivative_margin(), count = c_.output_end - c_.output_begin;
    for (int j = 0; j < kRows; ++j) {
      for (int m = 0; m < Maps; ++m) {
        T* const row = work_.derivative_rows + ((base + 2 * row_radius_ + j) * Maps + m) * work_.derivatives;
        const bool exists = problem_.rows.is_output(q + j);
        const T* const soon = row_of_maps(q + j + kRows) + m * problem_.maps.map + c_.output_begin;
        if (problem_.rows.is_output(q + j + kRows)) prefetch(soon, count);
        if (exists) copy(row_of_maps(q + j) + m * problem_.maps.map + c_.output_begin, count, row + margin);
        zero_around(row, exists ? margin : work_.derivatives, count);
      }
    }
  }

  // The derivatives of a row after the adjoint down the ring, to the maps.
  SSIM_HOST_DEVICE void store_derivatives(int64_t row, const T* sums) {
    T* const out = row_of_maps(row) + c_.begin;
    for (int m = 0; m < Maps; ++m) {
      copy(sums + m * work_.derivatives, c_.end - c_.begin, out + m * problem_.maps.map);
    }
  }

  static SSIM_HOST_DEVICE void prefetch(const T* from, int64_t count) {
#if defined(__GNUC__)
    for (int64_t i = 0; i < count; i += kLine / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + i);
#endif
  }

  static SSIM_HOST_DEVICE void copy(const T* from, int64_t count, T* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  }

  // A row of derivatives but for `count` columns from `margin` on.
  SSIM_HOST_DEVICE void zero_around(T* row, int64_t margin, int64_t count) const {
    std::fill(row, row + margin, T(0));
    if (margin + count < work_.derivatives) std::fill(row + margin + count, row + work_.derivatives, T(0));
  }

  // The first `count` lanes, or all of them.
  static SSIM_HOST_DEVICE void store_some(T* to, const V& v, int64_t count) {
    if (count >= kLanes) {
      store(to, v);
    } else {
      for (int64_t k = 0; k < count; ++k) to[k] = v[k];
    }
  }

  // Where output_begin lies among the derivative columns: what lies before and after is zero.
  SSIM_HOST_DEVICE int64_t derivative_margin() const {
    return c_.output_begin - (c_.extended_begin + problem_.columns.pad - 2 * column_radius_);
  }

  // One vector of each of N convolutions along a row; row n starts at in + n * stride.
  template <int N>
  SSIM_HOST_DEVICE void along_row(V (&sum)[N], const T* in, int64_t stride, const T* taps) {
    unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] = V{}; });
    if constexpr (Radius >= 0) {
      unrolled<2 * Radius + 1>([&](auto k) SSIM_INLINE_LAMBDA {
        unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] += load<V>(in + m * stride + k) * taps[k]; });
      });
    } else {
      for (int64_t k = 0; k <= 2 * column_radius_; ++k) {
        unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA { sum[m] += load<V>(in + m * stride + k) * taps[k]; });
      }
    }
  }

  // One vector of each of N convolutions down a ring, for kRows outputs; output j reads rows j ... j + 2
  // radius.
  template <int N>
  SSIM_HOST_DEVICE void down_rows(V (&sum)[N][kRows], const T* in, int64_t row, int64_t map, const T* taps) {
    unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
      unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA { sum[m][j] = V{}; });
    });
    // A tap outside the window is left out, not multiplied by zero, so that a NaN does not reach beyond it.
    if constexpr (Radius >= 0) {
      unrolled<2 * Radius + kRows>([&](auto k) SSIM_INLINE_LAMBDA {
        unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
          const V v = load<V>(in + k * row + m * map);
          unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA {
            if constexpr (k >= j && k - j <= 2 * Radius) sum[m][j] += v * taps[k - j];
          });
        });
      });
    } else {
      const auto step = [&](int64_t k, auto is_inside) SSIM_INLINE_LAMBDA {
        unrolled<N>([&](auto m) SSIM_INLINE_LAMBDA {
          const V v = load<V>(in + k * row + m * map);
          unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA {
            if (is_inside || (k >= j && k - j <= 2 * row_radius_)) sum[m][j] += v * taps[k - j];
          });
        });
      };
      const int64_t size = 2 * row_radius_ + 1;
      const int64_t full = std::max<int64_t>(size, kRows - 1);  // below it every output reads row k
      for (int64_t k = 0; k < kRows - 1; ++k) step(k, std::false_type{});
      for (int64_t k = kRows - 1; k < full; ++k) step(k, std::true_type{});
      for (int64_t k = full; k < size + kRows - 1; ++k) step(k, std::false_type{});
    }
  }

  struct Range {
    int64_t from, to;  // counted from output_begin
  };

  // Weights of the outputs of row q in the derivatives.
  SSIM_HOST_DEVICE void upstream_weights(int64_t q, T* of_similarity, T* of_contrast) {
    const int64_t count = c_.output_end - c_.output_begin;
    const T similarity = problem_.grad_similarity[strip_.plane.batch],
            contrast = problem_.grad_contrast[strip_.plane.batch];
    if (problem_.grad_map) {
      problem_.grad_map.read_into(of_similarity, problem_.grad_map.offset(strip_.plane), q, c_.output_begin,
                                  count);
      for (int64_t i = 0; i < count; ++i) of_similarity[i] += similarity;
    } else {
      std::fill(of_similarity, of_similarity + count, similarity);
    }
    std::fill(of_contrast, of_contrast + count, T(0));
    if (contrast != T(0) && in_crop(q)) {
      const Range crop = cropped(c_.output_begin, c_.output_end);
      if (crop.from < crop.to) std::fill(of_contrast + crop.from, of_contrast + crop.to, contrast);
    }
  }

  // Whether row q has outputs that count for the contrast sensitivity.
  SSIM_HOST_DEVICE bool in_crop(int64_t q) const {
    const int64_t crop = problem_.crop_rows;
    return strip_.slice_counts && q >= crop && q < problem_.rows.output_length() - crop;
  }

  // Outputs [begin, end) without the crop.
  SSIM_HOST_DEVICE Range cropped(int64_t begin, int64_t end) const {
    const int64_t crop = problem_.crop_columns;
    return {std::max(begin, crop) - c_.output_begin,
            std::min(end, problem_.columns.output_length() - crop) - c_.output_begin};
  }

  // Adds the lanes of v, which stands at i, that lie in the range.
  static SSIM_HOST_DEVICE void add_lanes(V& sum, T& rest, const V& v, int64_t i, Range range) {
    if (i >= range.from && i + kLanes <= range.to) {
      sum += v;
    } else {
      const int64_t to = std::min(range.to - i, kLanes);
      for (int64_t k = std::max<int64_t>(range.from - i, 0); k < to; ++k) rest += v[k];
    }
  }

  static SSIM_HOST_DEVICE double total(const V& sum, T rest) {
    double result = static_cast<double>(rest);
    for (int64_t k = 0; k < kLanes; ++k) result += static_cast<double>(sum[k]);
    return result;
  }

  // Outputs q ... q + kRows - 1: sums, map, and derivative maps into the second ring.
  SSIM_HOST_DEVICE void formula(int64_t q, int64_t base) {
    const Axis& rows = problem_.rows;
    const T* const in = work_.moments + base * 4 * work_.outputs;
    const int64_t derivative_row = Maps * work_.derivatives;
    T* const out = work_.derivative_rows + (base + 2 * row_radius_) * derivative_row;
    const int64_t margin = derivative_margin();
    const int64_t count = c_.output_end - c_.output_begin;
    const Range own{c_.owned_begin - c_.output_begin, c_.owned_end - c_.output_begin};
    const Range crop = cropped(c_.owned_begin, c_.owned_end);
    const V pivot = broadcast<V>(pivot_), c1 = broadcast<V>(problem_.c1[strip_.plane.batch]),
            c2 = broadcast<V>(problem_.c2[strip_.plane.batch]);

    bool exists[kRows], owned[kRows], counts[kRows];  // counts: for the contrast sensitivity
    for (int j = 0; j < kRows; ++j) {
      exists[j] = rows.is_output(q + j);
      owned[j] = exists[j] && q + j >= owned_begin_ && q + j < owned_end_;
      counts[j] = owned[j] && in_crop(q + j);
      if (exists[j] && (Maps > 0 || problem_.wants_constants)) {
        upstream_weights(q + j, work_.weights + 2 * j * work_.outputs,
                         work_.weights + (2 * j + 1) * work_.outputs);
      }
    }
    V sum[4][kRows];
    T rest[4][kRows] = {};
    unrolled<kRows>(
        [&](auto j) SSIM_INLINE_LAMBDA { unrolled<4>([&](auto s) SSIM_INLINE_LAMBDA { sum[s][j] = V{}; }); });

    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V moment[4][kRows];
      down_rows<4>(moment, in + i, 4 * work_.outputs, work_.outputs, problem_.taps[0].data());
      unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA {
        const auto terms =
            local_terms(Moments<V>{moment[0][j], moment[1][j], moment[2][j], moment[3][j]}, pivot, c1, c2);
        if (owned[j]) add_lanes(sum[0][j], rest[0][j], terms.similarity_loss(), i, own);
        if (counts[j]) add_lanes(sum[1][j], rest[1][j], terms.contrast_loss, i, crop);
        if (problem_.map && owned[j]) store(work_.values + j * work_.outputs + i, terms.similarity());
        const T* const weights = work_.weights + 2 * j * work_.outputs + i;
        if constexpr (Maps > 0) {
          const auto f = partials(terms, load<V>(weights), load<V>(weights + work_.outputs));
          T* const to = out + j * derivative_row + margin + i;
          store(to, f.a);
          store(to + work_.derivatives, f.p);
          store(to + 2 * work_.derivatives, f.d);
          if constexpr (Maps == 4) store(to + 3 * work_.derivatives, f.b);
        }
        if (problem_.wants_constants && owned[j]) {
          const auto by = constant_partials(terms, load<V>(weights), load<V>(weights + work_.outputs));
          add_lanes(sum[2][j], rest[2][j], by.c1, i, own);
          add_lanes(sum[3][j], rest[3][j], by.c2, i, own);
        }
      });
    }

    for (int j = 0; j < kRows; ++j) {
      if constexpr (Maps > 0) {  // nothing beyond the image: no rows, no columns
        for (int m = 0; m < Maps; ++m) {
          T* const row = out + j * derivative_row + m * work_.derivatives;
          zero_around(row, exists[j] ? margin : work_.derivatives, count);
        }
      }
      if (!owned[j]) continue;
      if (problem_.map) {
        problem_.map.write_from(work_.values + j * work_.outputs + own.from,
                                problem_.map.offset(strip_.plane), q + j, c_.owned_begin, own.to - own.from);
      }
      Sums& sums = strip_.sums[(rows.centre(q + j) - strip_.row_begin) / kSegment];
      sums.similarity_loss += total(sum[0][j], rest[0][j]);
      sums.contrast_loss += total(sum[1][j], rest[1][j]);
      sums.by_c1 += total(sum[2][j], rest[2][j]);
      sums.by_c2 += total(sum[3][j], rest[3][j]);
    }
  }

  // Gradient rows i ... i + kRows - 1, for which the second ring is complete.
  SSIM_HOST_DEVICE void gradient_rows(int64_t i, int64_t base) {
    const int64_t row = Maps * work_.derivatives;
    const T* const in = work_.derivative_rows + base * row;
    bool folded = false, wanted = false;
    for (int j = 0; j < kRows; ++j) {
      if (i + j < strip_.row_begin || i + j >= strip_.row_end) continue;
      wanted = true;
      folded |= problem_.rows.is_folded(i + j);
    }
    if (!wanted) return;
    if (!folded) {
      for (int64_t k = 0; k < work_.derivatives; k += kLanes) {
        V sum[Maps][kRows];
        down_rows<Maps>(sum, in + k, row, work_.derivatives, problem_.reversed[0].data());
        unrolled<kRows>([&](auto j) SSIM_INLINE_LAMBDA {
          unrolled<Maps>([&](auto m) SSIM_INLINE_LAMBDA {
            store(work_.column_sums + (j * Maps + m) * work_.derivatives + k, sum[m][j]);
          });
        });
      }
    }
    for (int j = 0; j < kRows; ++j) {
      if (i + j < strip_.row_begin || i + j >= strip_.row_end) continue;
      T* const sums = work_.column_sums + j * row;
      if (folded) folded_row(i + j, in + j * row, sums);
      if constexpr (pass == Pass::depth) store_derivatives(i + j, sums);
      if constexpr (pass != Pass::depth) finish_row(i + j, sums);
    }
  }

  // As down_rows, for one row near the border, with the taps that fold the reflection back.
  SSIM_HOST_DEVICE void folded_row(int64_t i, const T* in, T* out) {
    const int64_t row = Maps * work_.derivatives;
    const int64_t first_output = i + problem_.rows.pad - 2 * row_radius_;
    for (int64_t k = 0; k <= 2 * row_radius_; ++k) {
      work_.folded_taps[k] = problem_.rows.adjoint_tap(problem_.taps[0].data(), i, first_output + k);
    }
    for (int64_t c = 0; c < row; c += kLanes) {
      V sum = V{};
      for (int64_t k = 0; k <= 2 * row_radius_; ++k) sum += load<V>(in + k * row + c) * work_.folded_taps[k];
      store(out + c, sum);
    }
  }

  // Along the row, fold the reflected columns back, and combine with the pixels.
  SSIM_HOST_DEVICE void finish_row(int64_t row, const T* sums) {
    T* const g = work_.gathered;
    const T* const taps = problem_.reversed[1].data();
    for (int64_t i = 0; i < work_.extended; i += kLanes) {
      V sum[Maps];
      along_row<Maps>(sum, sums + i, work_.derivatives, taps);
      unrolled<Maps>([&](auto m) SSIM_INLINE_LAMBDA { store(g + m * work_.extended + i, sum[m]); });
    }
    const int64_t left = c_.begin - c_.extended_begin, right = c_.extended_end - c_.end;
    for (int m = 0; m < Maps; ++m) {  // position 0 of g is extended_begin
      T* const map = g + m * work_.extended + left;
      for (int64_t e = -left; e < 0; ++e) map[-e] += map[e];
      const int64_t end = c_.end - c_.begin;
      for (int64_t e = end; e < end + right; ++e) map[2 * (end - 1) - e] += map[e];
    }

    const int64_t count = c_.end - c_.begin;
    T* const x = work_.pixels;
    T* const y = x + work_.extended;
    T* const grad_x = work_.gradient;
    T* const grad_y = grad_x + work_.extended;
    problem_.preds.read_into(x, plane_preds_, row, c_.begin, count);
    problem_.target.read_into(y, plane_target_, row, c_.begin, count);
    const T* const by_a = g + left;
    const T* const by_p = by_a + work_.extended;
    const T* const by_d = by_p + work_.extended;
    const V pivot = broadcast<V>(pivot_);
    // The last vector may reach past the row, into the next buffer's or this one's unused columns.
    for (int64_t i = 0; i < count; i += kLanes) {
      const V raw_x = load<V>(x + i), raw_y = load<V>(y + i), p = load<V>(by_p + i);
      const V difference = raw_x - raw_y;
      const V by_difference = difference * load<V>(by_d + i);
      store(grad_x + i, load<V>(by_a + i) + ((raw_y - pivot) * p + by_difference));
      if constexpr (Maps == 4) {
        const V b = load<V>(by_a + 3 * work_.extended + i);
        store(grad_y + i, b + ((raw_x - pivot) * p - by_difference));
      }
    }
    write_gradient(problem_.grad_preds, row, grad_x);
    if constexpr (Maps == 4) {
      if (problem_.grad_target) write_gradient(problem_.grad_target, row, grad_y);
    }
  }

  SSIM_HOST_DEVICE void write_gradient(const Image<T>& image, int64_t row, const T* values) {
    image.write_from(values, image.offset(strip_.plane), row, c_.begin, c_.end - c_.begin);
  }

  const Strip<T>& strip_;
  const Problem<T>& problem_;
  const Columns& c_;
  Workspace<T>& work_;
  const int64_t row_radius_, column_radius_;
  const int64_t plane_preds_, plane_target_;
  const T pivot_;
  int64_t owned_begin_ = 0, owned_end_ = 0;  // rows of outputs whose value counts here
};

}  // namespace ssim_fused
