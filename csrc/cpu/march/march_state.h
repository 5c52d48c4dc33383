// Types, constants and state that the stages of a march share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../math/pass.h"
#include "../pass_spec.h"
#include "../simd/convolve.h"
#include "../simd/interleave.h"
#include "../simd/lanes.h"
#include "mask.h"
#include "ring.h"
#include "workspace.h"

namespace ssim_fused::cpu {

template <class Compute, int VectorBytes, GradientsOf TheGradients, Pass ThePass, bool IsMasked>
struct MarchState {
  using T = Compute;
  using V = Lanes<T, VectorBytes>;
  static constexpr int Bytes = VectorBytes;
  static constexpr GradientsOf gradients = TheGradients;
  static constexpr int Derivatives = derivative_fields(gradients);
  static constexpr Pass pass = ThePass;
  static constexpr bool Masked = IsMasked;
  static constexpr int64_t kLanes = Bytes / sizeof(T);
  static constexpr int kMoments = Masked ? kMaskedMoments : kPlainMoments;
  // The number of fields in the ring of moments.
  static constexpr int kMomentFields = Masked ? kMaskedRing : kPlainMoments;
  static constexpr int64_t kRowsAhead = 4;  // prefetch distance
  static_assert(kLine % Bytes == 0, "rows are whole cache lines, so also whole vectors");

  SSIM_INLINE MarchState(const StripTask<T>& strip, Workspace<T>& work)
      : strip(strip),
        task(strip.rows),
        spec(strip.spec),
        columns(strip.columns),
        work(work),
        vectors(work.positions.vectors),
        radius(spec.rows.radius),
        mirrors_rows(spec.mirrors(0)),
        batch(static_cast<size_t>(strip.plane.batch)),
        mask(strip),
        objective(objective_of(spec, batch)),
        moments(work.moments, kMomentFields, vectors, work.slots),
        derivatives(work.derivatives, Derivatives, vectors, work.slots) {
    for (size_t axis = 0; axis < 2; ++axis) {
      fill_taps(work.taps[axis], spec.taps[axis]);
      fill_taps(work.reversed[axis], spec.reversed[axis]);
    }
  }

  SSIM_INLINE void advance() {
    moments.advance();
    derivatives.advance();
  }

  SSIM_INLINE Pivots<V> pivots() const {
    return {broadcast<V>(strip.pivots.pixels), broadcast<V>(strip.pivots.differences)};
  }

  // The window down the rows (axis 0) or along a row (axis 1), and its adjoint.
  SSIM_INLINE Window<T> window(int axis) const { return window_of(work.taps[axis], axis); }
  SSIM_INLINE Window<T> adjoint_window(int axis) const { return window_of(work.reversed[axis], axis); }

  // Returns field m of row j of `column_sums`: its own vectors, with a halo of `reach` vectors on either
  // side for windows along the row.
  SSIM_INLINE T* column_sums(int64_t j, int fields, int m) const {
    return work.column_sums + (j * fields + m) * work.sums_row() + work.reach * kLanes;
  }

  // Whether rows are in the order of interleave.h. Along the depth no window lies along the row, so rows
  // are in natural order unless the fields are interleaved.
  SSIM_INLINE bool is_interleaved() const { return pass != Pass::depth || spec.fields.in_lanes; }

  // Convert a row of vectors to natural order and back. Whole blocks are converted: a row of vectors needs
  // room for `padded_vectors` vectors, a row in natural order for `natural` elements.
  SSIM_INLINE void to_natural_order(const T* in, T* out) const {
    if (is_interleaved()) {
      deinterleave<V>(in, vectors, out);
    } else {
      std::memcpy(out, in, static_cast<size_t>(vectors * kLanes) * sizeof(T));
    }
  }
  SSIM_INLINE void from_natural_order(const T* in, T* out) const {
    if (is_interleaved()) {
      interleave<V>(in, vectors, work.padded_vectors(), out);
    } else {
      std::memcpy(out, in, static_cast<size_t>(vectors * kLanes) * sizeof(T));
    }
  }

  // The factor by which the gradients from the ring of derivatives must still be multiplied. For a single
  // mean it is twice the upstream weight, which all outputs share.
  SSIM_INLINE T scale_of_derivatives() const {
    if (objective == Objective::mean_similarity) return 2 * spec.grad_similarity[batch];
    if (objective == Objective::mean_contrast) return 2 * spec.grad_contrast[batch];
    return T(1);
  }

  // Returns the sums of the segment that an input row, or an output centred on it, belongs to.
  SSIM_INLINE Sums& sums_of(int64_t row) const { return strip.sums[task.segment_of(row)]; }

  const StripTask<T>& strip;
  const TaskRows& task;
  const PassSpec<T>& spec;
  const Columns& columns;
  Workspace<T>& work;
  const int64_t vectors;
  const int64_t radius;     // radius of the window down the rows
  const bool mirrors_rows;  // PassSpec::mirrors
  const size_t batch;
  const MaskRows<T> mask;
  const Objective objective;
  // The rings as seen by the step of outputs q ... q + kStepRows - 1: place 0 holds extended row q - pad in
  // `moments`, and output q - 2 radius in `derivatives`.
  Ring<T, Bytes> moments, derivatives;

 private:
  static SSIM_INLINE Objective objective_of(const PassSpec<T>& spec, size_t batch) {
    // Values without gradients always take the general code, so that their bits do not depend on what else
    // is requested.
    if (gradients == GradientsOf::none || Masked || spec.map || spec.grad_map || spec.wants_constants)
      return Objective::general;
    // A mean over no outputs has an infinite weight. Applied after the adjoint, it would turn zeros into
    // NaN.
    const T similarity = spec.grad_similarity[batch], contrast = spec.grad_contrast[batch];
    if (!std::isfinite(similarity) || !std::isfinite(contrast)) return Objective::general;
    if (!spec.wants_contrast && contrast == T(0)) return Objective::mean_similarity;
    if (!spec.wants_similarity && similarity == T(0)) return Objective::mean_contrast;
    return Objective::general;
  }

  static SSIM_INLINE void fill_taps(T* to, const std::vector<T>& taps) {
    for (T tap : taps) {
      store(to, broadcast<V>(tap));
      to += kLanes;
    }
  }
  SSIM_INLINE Window<T> window_of(const T* taps, int axis) const {
    const auto which = static_cast<size_t>(axis);
    const double factor = spec.uniform[which];
    const T rounded = static_cast<T>(factor);
    return {taps,    static_cast<int64_t>(spec.taps[which].size()),        work.is_default[axis], factor != 0,
            rounded, static_cast<T>(factor - static_cast<double>(rounded))};
  }
};

// Declares the types and constants of a march's state in the class of a stage.
#define SSIM_STATE(State)                                                      \
  using T = typename State::T;                                                 \
  using V = typename State::V;                                                 \
  static constexpr int Bytes = State::Bytes, Derivatives = State::Derivatives; \
  static constexpr GradientsOf gradients = State::gradients;                   \
  static constexpr int64_t kLanes = State::kLanes;                             \
  static constexpr int kMoments = State::kMoments;                             \
  static constexpr Pass pass = State::pass;                                    \
  static constexpr bool Masked = State::Masked

}  // namespace ssim_fused::cpu
