// Third stage of a march: from the derivatives by the moments of windows to the gradients of pixels, by the
// adjoint of window and padding.
//
// If padding mirrors (Axis::mirrors), the adjoint is the same window applied to mirrored derivatives. The
// derivatives of the first and last position, about which the others are mirrored, count twice, and the
// gradients there are halved at the end. Otherwise rows near an end have their own taps
// (Axis::adjoint_tap), and gradients are also computed for columns beyond the ends and folded back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/ssim.h"
#include "march_state.h"
#include "moments.h"
#include "slices.h"

namespace ssim_fused::cpu {

template <class State>
class Gradients {
  SSIM_STATE(State);

 public:
  SSIM_INLINE Gradients(const State& state, const PixelRows<State>& pixels, const Slices<State>& slices)
      : s_(state), pixels_(pixels), slices_(slices) {
    const int64_t before = 2 * s_.radius;
    for (int64_t k = 0; k < before && s_.task.computed.begin == 0; ++k)
      s_.derivatives.clear(k);  // outputs -2 radius ... -1 do not exist
    if constexpr (pass != Pass::depth) clear_beside_sums();
  }

  // Computes the gradient rows that are complete with the derivatives of outputs q ... q + kStepRows - 1.
  SSIM_INLINE void compute(int64_t q) const {
    if (s_.mirrors_rows) mirror_rows(q);
    const int64_t first = q - s_.spec.rows.pad;
    const RowRange completed = s_.task.completed_rows(s_.spec.rows, q);
    const int64_t begin = completed.begin, end = completed.end;
    if (begin >= end) return;
    bool folded = false;
    for (int64_t row = begin; row < end; ++row) folded |= !s_.mirrors_rows && s_.spec.rows.is_folded(row);
    if constexpr (pass == Pass::depth) {
      if (s_.spec.fields.in_lanes && !folded && end - begin == kStepRows && !is_mirror(begin) &&
          !is_mirror(end - 1)) {
        slices_.store_whole_step(begin);
        return;
      }
    }
    if (!folded) down_rows();
    for (int64_t row = begin; row < end; ++row) {
      const int64_t j = row - first;
      if (folded) down_folded_row(row, j);
      if constexpr (pass == Pass::depth) {
        for (int m = 0; m < Derivatives && is_mirror(row); ++m) halve(sums(j, m), s_.vectors * kLanes);
        slices_.store_derivatives(row, sums(j, 0));
      } else {
        outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { finish_row(row, j); });
      }
    }
  }

 private:
  SSIM_INLINE T* sums(int64_t j, int m) const { return s_.column_sums(j, Derivatives, m); }

  // Doubles the derivatives of the first and last row, and copies those of the rows next to them to the
  // rows beyond the image.
  SSIM_INLINE void mirror_rows(int64_t q) const {
    const int64_t last = s_.spec.rows.n - 1, radius = s_.radius;
    const auto slot = [&](int64_t output)
                          SSIM_INLINE_LAMBDA { return s_.derivatives.slot(output - q + 2 * radius); };
    for (int64_t output = q; output < q + kStepRows; ++output) {
      if (output == 0 || output == last) s_.derivatives.multiply(slot(output), T(2));
    }
    if (q <= radius && radius < q + kStepRows) {
      for (int64_t k = 1; k <= radius; ++k) s_.derivatives.copy(slot(k), slot(-k));
    }
    for (int64_t output = std::max(q, last + 1); output < q + kStepRows && output <= last + radius; ++output)
      s_.derivatives.copy(slot(2 * last - output), slot(output));
  }

  // Convolves a step of derivatives down the ring into `column_sums`.
  SSIM_INLINE void down_rows() const {
    const int64_t row = s_.work.sums_row();
    convolve_all<T, Bytes>(
        s_.derivatives.down(0, s_.vectors, Derivatives, 0, sums(0, 0), kLanes, row, Derivatives * row),
        s_.adjoint_window(0));
  }

  // Computes one row of `column_sums` near the border, with taps that fold the reflection back.
  SSIM_INLINE void down_folded_row(int64_t row, int64_t j) const {
    const Axis& rows = s_.spec.rows;
    for (int64_t k = 0; k <= 2 * s_.radius; ++k) {
      const T tap = rows.adjoint_tap(s_.spec.taps[0].data(), row, row + rows.pad - 2 * s_.radius + k);
      store(s_.work.folded_taps + k * kLanes, broadcast<V>(tap));
    }
    convolve_all<T, Bytes, 1>(
        s_.derivatives.down(0, s_.vectors, Derivatives, j, sums(j, 0), kLanes, s_.work.sums_row(), 0),
        {s_.work.folded_taps, 2 * s_.radius + 1, false});
  }

  // Zeroes the halo of each row of `column_sums`. The lanes beyond the ends of the row stay zero
  // afterwards, unless padding mirrors (add_neighbours).
  SSIM_INLINE void clear_beside_sums() const {
    const int64_t beside = s_.work.reach * kLanes;
    for (int64_t j = 0; j < kStepRows; ++j) {
      for (int m = 0; m < Derivatives; ++m) {
        std::fill_n(sums(j, m) - beside, beside, T(0));
        std::fill_n(sums(j, m) + s_.vectors * kLanes, beside, T(0));
      }
    }
  }

  // Fills the halo of a row of `column_sums`, for all fields.
  SSIM_INLINE void complete_sums(T* first) const {
    T* row[Derivatives];
    for (int m = 0; m < Derivatives; ++m) row[m] = first + m * s_.work.sums_row();
    const auto& mirrored = s_.work.mirrored;
    if (mirrored) {
      for (int64_t place : mirrored->ends) {
        // Multiplies the whole vector: after a store of a single lane, the next load of the vector would
        // stall, because the store cannot be forwarded.
        const int64_t lane = place % kLanes;
        const V factor = numbers<V>() == broadcast<V>(static_cast<T>(lane)) ? V{} + 2 : V{} + 1;
        for (T* of_field : row) {
          T* const vector = of_field + (place - lane);
          store(vector, load<V>(vector) * factor);
        }
      }
      for (const auto& copy : mirrored->copies) {
        for (T* of_field : row) of_field[copy.to] = of_field[copy.from];
      }
    }
    for (T* of_field : row)
      add_neighbours<V>(of_field, s_.vectors, s_.work.reach, mirrored && mirrored->by_first_lane,
                        mirrored && mirrored->by_last_lane);
  }

  // Convolves row j of `column_sums` along its columns, combines it with the pixels, and writes the
  // gradients.
  SSIM_INLINE void finish_row(int64_t row, int64_t j) const {
    T* pixels = s_.work.pixels;
    if constexpr (pass == Pass::gradient) {
      pixels_.read(row, pixels);
      pixels_.forget_weights(pixels);
    } else {
      pixels = pixels_.kept(row);
    }
    pixels += s_.work.reach * kLanes;
    complete_sums(sums(j, 0));
    if constexpr (pass == Pass::gradient) pixels_.ask_ahead(row);
    convolve_row<T, Bytes>(s_.vectors, Derivatives, sums(j, 0) - s_.work.reach * kLanes, s_.work.sums_row(),
                           s_.work.row_sums, s_.vectors * kLanes, kLanes, s_.adjoint_window(1));
    combine(s_.work.row_sums, pixels, s_.work.gradient);
    write(row);
  }

  // Computes the gradients of a row of pixels from the convolved derivatives.
  SSIM_INLINE void combine(const T* sum, const T* x, T* gradient) const {
    const int64_t count = s_.vectors * kLanes, next_sum = count, next_image = s_.work.raw * kLanes,
                  next_gradient = s_.work.padded_vectors() * kLanes;
    const Pivots<V> pivots = s_.pivots();
    const V scale = broadcast<V>(s_.scale_of_derivatives());
    for (int64_t i = 0; i < count; i += kLanes, sum += kLanes, x += kLanes, gradient += kLanes) {
      Partials<V> f{load<V>(sum + kByA * next_sum), V{}, load<V>(sum + kByP * next_sum),
                    load<V>(sum + kByD * next_sum)};
      if constexpr (gradients == GradientsOf::both) f.b = load<V>(sum + kByB * next_sum);
      const V of_x = load<V>(x), of_y = load<V>(x + next_image);
      PixelGradient<V> pixel;
      if constexpr (Masked) pixel = masked_pixel_gradient(of_x, of_y, pivots, f, load<V>(x + 2 * next_image));
      if constexpr (!Masked) pixel = pixel_gradient(of_x, of_y, pivots, f);
      store(gradient, scale * pixel.by_x);
      if constexpr (gradients == GradientsOf::both) store(gradient + next_gradient, scale * pixel.by_y);
    }
  }

  // Writes the gradients of a row, with the slopes of the pixel term, whose sum it adds to the segment's
  // sums.
  SSIM_INLINE void write(int64_t row) const {
    const PassSpec<T>& spec = s_.spec;
    T* const grad_x = own_columns(row, s_.work.gradient, s_.work.rows[3]);
    T* grad_y = nullptr;
    if constexpr (gradients == GradientsOf::both)
      grad_y = own_columns(row, s_.work.gradient + s_.work.padded_vectors() * kLanes, s_.work.rows[4]);
    if (spec.pixel_term) {
      T* const weights = s_.work.rows[2];
      const int64_t count = s_.columns.end - s_.columns.begin;
      if constexpr (Masked) s_.mask.read(row, s_.columns.begin, count, weights);
      s_.sums_of(row).pixels += spec.pixel_term.sum_and_slopes(
          s_.strip.plane.batch, pixels_.own_of_preds(row), pixels_.own_of_target(row),
          Masked ? weights : nullptr, count, grad_x, grad_y);
    }
    if (spec.grad_preds) write_to(spec.grad_preds, row, grad_x);
    if (gradients == GradientsOf::both && spec.grad_target) write_to(spec.grad_target, row, grad_y);
  }

  // Converts a gradient row to natural order and folds back what lies beyond the image's ends. Returns the
  // address of the strip's own columns.
  SSIM_INLINE T* own_columns(int64_t row, const T* gradient, T* natural) const {
    s_.to_natural_order(gradient, natural);
    T* const own = natural + s_.work.positions.of_column(s_.columns.begin);
    const int64_t count = s_.columns.end - s_.columns.begin;
    if (s_.work.mirrored) {
      if (s_.columns.begin == 0) own[0] /= 2;
      if (s_.columns.end == s_.spec.columns.n) own[count - 1] /= 2;
    } else {
      fold(own);
    }
    if (is_mirror(row)) halve(own, count);
    return own;
  }

  // Adds the gradients of columns beyond the image's ends to the columns that they mirror.
  SSIM_INLINE void fold(T* own) const {
    const Columns& c = s_.columns;
    const int64_t left = c.begin - c.extended_begin, right = c.extended_end - c.end, end = c.end - c.begin;
    for (int64_t e = -left; e < 0; ++e) own[-e] += own[e];
    for (int64_t e = end; e < end + right; ++e) own[2 * (end - 1) - e] += own[e];
  }

  SSIM_INLINE bool is_mirror(int64_t row) const {
    return s_.mirrors_rows && (row == 0 || row == s_.spec.rows.n - 1);
  }
  static SSIM_INLINE void halve(T* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] /= 2;
  }

  SSIM_INLINE void write_to(const ImageRows<T>& image, int64_t row, const T* values) const {
    const int64_t plane = image.offset(s_.strip.plane), soon = row + State::kRowsAhead;
    const int64_t begin = s_.columns.begin, count = s_.columns.end - begin;
    if (soon < s_.spec.rows.n) image.template prefetch<true>(plane, soon, begin, count);
    image.write_from(values, plane, row, begin, count);
  }

  const State& s_;
  const PixelRows<State>& pixels_;
  const Slices<State>& slices_;
};

}  // namespace ssim_fused::cpu
