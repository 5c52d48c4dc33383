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
// and target. The radius is compiled (`Radius`) or, where Radius is -1, taken from the problem. `Masked`
// marches weigh pixels and outputs (math/ssim.h), for which they have a fifth moment, the windows' weight.
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
#include "mask.h"
#include "outputs.h"
#include "pivot.h"
#include "problem.h"
#include "slices.h"
#include "workspace.h"

namespace ssim_fused::cpu {

// The march, for vectors of Bytes bytes.
template <class T, int Bytes, int Radius, int Derivatives, Pass pass, bool Masked>
class March {
  using V = Lanes<T, Bytes>;
  static constexpr int64_t kLanes = Bytes / sizeof(T);
  static constexpr int kMoments = Masked ? kMaskedMoments : kPlainMoments;
  static constexpr int kRing = Masked ? kMaskedRing : kPlainMoments;  // fields of a row of the first ring
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
        slices_(strip, work, row_radius_),
        mask_(strip) {}

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
        if constexpr (pass != Pass::gradient) rewind(work_.moments, kRing * work_.outputs, base);
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

  // The moments along extended row e, for the ring's row `slot`.
  SSIM_INLINE void moments_of_row(int64_t e, int64_t slot) {
    const Axis& rows = problem_.rows;
    if (e < -rows.pad || e >= rows.n + rows.pad) return;  // only outputs that do not exist would read it
    const int64_t row = rows.source(e);
    if constexpr (pass == Pass::depth) {
      T* const to = work_.moments + slot * kRing * work_.outputs;
      if constexpr (Masked) mask_.read_outputs(row, to + kMoments * work_.outputs);
      return slices_.load_moments(row, to);
    }
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
      if constexpr (Masked) mask_.prefetch(row + kStepRows);
      read_extended(problem_.preds, problem_.columns, plane_preds_, row, from, count, x);
      read_extended(problem_.target, problem_.columns, plane_target_, row, from, count, y);
    }
    T* const weights = d + work_.raw;
    T* const out = work_.moments + slot * kRing * work_.outputs;
    if constexpr (Masked) {
      mask_.read(row, from, count, weights);
      // Those of the outputs that are centred here.
      std::copy_n(weights + column_radius_, c_.output_end - c_.output_begin, out + kMoments * work_.outputs);
    }
    if (Derivatives == 0 && problem_.pixels && e == row && row >= strip_.row_begin && row < strip_.row_end) {
      const int64_t own = c_.begin - from;
      sums_of(row).pixels +=
          problem_.pixels.sum(x + own, y + own, Masked ? weights + own : nullptr, c_.end - c_.begin);
    }
    if (Masked && !mask_.weighs_windows()) std::fill(weights, weights + count, T(1));
    const V pivot = broadcast<V>(pivot_);
    for (int64_t i = 0; i < work_.raw; i += kLanes) {
      const V raw_x = load<V>(x + i), raw_y = load<V>(y + i);
      Moments<V> moments;
      if constexpr (Masked) moments = masked_moments(raw_x, raw_y, pivot, load<V>(weights + i));
      if constexpr (!Masked) moments = pixel_moments(raw_x, raw_y, pivot);
      store(x + i, moments.m);
      store(y + i, moments.delta);
      store(p + i, moments.p);
      store(d + i, moments.d);
    }
    const T* const taps = problem_.taps[1].data();
    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V sum[kMoments];
      along_row<Radius>(sum, x + i, work_.raw, taps, column_radius_);
      unrolled<kMoments>([&](auto m) SSIM_INLINE_LAMBDA { store(out + m * work_.outputs + i, sum[m]); });
    }
  }

  // Those that an input row counts in.
  SSIM_INLINE Sums& sums_of(int64_t row) const { return strip_.sums[(row - strip_.row_begin) / kSegment]; }

  // Whether row q has outputs that count for the contrast sensitivity.
  SSIM_INLINE bool in_crop(int64_t q) const { return strip_.slice_counts && problem_.rows.is_in_crop(q); }

  // From the moments of windows; masked, `in_means` are the outputs' weights.
  SSIM_INLINE auto output_of(const V (&moment)[kMoments], const T* in_means, const V& pivot, const V& c1,
                             const V& c2) const {
    if constexpr (Masked) {
      return MaskedOutput<V>(moment, load<V>(in_means), mask_.weighs_windows(), pivot, c1, c2);
    } else {
      return PlainOutput<V>(moment, pivot, c1, c2);
    }
  }

  // Outputs q ... q + kStepRows - 1: sums, map, and derivatives into the second ring.
  SSIM_INLINE void formula(int64_t q, int64_t base) {
    const Axis& rows = problem_.rows;
    const T* const in = work_.moments + base * kRing * work_.outputs;
    // Masked, the weights of outputs lie beside the moments of the row they are centred on.
    const T* const in_means = in + (row_radius_ * kRing + kMoments) * work_.outputs;
    const int64_t derivative_row = Derivatives * work_.derivative_columns;
    T* const out = work_.derivative_rows + (base + 2 * row_radius_) * derivative_row;
    const int64_t margin = c_.derivative_margin(problem_.columns);
    const int64_t count = c_.output_end - c_.output_begin;
    const Range own{c_.owned_begin - c_.output_begin, c_.owned_end - c_.output_begin};
    const Range crop = cropped(strip_, c_.owned_begin, c_.owned_end);
    const V pivot = broadcast<V>(pivot_), c1 = broadcast<V>(problem_.c1[strip_.plane.batch]),
            c2 = broadcast<V>(problem_.c2[strip_.plane.batch]);

    bool exists[kStepRows], owned[kStepRows], counts[kStepRows];  // counts: for the contrast sensitivity
    for (int j = 0; j < kStepRows; ++j) {
      exists[j] = rows.is_output(q + j);
      owned[j] = exists[j] && q + j >= owned_begin_ && q + j < owned_end_;
      counts[j] = owned[j] && in_crop(q + j);
      if (exists[j] && (Derivatives > 0 || problem_.wants_constants)) {
        upstream_weights<Masked>(strip_, q + j, in_crop(q + j), work_.weights + 2 * j * work_.outputs,
                                 work_.weights + (2 * j + 1) * work_.outputs,
                                 in_means + j * kRing * work_.outputs);
      }
    }
    constexpr int kSums = Masked ? 6 : 4;
    V sum[kSums][kStepRows];
    unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
      unrolled<kSums>([&](auto s) SSIM_INLINE_LAMBDA { sum[s][j] = V{}; });
    });

    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      const V number = numbers<V>() + static_cast<T>(i);
      V moment[kMoments][kStepRows];
      down_rows<Radius>(moment, in + i, kRing * work_.outputs, work_.outputs, problem_.taps[0].data(),
                        row_radius_);
      unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
        V of_output[kMoments];
        unrolled<kMoments>([&](auto m) SSIM_INLINE_LAMBDA { of_output[m] = moment[m][j]; });
        const auto output = output_of(of_output, in_means + j * kRing * work_.outputs + i, pivot, c1, c2);
        const auto& terms = output.terms;
        sum[0][j] += only<T>(output.in_mean(terms.similarity_loss()), number, own);
        sum[1][j] += only<T>(output.in_mean(terms.contrast_loss), number, crop);
        if constexpr (Masked) {
          sum[4][j] += only<T>(output.weight, number, own);
          sum[5][j] += only<T>(output.weight, number, crop);
        }
        if (problem_.map && owned[j]) store(work_.values + j * work_.outputs + i, output.in_map());
        const T* const weights = work_.weights + 2 * j * work_.outputs + i;
        if constexpr (Derivatives > 0) {
          const auto f = output.partials_by(load<V>(weights), load<V>(weights + work_.outputs));
          T* const to = out + j * derivative_row + margin + i;
          store(to, f.a);
          store(to + work_.derivative_columns, f.p);
          store(to + 2 * work_.derivative_columns, f.d);
          if constexpr (Derivatives == 4) store(to + 3 * work_.derivative_columns, f.b);
        }
        if (problem_.wants_constants && owned[j]) {
          const auto by = output.constant_partials_by(load<V>(weights), load<V>(weights + work_.outputs));
          sum[2][j] += only<T>(by.c1, number, own);
          sum[3][j] += only<T>(by.c2, number, own);
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
      sums.similarity_loss += total<T>(sum[0][j]);
      if (counts[j]) sums.contrast_loss += total<T>(sum[1][j]);
      sums.by_c1 += total<T>(sum[2][j]);
      sums.by_c2 += total<T>(sum[3][j]);
      if constexpr (Masked) {
        sums.weight += total<T>(sum[4][j]);
        if (counts[j]) sums.cropped_weight += total<T>(sum[5][j]);
      }
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
    if constexpr (Masked) mask_.read_pixels(row, c_.begin, count, work_.pixel_weights);
    const V pivot = broadcast<V>(pivot_);
    // The last vector may reach past the row, into the next buffer's or this one's unused columns.
    for (int64_t i = 0; i < count; i += kLanes) {
      Partials<V> f{load<V>(by_a + i), V{}, load<V>(by_p + i), load<V>(by_d + i)};
      if constexpr (Derivatives == 4) f.b = load<V>(by_a + 3 * work_.extended + i);
      PixelGradient<V> pixel;
      if constexpr (Masked) {
        pixel =
            masked_pixel_gradient(load<V>(x + i), load<V>(y + i), pivot, f, load<V>(work_.pixel_weights + i));
      } else {
        pixel = pixel_gradient(load<V>(x + i), load<V>(y + i), pivot, f);
      }
      store(grad_x + i, pixel.by_x);
      if constexpr (Derivatives == 4) store(grad_y + i, pixel.by_y);
    }
    if (problem_.pixels) {
      if (Masked && !mask_.weighs_windows()) mask_.read(row, c_.begin, count, work_.pixel_weights);
      sums_of(row).pixels +=
          problem_.pixels.sum_and_slopes(strip_.plane.batch, x, y, Masked ? work_.pixel_weights : nullptr,
                                         count, grad_x, Derivatives == 4 ? grad_y : nullptr);
    }
    if (!Masked || problem_.grad_preds) write_gradient(problem_.grad_preds, row, grad_x);
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
  Slices<T, V, Radius, Derivatives, Masked> slices_;
  const MaskRows<T> mask_;
  int64_t owned_begin_ = 0, owned_end_ = 0;  // rows of outputs whose value counts here
};

}  // namespace ssim_fused::cpu
