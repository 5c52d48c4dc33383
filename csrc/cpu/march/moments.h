// First stage of a march: from rows of pixels to moments that are convolved along the row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/ssim.h"
#include "../rows/image_rows.h"
#include "march_state.h"

namespace ssim_fused::cpu {

// Reads rows of both images, and of weights if there is a mask, into the order of interleave.h. A row has a
// halo of `reach` vectors on either side, so its own columns begin at vector `reach`.
template <class State>
class PixelRows {
  SSIM_STATE(State);
  static constexpr int kFields = Masked ? 3 : 2;

 public:
  SSIM_INLINE explicit PixelRows(const State& state)
      : s_(state),
        preds_(s_.spec.preds.offset(s_.strip.plane)),
        target_(s_.spec.target.offset(s_.strip.plane)),
        first_(s_.task.computed.begin - s_.spec.rows.pad),
        begin_(s_.work.is_row ? 0 : s_.work.positions.origin - s_.work.reach),
        from_(s_.work.is_row ? 0 : std::max(begin_, -s_.spec.columns.pad)),
        to_(s_.work.is_row ? s_.spec.columns.n
                           : std::min(s_.work.positions.origin + s_.work.positions.count + s_.work.reach,
                                      s_.spec.columns.n + s_.spec.columns.pad)) {}

  // Returns the buffer that keeps the pixels of extended row e until its gradient is computed. Without
  // gradients all rows share one buffer.
  SSIM_INLINE T* kept(int64_t e) const {
    return s_.work.pixels + (e - first_) % s_.work.pixel_rows * kFields * s_.work.raw * kLanes;
  }

  // Reads extended row e into `out`. Without gradients it also adds the row's pixel term to the sums, if
  // the task owns the row.
  SSIM_INLINE void read(int64_t e, T* out) const {
    const PassSpec<T>& spec = s_.spec;
    const int64_t row = spec.rows.source(e), field = s_.work.raw * kLanes;
    if (row >= 0) ask_ahead(spec.preds, preds_, row);
    const T* const x = natural(spec.preds, preds_, row, s_.work.rows[0]);
    const T* const y = natural(spec.target, target_, row, s_.work.rows[1]);
    interleave_field(x, out);
    interleave_field(y, out + field);
    T* const weights = s_.work.rows[2];
    if constexpr (Masked) {
      s_.mask.read(row, from_, to_ - from_, weights + (from_ - begin_));
      interleave_field(weights, out + 2 * field);
    }
    if (gradients == GradientsOf::none && spec.pixel_term && e == row && s_.task.rows.contains(row)) {
      const int64_t own = s_.columns.begin - begin_;
      s_.sums_of(row).pixels +=
          spec.pixel_term.sum(x + own, y + own, Masked ? weights + own : nullptr, own_columns());
    }
  }

  // Return the strip's own columns of a row in natural order: in place if possible, otherwise copied into a
  // row of the workspace.
  SSIM_INLINE const T* own_of_preds(int64_t row) const {
    return s_.spec.preds.see(s_.work.rows[0], preds_, row, s_.columns.begin, own_columns());
  }
  SSIM_INLINE const T* own_of_target(int64_t row) const {
    return s_.spec.target.see(s_.work.rows[1], target_, row, s_.columns.begin, own_columns());
  }

  // Sets the weights of pixels to 1 if the mask weights only outputs, not windows.
  SSIM_INLINE void forget_weights(T* pixels) const {
    if constexpr (Masked) {
      const int64_t field = s_.work.raw * kLanes;
      if (!s_.mask.weighs_windows()) std::fill_n(pixels + 2 * field, field, T(1));
    }
  }

  // Prefetches the rows of target and mask that are needed soon. `read` prefetches those of preds at its
  // beginning, because the core stalls if too many prefetches are issued at once.
  SSIM_INLINE void ask_ahead(int64_t e) const {
    const int64_t row = s_.spec.rows.source(e);
    if (row < 0) return;
    ask_ahead(s_.spec.target, target_, row);
    if constexpr (Masked) s_.mask.prefetch(row + State::kRowsAhead);
  }

 private:
  SSIM_INLINE int64_t own_columns() const { return s_.columns.end - s_.columns.begin; }

  // Returns a row whose first element is column begin_ and whose columns [from_, to_) are valid: in place
  // if possible, otherwise copied into `row`. A negative y is a row of zero padding.
  SSIM_INLINE const T* natural(const ImageRows<T>& image, int64_t plane, int64_t y, T* row) const {
    if (y < 0) {
      std::fill_n(row + (from_ - begin_), to_ - from_, T(0));
      return row;
    }
    if (s_.work.is_row && s_.vectors % kLanes == 0)  // interleave_field reads nothing beyond the row
      return image.see(row, plane, y, 0, to_);
    read_extended(image, s_.spec.columns, plane, y, from_, to_ - from_, row + (from_ - begin_));
    return row;
  }

  // Converts a row that `natural` returned to the order of interleave.h, with its halo.
  SSIM_INLINE void interleave_field(const T* row, T* out) const {
    if (!s_.work.is_row) return interleave<V>(row, s_.vectors, s_.work.raw, out);
    T* const own = out + s_.work.reach * kLanes;
    interleave<V>(row, s_.vectors, s_.work.padded_vectors(), own);
    add_neighbours<V>(own, s_.vectors, s_.work.reach, true, true);
  }

  SSIM_INLINE void ask_ahead(const ImageRows<T>& image, int64_t plane, int64_t row) const {
    const int64_t soon = row + State::kRowsAhead, begin = s_.columns.begin, count = s_.columns.end - begin;
    if (soon < s_.spec.rows.n) image.prefetch(plane, soon, begin, count);
  }

  const State& s_;
  const int64_t preds_, target_;  // offsets of the plane
  const int64_t first_;           // first extended row that the march reads
  const int64_t begin_;           // column of the first element of a row that `natural` returns
  const int64_t from_, to_;       // extended columns that windows of outputs can see
};

// Computes the moments of a row, convolved along the row, from its pixels.
template <class State>
class MomentsAlongRows {
  SSIM_STATE(State);

 public:
  SSIM_INLINE MomentsAlongRows(const State& state, const PixelRows<State>& pixels)
      : s_(state), pixels_(pixels) {}

  // Computes the moments of extended row e into a slot of the ring of moments.
  SSIM_INLINE void compute(int64_t e, int64_t slot) const {
    T* const x = pixels_.kept(e);
    pixels_.read(e, x);
    if constexpr (Masked) {
      // Copies the weights of the outputs that are centred on this row to the ring, next to the moments.
      const T* weights = x + (2 * s_.work.raw + s_.work.reach) * kLanes;
      T* to = s_.moments.at(0, kMoments, slot);
      const int64_t next = s_.moments.to_next_vector();
      for (int64_t i = 0; i < s_.vectors; ++i, to += next, weights += kLanes) store(to, load<V>(weights));
      pixels_.forget_weights(x);
    }
    stage(x);
    pixels_.ask_ahead(e);
    convolve_row<T, Bytes>(s_.vectors, kMoments, s_.work.staged, s_.work.raw * kLanes,
                           s_.moments.at(0, 0, slot), s_.moments.to_next_field(), s_.moments.to_next_vector(),
                           s_.window(1));
  }

 private:
  // Computes what each pixel contributes to the moments of the windows around it, into `staged`.
  SSIM_INLINE void stage(const T* x) const {
    const int64_t field = s_.work.raw * kLanes, count = (s_.vectors + 2 * s_.work.reach) * kLanes;
    const T *const y = x + field, *const weights = y + field;
    T* const staged = s_.work.staged;
    const Pivots<V> pivots = s_.pivots();
    for (int64_t i = 0; i < count; i += kLanes) {
      const V weight = Masked ? load<V>(weights + i) : V{};
      Moments<V> moments;
      if constexpr (Masked) moments = masked_moments(load<V>(x + i), load<V>(y + i), pivots, weight);
      if constexpr (!Masked) moments = pixel_moments(load<V>(x + i), load<V>(y + i), pivots);
      T* const out = staged + i;
      store(out + kMomentM * field, moments.m);
      store(out + kMomentDelta * field, moments.delta);
      store(out + kMomentP * field, moments.p);
      store(out + kMomentD * field, moments.d);
      if constexpr (Masked) store(out + kWindowWeight * field, weight);
    }
  }

  const State& s_;
  const PixelRows<State>& pixels_;
};

}  // namespace ssim_fused::cpu
