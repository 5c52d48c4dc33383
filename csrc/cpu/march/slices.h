// Parts of a march that only volumes need: reads and writes rows of the fields of moments or derivatives
// between the passes. If the marches of all three passes have the same order of columns, the fields have it
// too (`Fields::in_lanes`): whole vectors then go from windows to fields and from fields to rings, and are
// never transposed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../../math/ssim.h"
#include "march_state.h"

namespace ssim_fused::cpu {

template <class State>
class Slices {
  SSIM_STATE(State);

 public:
  SSIM_INLINE explicit Slices(const State& state)
      : s_(state), c_(state.columns), count_(c_.output_end - c_.output_begin) {}

  // In the depth pass: loads the moments of a row of the fields into a slot of the ring of moments. Row -1
  // is zero padding, with the moments of a slice of zeros.
  SSIM_INLINE void load_moments(int64_t row, int64_t slot) const {
    const Moments<T> zeros = moments_of_zeros<T>(s_.strip.pivots, s_.spec.slice_sum);
    T of_zeros[kMaskedMoments];
    to_fields(zeros, [&](int m, T value) SSIM_INLINE_LAMBDA { of_zeros[m] = value; });
    of_zeros[kWindowWeight] = s_.spec.slice_sum;
    for (int m = 0; m < kMoments; ++m) {
      if (row >= 0 && row + kStepRows < s_.spec.rows.n) prefetch(outputs(row + kStepRows, m));
      T* to = s_.moments.at(0, m, slot);
      const int64_t next = s_.moments.to_next_vector(), whole = in_lanes() ? s_.vectors : count_ / kLanes;
      if (row < 0) {
        const V of_field = broadcast<V>(of_zeros[m]);
        for (int64_t i = 0; i < s_.vectors; ++i, to += next) store(to, of_field);
        continue;
      }
      const T* const from = outputs(row, m);
      for (int64_t i = 0; i < whole; ++i, to += next) store(to, load<V>(from + i * kLanes));
      if (whole < s_.vectors) store(to, load_some(from + whole * kLanes, count_ - whole * kLanes));
    }
    if constexpr (Masked) {
      T *const natural = s_.work.rows[2], *const weights = s_.work.weights;
      s_.mask.read_outputs(row, natural);
      s_.from_natural_order(natural, weights);
      T* to = s_.moments.at(0, kMoments, slot);
      const int64_t next = s_.moments.to_next_vector();
      for (int64_t i = 0; i < s_.vectors; ++i, to += next) store(to, load<V>(weights + i * kLanes));
    }
  }

  // Convolves the moments of outputs q ... q + kStepRows - 1 down the ring and stores them in the fields.
  SSIM_INLINE void store_moments(int64_t q) const {
    const Fields<T>& fields = s_.spec.fields;
    const RowRange owned = s_.task.outputs;
    if (fields.in_lanes && q >= owned.begin && q + kStepRows <= owned.end) {
      convolve_all<T, Bytes>(
          s_.moments.down(0, s_.vectors, kMoments, 0, outputs(q, 0), kLanes, fields.field, fields.row),
          s_.window(0));
      return;
    }
    const int64_t row = s_.work.sums_row();
    convolve_all<T, Bytes>(s_.moments.down(0, s_.vectors, kMoments, 0, s_.column_sums(0, kMoments, 0), kLanes,
                                           row, kMoments * row),
                           s_.window(0));
    for (int64_t j = std::max<int64_t>(0, owned.begin - q); j < kStepRows && q + j < owned.end; ++j) {
      for (int m = 0; m < kMoments; ++m) {
        const T* sums = s_.column_sums(j, kMoments, m);
        if (in_lanes()) {
          copy(sums, s_.vectors * kLanes, outputs(q + j, m));
          continue;
        }
        s_.to_natural_order(sums, s_.work.rows[0]);
        copy(s_.work.rows[0], count_, outputs(q + j, m));
      }
    }
  }

  // Loads the derivatives of outputs q ... q + kStepRows - 1 from the fields into the ring of derivatives.
  SSIM_INLINE void load_derivatives(int64_t q) const {
    const int64_t begin = s_.work.positions.of_column(s_.spec.columns.centre(c_.output_begin));
    T *const row = s_.work.rows[0], *const interleaved = s_.work.gradient;
    for (int64_t j = 0; j < kStepRows; ++j) {
      const int64_t slot = s_.derivatives.slot(2 * s_.radius + j);
      if (!s_.spec.rows.is_output(q + j)) {
        s_.derivatives.clear(slot);
        continue;
      }
      for (int m = 0; m < Derivatives; ++m) {
        if (s_.spec.rows.is_output(q + j + kStepRows)) prefetch(outputs(q + j + kStepRows, m));
        const T* vectors = outputs(q + j, m);
        if (!in_lanes()) {
          std::fill(row, row + begin, T(0));
          copy(vectors, count_, row + begin);
          std::fill(row + begin + count_, row + s_.work.natural, T(0));
          s_.from_natural_order(row, interleaved);
          vectors = interleaved;
        }
        T* to = s_.derivatives.at(0, m, slot);
        const int64_t next = s_.derivatives.to_next_vector();
        for (int64_t i = 0; i < s_.vectors; ++i, to += next) store(to, load<V>(vectors + i * kLanes));
      }
    }
  }

  // Convolves the derivatives of kStepRows rows from `row` on down the ring with the adjoint window, and
  // stores them in the fields, whose rows must have the march's order of columns.
  SSIM_INLINE void store_whole_step(int64_t row) const {
    const Fields<T>& fields = s_.spec.fields;
    convolve_all<T, Bytes>(
        s_.derivatives.down(0, s_.vectors, Derivatives, 0, field(row, 0), kLanes, fields.field, fields.row),
        s_.adjoint_window(0));
  }

  // Stores the derivatives of one row in the fields, from its `column_sums`.
  SSIM_INLINE void store_derivatives(int64_t row, const T* sums) const {
    for (int m = 0; m < Derivatives; ++m)
      copy(sums + m * s_.work.sums_row(), in_lanes() ? s_.vectors * kLanes : c_.end - c_.begin,
           field(row, m) + c_.begin);
  }

 private:
  SSIM_INLINE bool in_lanes() const { return s_.spec.fields.in_lanes; }

  SSIM_INLINE T* field(int64_t row, int m) const {
    const Fields<T>& fields = s_.spec.fields;
    return fields.at(s_.strip.volume, s_.strip.plane.slice, row) + m * fields.field;
  }
  SSIM_INLINE T* outputs(int64_t row, int m) const { return field(row, m) + c_.output_begin; }

  SSIM_INLINE void prefetch(const T* from) const {
    for (int64_t i = 0; i < count_; i += kLine / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(from + i);
  }

  static SSIM_INLINE void copy(const T* from, int64_t count, T* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  }

  // Loads the first `count` lanes of a vector, or all if it has fewer. The other lanes are zero.
  static SSIM_INLINE V load_some(const T* from, int64_t count) {
    if (count >= kLanes) return load<V>(from);
    V v{};
    for (int64_t k = 0; k < count; ++k) v[k] = from[k];
    return v;
  }

  const State& s_;
  const Columns& c_;
  const int64_t count_;  // outputs in a row
};

}  // namespace ssim_fused::cpu
