// The CPU kernel: marches down one strip of one plane, from raw pixels to sums, map and gradients.
//
//   raw rows --(along the row)--> four moments, a ring of rows                            moments.h
//            --(down the ring)--> moments -> formula -> derivatives, a second ring        formula.h
//            --(down the ring)--(along the row)--> gradient rows                          gradients.h
//
// A volume takes three marches, each a part of this one. The fields of the whole volume lie between them
// (`Pass`, slices.h).
//
// A step computes kStepRows rows, and a convolution along a row computes as many columns at a time, so that
// each loaded vector serves that many outputs. The columns of a row lie in the order of interleave.h, so
// that both directions are the same loop (convolve.h). Everything between raw pixels and results stays in a
// workspace of O(strip width x window) elements. T is the compute type. `Derivatives` is the number of
// derivatives kept: 0 without gradients, 3 for preds, 4 for preds and target. `Masked` marches weight
// pixels and outputs (math/ssim.h) and have a fifth moment, the weight of the window.
//
// No result depends on how rows are divided among threads: each row's arithmetic is the same wherever a
// march begins, and sums are kept per segment of kSegment rows.
#pragma once

#include <cstdint>

#include "formula.h"
#include "gradients.h"
#include "march_state.h"
#include "moments.h"
#include "slices.h"

namespace ssim_fused::cpu {

// The march down one strip, with vectors of `Bytes` bytes.
template <class T, int Bytes, GradientsOf gradients, Pass pass, bool Masked>
class March {
  using State = MarchState<T, Bytes, gradients, pass, Masked>;

 public:
  SSIM_INLINE March(const StripTask<T>& strip, Workspace<T>& work)
      : state_(strip, work),
        slices_(state_),
        pixels_(state_),
        moments_(state_, pixels_),
        outputs_(state_),
        gradients_(state_, pixels_, slices_) {}

  SSIM_INLINE void run() {
    int64_t filled = 0;  // rows of this step that the ring of moments holds already
    const RowRange outputs = state_.task.computed;
    for (int64_t q = outputs.begin; q < outputs.end; q += kStepRows) {
      if constexpr (pass == Pass::gradient) {
        outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { slices_.load_derivatives(q); });
      } else {
        fill_moments(q, filled);
        filled = 2 * state_.radius;
        if constexpr (pass == Pass::moments)
          outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { slices_.store_moments(q); });
        if constexpr (pass != Pass::moments) outputs_.compute(q);
      }
      if constexpr (gradients != GradientsOf::none) gradients_.compute(q);
      state_.advance();
    }
  }

 private:
  // Fills the ring of moments with the rows that outputs q ... q + kStepRows - 1 see, except for the first
  // `filled` ones, which it holds already. Extended rows that mirror others copy their moments.
  SSIM_INLINE void fill_moments(int64_t q, int64_t filled) {
    const Axis& rows = state_.spec.rows;
    const RowRange seen = TaskRows::rows_seen(rows, q);
    const int64_t first = seen.begin, places = seen.length();
    const auto mirrors = [&](int64_t e)
                             SSIM_INLINE_LAMBDA { return state_.mirrors_rows && (e < 0 || e >= rows.n); };
    for (int64_t k = filled; k < places; ++k) {
      const int64_t e = first + k, slot = state_.moments.slot(k);
      if (mirrors(e)) continue;
      outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA {
        if constexpr (pass == Pass::depth) {
          slices_.load_moments(state_.spec.rows.source(e), slot);
        } else {
          moments_.compute(e, slot);
        }
      });
    }
    for (int64_t k = filled; k < places; ++k) {
      if (mirrors(first + k))
        state_.moments.copy(state_.moments.slot(rows.source(first + k) - first), state_.moments.slot(k));
    }
  }

  State state_;
  const Slices<State> slices_;
  const PixelRows<State> pixels_;
  const MomentsAlongRows<State> moments_;
  const Outputs<State> outputs_;
  const Gradients<State> gradients_;
};

}  // namespace ssim_fused::cpu
