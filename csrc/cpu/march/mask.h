// Outputs of a march with and without a mask, and the mask's rows of weights: of pixels in windows, and of
// outputs in means.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/ssim.h"
#include "../pass_spec.h"
#include "../rows/image_rows.h"
#include "../simd/lanes.h"

namespace ssim_fused::cpu {

// A vector of outputs without a mask: the terms of the formula, and what they contribute to means, map and
// derivatives.
template <class V>
struct PlainOutput {
  LocalTerms<V> terms;

  SSIM_INLINE PlainOutput(const V (&moment)[kPlainMoments], const Pivots<V>& pivots, V c1, V c2)
      : terms(local_terms(moments_of_fields<V>([&](int m) SSIM_INLINE_LAMBDA { return moment[m]; }), pivots,
                          c1, c2)) {}

  static SSIM_INLINE V in_mean(const V& loss) { return loss; }
  SSIM_INLINE V in_map() const { return terms.similarity(); }
  SSIM_INLINE Partials<V> partials_by(const V& of_similarity, const V& of_contrast) const {
    return partials(terms, of_similarity, of_contrast);
  }
  SSIM_INLINE ConstantPartials<V> constant_partials_by(const V& of_similarity, const V& of_contrast) const {
    return constant_partials(terms, of_similarity, of_contrast);
  }
};

// A vector of outputs with a mask, with the interface of PlainOutput. It is computed from the weighted sums
// of the windows, the windows' weights n, and the outputs' weights in the means.
template <class V>
struct MaskedOutput {
  V n, above_least, weight;  // above_least: max(n - kLeastWeight, 0)
  LocalTerms<V> terms;

  SSIM_INLINE MaskedOutput(const V (&sum)[kMaskedMoments], V weight_in_means, bool weighs_windows,
                           const Pivots<V>& pivots, V c1, V c2)
      : n(weighs_windows ? sum[kWindowWeight] : V{} + 1),
        above_least(clamp_below(V{}, n - kLeastWeight)),
        weight(seen(weight_in_means)),
        terms(masked_terms(moments_of_fields<V>([&](int m) SSIM_INLINE_LAMBDA { return sum[m]; }), n, pivots,
                           c1, c2)) {}

  SSIM_INLINE V in_mean(const V& loss) const { return where_any(weight, weight, weight * loss, V{}); }
  SSIM_INLINE V in_map() const { return where_any(above_least, above_least, terms.similarity(), V{} + 1); }
  SSIM_INLINE Partials<V> partials_by(const V& of_similarity, const V& of_contrast) const {
    return masked_partials(terms, seen(of_similarity), seen(of_contrast), n);
  }
  SSIM_INLINE ConstantPartials<V> constant_partials_by(const V& of_similarity, const V& of_contrast) const {
    return masked_constant_partials(terms, seen(of_similarity), seen(of_contrast), n);
  }

 private:
  // Returns zero in lanes whose window sees no pixels, because there is no output.
  SSIM_INLINE V seen(const V& of_output) const { return where_any(above_least, above_least, of_output, V{}); }
};

// Reads rows of the mask's weights.
template <class T>
class MaskRows {
 public:
  SSIM_INLINE explicit MaskRows(const StripTask<T>& strip)
      : spec_(strip.spec), c_(strip.columns), plane_(plane_of(strip)) {}

  SSIM_INLINE bool weighs_windows() const { return spec_.mask_weighs_windows; }

  // Reads the weights of extended columns [e, e + count) of a row. Zero padding has weight 1, because
  // windows see it. A negative `row` stands for a row of zero padding.
  SSIM_INLINE void read(int64_t row, int64_t e, int64_t count, T* out) const {
    if (row < 0) {
      std::fill(out, out + count, T(1));
    } else {
      read_extended(spec_.mask, spec_.mask_columns, plane_, row, e, count, out, T(1));
    }
  }

  SSIM_INLINE void prefetch(int64_t row) const {
    if (row < spec_.rows.n) spec_.mask.prefetch(plane_, row, c_.begin, c_.end - c_.begin);
  }

  // Reads the weights of the outputs that are centred on a row.
  SSIM_INLINE void read_outputs(int64_t row, T* out) const {
    read(row, spec_.mask_columns.centre(c_.output_begin), c_.output_end - c_.output_begin, out);
  }

 private:
  static SSIM_INLINE int64_t plane_of(const StripTask<T>& strip) {
    Plane plane = strip.plane;
    plane.slice += strip.spec.mask_slice;
    return strip.spec.mask.offset(plane);
  }

  const PassSpec<T>& spec_;
  const Columns& c_;
  const int64_t plane_;
};

}  // namespace ssim_fused::cpu
