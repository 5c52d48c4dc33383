// The CPU kernel: one strip of one plane, marched down row by row, from raw pixels to sums, map and
// gradients.
//
//   raw rows --(along the row)--> four moments, a ring of 2r + kStepRows rows
//            --(down the ring)--> moments -> formula -> derivatives, a second ring
//            --(down the ring)--(along the row)--> gradient rows
//
// Volumes take three marches, each a part of this one, with fields of a whole volume between them (`Pass`).
//
// kStepRows rows are taken at a time, so that each row loaded going down a ring serves kStepRows outputs.
// Everything between raw pixels and results stays in a workspace of O(strip width x window) elements. T is
// the compute type; `Derivatives` counts the derivatives kept: 0 without gradients, 3 for preds, 4 for preds
// and target. The radius is compiled (`Radius`) or, where Radius is -1, taken from the problem.
//
// No result depends on how rows are divided among threads: each row's arithmetic is the same wherever a march
// begins, and sums are kept per segment of kSegment rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../math/pass.h"
#include "../math/ssim.h"
#include "convolve.h"
#include "image.h"
#include "lanes.h"
#include "pivot.h"
#include "problem.h"
#include "slices.h"
#include "workspace.h"

namespace ssim_fused::cpu {

// The march, for vectors of Bytes bytes.
template <class T, int Bytes, int Radius, int Derivatives, Pass pass>
class March {
  using V = Lanes<T, Bytes>;
  static constexpr int64_t kLanes = Bytes / sizeof(T);
  static_assert(kLine % Bytes == 0, "rows are whole cache lines, so also whole vectors");

 public:
  SSIM_INLINE March(const Strip<T>& strip, Workspace<T>& work)
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
        pivot_(strip.pivot),
        slices_(strip, work, row_radius_) {}

  SSIM_INLINE void run() {
    const Axis& rows = problem_.rows;
    const bool first = strip_.row_begin == 0, last = strip_.row_end == rows.n;
    // Outputs whose value counts here, and outputs computed.
    owned_begin_ = first ? 0 : strip_.row_begin - row_radius_ + rows.pad;
    owned_end_ = last ? rows.output_length() : strip_.row_end - row_radius_ + rows.pad;
    const int64_t begin = Derivatives ? strip_.row_begin + rows.pad - 2 * row_radius_ : owned_begin_;
    const int64_t end = Derivatives ? strip_.row_end + rows.pad : owned_end_;

    int64_t base = 0;  // of both rings: row `base` holds extended row (output row) `q - pad` (`q - 2 radius`)
    int64_t filled = 0;  // the first ring's next row
    for (int64_t q = begin; q < end; q += kStepRows) {
      if constexpr (pass == Pass::gradient) {
        slices_.load_derivatives(q, base);
      } else {
        for (; filled < base + 2 * row_radius_ + kStepRows; ++filled)
          moments_of_row(q - rows.pad + (filled - base), filled);
        if constexpr (pass == Pass::moments) slices_.store_moments(q, base, owned_end_);
        if constexpr (pass != Pass::moments) formula(q, base);
      }
      if constexpr (Derivatives > 0) gradient_rows(q - rows.pad, base);
      base += kStepRows;
      if (base + 2 * row_radius_ + kStepRows > work_.ring_rows) {
        if constexpr (pass != Pass::gradient) rewind(work_.moments, 4 * work_.outputs, base);
        if constexpr (Derivatives > 0)
          rewind(work_.derivative_rows, Derivatives * work_.derivative_columns, base);
        filled -= base;
        base = 0;
      }
    }
  }

 private:
  SSIM_INLINE void rewind(T* ring, int64_t row, int64_t base) {
    std::memmove(ring, ring + base * row, static_cast<size_t>(2 * row_radius_ * row) * sizeof(T));
  }

  // Reads extended columns [e, e + count) of an input row.
  SSIM_INLINE void read_extended(const Image<T>& image, int64_t plane, int64_t row, int64_t e, int64_t count,
                                 T* out) {
    const Axis& axis = problem_.columns;
    const int64_t from = std::max<int64_t>(e, 0), to = std::min(e + count, axis.n);
    image.read_into(out + (from - e), plane, row, from, to - from);
    if (e < from) extend(axis, e, e, from, out);
    if (to < e + count) extend(axis, e, to, e + count, out);
  }

  // The four moments along extended row e, for the ring's row `slot`.
  SSIM_INLINE void moments_of_row(int64_t e, int64_t slot) {
    const Axis& rows = problem_.rows;
    if (e < -rows.pad || e >= rows.n + rows.pad) return;  // only outputs that do not exist would read it
    const int64_t row = rows.source(e);
    if constexpr (pass == Pass::depth)
      return slices_.load_moments(row, work_.moments + slot * 4 * work_.outputs);
    T* const x = work_.staged;
    T* const y = x + work_.raw;
    T* const p = y + work_.raw;
    T* const d = p + work_.raw;
    const int64_t from = c_.output_begin - problem_.columns.pad;
    const int64_t count = c_.output_end - c_.output_begin + 2 * column_radius_;
    if (row < 0) {
      std::fill(x, x + 2 * work_.raw, T(0));
    } else {
      if (row + kStepRows < rows.n) {
        problem_.preds.prefetch(plane_preds_, row + kStepRows, c_.begin, c_.end - c_.begin);
        problem_.target.prefetch(plane_target_, row + kStepRows, c_.begin, c_.end - c_.begin);
      }
      read_extended(problem_.preds, plane_preds_, row, from, count, x);
      read_extended(problem_.target, plane_target_, row, from, count, y);
      if (Derivatives == 0 && problem_.pixels && e == row && row >= strip_.row_begin && row < strip_.row_end)
        sums_of(row).pixels +=
            problem_.pixels.sum(x + (c_.begin - from), y + (c_.begin - from), c_.end - c_.begin);
    }
    const V pivot = broadcast<V>(pivot_);
    for (int64_t i = 0; i < work_.raw; i += kLanes) {
      const V raw_x = load<V>(x + i), raw_y = load<V>(y + i);
      const Moments<V> moments = pixel_moments(raw_x, raw_y, pivot);
      store(x + i, moments.m);
      store(y + i, moments.delta);
      store(p + i, moments.p);
      store(d + i, moments.d);
    }
    const T* const taps = problem_.taps[1].data();
    T* const out = work_.moments + slot * 4 * work_.outputs;
    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V sum[4];
      along_row<Radius>(sum, x + i, work_.raw, taps, column_radius_);
      unrolled<4>([&](auto m) SSIM_INLINE_LAMBDA { store(out + m * work_.outputs + i, sum[m]); });
    }
  }

  // Those that an input row counts in.
  SSIM_INLINE Sums& sums_of(int64_t row) const { return strip_.sums[(row - strip_.row_begin) / kSegment]; }

  struct Range {
    int64_t from, to;  // counted from output_begin
  };

  // Weights of the outputs of row q in the derivatives.
  SSIM_INLINE void upstream_weights(int64_t q, T* of_similarity, T* of_contrast) {
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
  SSIM_INLINE bool in_crop(int64_t q) const { return strip_.slice_counts && problem_.rows.is_in_crop(q); }

  // Outputs [begin, end) without the crop.
  SSIM_INLINE Range cropped(int64_t begin, int64_t end) const {
    return {std::max(begin, problem_.crop_begin) - c_.output_begin,
            std::min(end, problem_.crop_end) - c_.output_begin};
  }

  // The lanes of v, whose first is number i, that lie in the range; elsewhere zero, whatever v has there.
  static SSIM_INLINE V only(const V& v, const V& number, Range range) {
    return (number >= static_cast<T>(range.from)) & (number < static_cast<T>(range.to)) ? v : V{};
  }

  static SSIM_INLINE double total(const V& sum) {
    double result = 0;
    for (int64_t k = 0; k < kLanes; ++k) result += static_cast<double>(sum[k]);
    return result;
  }

  // Outputs q ... q + kStepRows - 1: sums, map, and derivatives into the second ring.
  SSIM_INLINE void formula(int64_t q, int64_t base) {
    const Axis& rows = problem_.rows;
    const T* const in = work_.moments + base * 4 * work_.outputs;
    const int64_t derivative_row = Derivatives * work_.derivative_columns;
    T* const out = work_.derivative_rows + (base + 2 * row_radius_) * derivative_row;
    const int64_t margin = c_.derivative_margin(problem_.columns);
    const int64_t count = c_.output_end - c_.output_begin;
    const Range own{c_.owned_begin - c_.output_begin, c_.owned_end - c_.output_begin};
    const Range crop = cropped(c_.owned_begin, c_.owned_end);
    const V pivot = broadcast<V>(pivot_), c1 = broadcast<V>(problem_.c1[strip_.plane.batch]),
            c2 = broadcast<V>(problem_.c2[strip_.plane.batch]);

    bool exists[kStepRows], owned[kStepRows], counts[kStepRows];  // counts: for the contrast sensitivity
    for (int j = 0; j < kStepRows; ++j) {
      exists[j] = rows.is_output(q + j);
      owned[j] = exists[j] && q + j >= owned_begin_ && q + j < owned_end_;
      counts[j] = owned[j] && in_crop(q + j);
      if (exists[j] && (Derivatives > 0 || problem_.wants_constants)) {
        upstream_weights(q + j, work_.weights + 2 * j * work_.outputs,
                         work_.weights + (2 * j + 1) * work_.outputs);
      }
    }
    V sum[4][kStepRows];
    unrolled<kStepRows>(
        [&](auto j) SSIM_INLINE_LAMBDA { unrolled<4>([&](auto s) SSIM_INLINE_LAMBDA { sum[s][j] = V{}; }); });

    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      const V number = numbers<V>() + static_cast<T>(i);
      V moment[4][kStepRows];
      down_rows<Radius>(moment, in + i, 4 * work_.outputs, work_.outputs, problem_.taps[0].data(),
                        row_radius_);
      unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
        const auto terms =
            local_terms(Moments<V>{moment[0][j], moment[1][j], moment[2][j], moment[3][j]}, pivot, c1, c2);
        sum[0][j] += only(terms.similarity_loss(), number, own);
        sum[1][j] += only(terms.contrast_loss, number, crop);
        if (problem_.map && owned[j]) store(work_.values + j * work_.outputs + i, terms.similarity());
        const T* const weights = work_.weights + 2 * j * work_.outputs + i;
        if constexpr (Derivatives > 0) {
          const auto f = partials(terms, load<V>(weights), load<V>(weights + work_.outputs));
          T* const to = out + j * derivative_row + margin + i;
          store(to, f.a);
          store(to + work_.derivative_columns, f.p);
          store(to + 2 * work_.derivative_columns, f.d);
          if constexpr (Derivatives == 4) store(to + 3 * work_.derivative_columns, f.b);
        }
        if (problem_.wants_constants && owned[j]) {
          const auto by = constant_partials(terms, load<V>(weights), load<V>(weights + work_.outputs));
          sum[2][j] += only(by.c1, number, own);
          sum[3][j] += only(by.c2, number, own);
        }
      });
    }

    for (int j = 0; j < kStepRows; ++j) {
      if constexpr (Derivatives > 0) {  // nothing beyond the image: no rows, no columns
        for (int m = 0; m < Derivatives; ++m) {
          T* const row = out + j * derivative_row + m * work_.derivative_columns;
          work_.zero_around(row, exists[j] ? margin : work_.derivative_columns, count);
        }
      }
      if (!owned[j]) continue;
      if (problem_.map) {
        problem_.map.write_from(work_.values + j * work_.outputs + own.from,
                                problem_.map.offset(strip_.plane), q + j, c_.owned_begin, own.to - own.from);
      }
      Sums& sums = sums_of(rows.centre(q + j));
      sums.similarity_loss += total(sum[0][j]);
      if (counts[j]) sums.contrast_loss += total(sum[1][j]);
      sums.by_c1 += total(sum[2][j]);
      sums.by_c2 += total(sum[3][j]);
    }
  }

  // Gradient rows i ... i + kStepRows - 1, for which the second ring is complete.
  SSIM_INLINE void gradient_rows(int64_t i, int64_t base) {
    const int64_t row = Derivatives * work_.derivative_columns;
    const T* const in = work_.derivative_rows + base * row;
    bool folded = false, wanted = false;
    for (int j = 0; j < kStepRows; ++j) {
      if (i + j < strip_.row_begin || i + j >= strip_.row_end) continue;
      wanted = true;
      folded |= problem_.rows.is_folded(i + j);
    }
    if (!wanted) return;
    if (!folded) {
      for (int64_t k = 0; k < work_.derivative_columns; k += kLanes) {
        V sum[Derivatives][kStepRows];
        down_rows<Radius>(sum, in + k, row, work_.derivative_columns, problem_.reversed[0].data(),
                          row_radius_);
        unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
          unrolled<Derivatives>([&](auto m) SSIM_INLINE_LAMBDA {
            store(work_.column_sums + (j * Derivatives + m) * work_.derivative_columns + k, sum[m][j]);
          });
        });
      }
    }
    for (int j = 0; j < kStepRows; ++j) {
      if (i + j < strip_.row_begin || i + j >= strip_.row_end) continue;
      T* const sums = work_.column_sums + j * row;
      if (folded) folded_row(i + j, in + j * row, sums);
      if constexpr (pass == Pass::depth) slices_.store_derivatives(i + j, sums);
      if constexpr (pass != Pass::depth) finish_row(i + j, sums);
    }
  }

  // As down_rows, for one row near the border, with the taps that fold the reflection back.
  SSIM_INLINE void folded_row(int64_t i, const T* in, T* out) {
    const int64_t row = Derivatives * work_.derivative_columns;
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
  SSIM_INLINE void finish_row(int64_t row, const T* sums) {
    T* const g = work_.gathered;
    const T* const taps = problem_.reversed[1].data();
    for (int64_t i = 0; i < work_.extended; i += kLanes) {
      V sum[Derivatives];
      along_row<Radius>(sum, sums + i, work_.derivative_columns, taps, column_radius_);
      unrolled<Derivatives>([&](auto m) SSIM_INLINE_LAMBDA { store(g + m * work_.extended + i, sum[m]); });
    }
    const int64_t left = c_.begin - c_.extended_begin, right = c_.extended_end - c_.end;
    for (int m = 0; m < Derivatives; ++m) {  // position 0 of g is extended_begin
      T* const field = g + m * work_.extended + left;
      for (int64_t e = -left; e < 0; ++e) field[-e] += field[e];
      const int64_t end = c_.end - c_.begin;
      for (int64_t e = end; e < end + right; ++e) field[2 * (end - 1) - e] += field[e];
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
      Partials<V> f{load<V>(by_a + i), V{}, load<V>(by_p + i), load<V>(by_d + i)};
      if constexpr (Derivatives == 4) f.b = load<V>(by_a + 3 * work_.extended + i);
      const PixelGradient<V> pixel = pixel_gradient(load<V>(x + i), load<V>(y + i), pivot, f);
      store(grad_x + i, pixel.by_x);
      if constexpr (Derivatives == 4) store(grad_y + i, pixel.by_y);
    }
    if (problem_.pixels)
      sums_of(row).pixels +=
          problem_.pixels.sum_and_slopes(x, y, count, grad_x, Derivatives == 4 ? grad_y : nullptr);
    write_gradient(problem_.grad_preds, row, grad_x);
    if constexpr (Derivatives == 4) {
      if (problem_.grad_target) write_gradient(problem_.grad_target, row, grad_y);
    }
  }

  SSIM_INLINE void write_gradient(const Image<T>& image, int64_t row, const T* values) {
    image.write_from(values, image.offset(strip_.plane), row, c_.begin, c_.end - c_.begin);
  }

  const Strip<T>& strip_;
  const Problem<T>& problem_;
  const Columns& c_;
  Workspace<T>& work_;
  const int64_t row_radius_, column_radius_;
  const int64_t plane_preds_, plane_target_;
  const T pivot_;
  Slices<T, V, Radius, Derivatives> slices_;
  int64_t owned_begin_ = 0, owned_end_ = 0;  // rows of outputs whose value counts here
};

}  // namespace ssim_fused::cpu
