// What only volumes need of a march: rows of the fields of moments or derivatives between the passes, read
// and written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../math/ssim.h"
#include "convolve.h"
#include "problem.h"
#include "workspace.h"

namespace ssim_fused::cpu {

template <class T, class V, int Radius, int Derivatives, bool Masked>
class Slices {
  static constexpr int kMoments = Masked ? kMaskedMoments : kPlainMoments;
  static constexpr int kRing = Masked ? kMaskedRing : kPlainMoments;

 public:
  SSIM_INLINE Slices(const Strip<T>& strip, Workspace<T>& work, int64_t row_radius)
      : strip_(strip), problem_(strip.problem), c_(strip.columns), work_(work), row_radius_(row_radius) {}

  // The moments of a row, or, where it is -1, of a slice of zeros, to `to`
  // [kMoments, outputs].
  SSIM_INLINE void load_moments(int64_t row, T* to) {
    const int64_t count = c_.output_end - c_.output_begin;
    const Moments<T> zeros = moments_of_zeros(strip_.pivot, problem_.slice_sum);
    const T of_zeros[5] = {zeros.m, zeros.delta, zeros.p, zeros.d, problem_.slice_sum};
    for (int m = 0; m < kMoments; ++m) {
      T* const out = to + m * work_.outputs;
      if (row < 0) {
        std::fill(out, out + count, of_zeros[m]);
      } else {
        copy(row_of_fields(row) + m * problem_.fields.field + c_.output_begin, count, out);
      }
    }
  }

  // The moments of outputs q ... q + kStepRows - 1, as far as `end`, from the ring to the fields.
  SSIM_INLINE void store_moments(int64_t q, int64_t base, int64_t end) {
    const T* const in = work_.moments + base * kRing * work_.outputs;
    const int64_t count = c_.output_end - c_.output_begin;
    for (int64_t i = 0; i < work_.outputs; i += kLanes) {
      V moment[kMoments][kStepRows];
      down_rows<Radius>(moment, in + i, kRing * work_.outputs, work_.outputs, problem_.taps[0].data(),
                        row_radius_);
      unrolled<kStepRows>([&](auto j) SSIM_INLINE_LAMBDA {
        if (q + j >= end) return;
        T* const out = row_of_fields(q + j) + c_.output_begin + i;
        unrolled<kMoments>([&](auto m) SSIM_INLINE_LAMBDA {
          store_some(out + m * problem_.fields.field, moment[m][j], count - i);
        });
      });
    }
  }

  // The derivatives of outputs q ... q + kStepRows - 1, from the fields into the second ring.
  SSIM_INLINE void load_derivatives(int64_t q, int64_t base) {
    const int64_t margin = c_.derivative_margin(problem_.columns), count = c_.output_end - c_.output_begin;
    for (int j = 0; j < kStepRows; ++j) {
      for (int m = 0; m < Derivatives; ++m) {
        T* const row = work_.derivative_rows +
                       ((base + 2 * row_radius_ + j) * Derivatives + m) * work_.derivative_columns;
        const bool exists = problem_.rows.is_output(q + j);
        const T* const soon = row_of_fields(q + j + kStepRows) + m * problem_.fields.field + c_.output_begin;
        if (problem_.rows.is_output(q + j + kStepRows)) prefetch(soon, count);
        if (exists)
          copy(row_of_fields(q + j) + m * problem_.fields.field + c_.output_begin, count, row + margin);
        work_.zero_around(row, exists ? margin : work_.derivative_columns, count);
      }
    }
  }

  // The derivatives of a row after the adjoint down the ring, to the fields.
  SSIM_INLINE void store_derivatives(int64_t row, const T* sums) {
    T* const out = row_of_fields(row) + c_.begin;
    for (int m = 0; m < Derivatives; ++m) {
      copy(sums + m * work_.derivative_columns, c_.end - c_.begin, out + m * problem_.fields.field);
    }
  }

 private:
  static constexpr int64_t kLanes = sizeof(V) / sizeof(T);

  SSIM_INLINE T* row_of_fields(int64_t row) const {
    return problem_.fields.at(strip_.volume, strip_.plane.slice, row);
  }

  static SSIM_INLINE void prefetch(const T* from, int64_t count) {
#if defined(__GNUC__)
    for (int64_t i = 0; i < count; i += kLine / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + i);
#endif
  }

  static SSIM_INLINE void copy(const T* from, int64_t count, T* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  }

  // The first `count` lanes, or all of them.
  static SSIM_INLINE void store_some(T* to, const V& v, int64_t count) {
    if (count >= kLanes) {
      store(to, v);
    } else {
      for (int64_t k = 0; k < count; ++k) to[k] = v[k];
    }
  }

  const Strip<T>& strip_;
  const Problem<T>& problem_;
  const Columns& c_;
  Workspace<T>& work_;
  const int64_t row_radius_;
};

}  // namespace ssim_fused::cpu
