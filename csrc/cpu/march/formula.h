// Second stage of a march: convolves the moments down the rows, evaluates the SSIM formula, and produces
// sums, the map and the derivatives by the moments.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../../math/ssim.h"
#include "march_state.h"

namespace ssim_fused::cpu {

// A half-open range of positions in a row.
struct Range {
  int64_t from, to;
};

// Returns v with each unmarked lane set to zero, even if it holds a NaN. The lanes of `marked` have all
// bits set or none.
template <class V>
SSIM_INLINE V only(const V& v, const V& marked) {
  using Bits = decltype(v < v);
  return reinterpret_cast<V>(reinterpret_cast<Bits>(v) & reinterpret_cast<Bits>(marked));
}

// Returns a mask with all bits set in the lanes of v whose sign bit is set.
template <class V>
SSIM_INLINE V negative(const V& v) {
  using Bits = decltype(v < v);
  using Lane = std::remove_cvref_t<decltype(Bits{}[0])>;
  return reinterpret_cast<V>(reinterpret_cast<Bits>(v) >> std::numeric_limits<Lane>::digits);
}

// Returns a mask with all bits set in the lanes whose number lies in the range. It subtracts instead of
// comparing, because GCC splits a comparison of 64-byte vectors into one per lane.
template <class V>
SSIM_INLINE V inside(const V& number, Range range) {
  using T = std::remove_cvref_t<decltype(number[0])>;
  constexpr T kHalf = T(0.5);
  return only(negative(static_cast<T>(range.from) - kHalf - number),
              negative(number - (static_cast<T>(range.to) - kHalf)));
}

template <class T, class V>
SSIM_INLINE double total(const V& sum) {
  double result = 0;
  for (unsigned k = 0; k < sizeof(V) / sizeof(T); ++k) result += static_cast<double>(sum[k]);
  return result;
}

template <class State>
class Outputs {
  SSIM_STATE(State);
  static constexpr int kSums = Masked ? int{kWithWeights} : int{kWithConstants};

 public:
  SSIM_INLINE explicit Outputs(const State& state) : s_(state) { mark(); }

  // Computes outputs q ... q + kStepRows - 1 with the code compiled for the march's objective.
  SSIM_INLINE void compute(int64_t q) const {
    const PassSpec<T>& spec = s_.spec;
    if (q >= spec.rows.output_length()) {  // all outputs of this step lie beyond the last one
      for (int64_t j = 0; j < kStepRows; ++j) s_.derivatives.clear(s_.derivatives.slot(2 * s_.radius + j));
      return;
    }
    if constexpr (Derivatives > 0 && !Masked) {
      if (s_.objective == Objective::mean_similarity)
        return outlined<Bytes>([=, this]()
                                   SSIM_INLINE_LAMBDA { compute_all<Objective::mean_similarity>(q); });
      if (s_.objective == Objective::mean_contrast)
        return outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { compute_all<Objective::mean_contrast>(q); });
    }
    outlined<Bytes>([=, this]() SSIM_INLINE_LAMBDA { compute_all<Objective::general>(q); });
  }

 private:
  // Properties of a row of outputs.
  struct Row {
    bool exists, owned, in_crop;  // in_crop: the row counts in the mean contrast sensitivity
    int64_t derivatives;          // offset of this row in a field of the ring of derivatives
  };
  // Values that all outputs of a step share. They are copied into locals because a compiler cannot rule out
  // that stores change the members of `s_`.
  struct Constants {
    Pivots<V> pivots;
    V c1, c2;
    V by_similarity, by_contrast;  // upstream weights of every output
    const T *is_output, *is_owned, *is_in_crop;
    int64_t next_field, next_vector;  // distances in the ring of derivatives, in elements
    int64_t next_weights;             // with a mask: distance between vectors in the ring of moments
    T* values;                        // values of the map; null if no map is requested
    const T* upstream;                // upstream gradient of the map; null if not given
    bool wants_contrast, wants_constants;

    SSIM_INLINE V outputs(int64_t i) const { return load<V>(is_output + i * kLanes); }
    SSIM_INLINE V owned(int64_t i) const { return load<V>(is_owned + i * kLanes); }
    SSIM_INLINE V in_crop(int64_t i) const { return load<V>(is_in_crop + i * kLanes); }
  };
  static constexpr int64_t kChunk = 4;  // vectors of columns whose moments are computed at a time
  static constexpr int64_t kMomentsOfVector = kMoments * kStepRows * kLanes;

  // Sets the workspace's lane masks: whether a position has an output, whether this strip owns that output,
  // and whether it lies in the crop.
  SSIM_INLINE void mark() const {
    const Axis& axis = s_.spec.columns;
    const auto range = [&](int64_t from, int64_t to) SSIM_INLINE_LAMBDA {
      return Range{s_.work.positions.of_column(axis.centre(from)),
                   s_.work.positions.of_column(axis.centre(to))};
    };
    const Range outputs = range(s_.columns.output_begin, s_.columns.output_end),
                owned = range(s_.columns.owned_begin, s_.columns.owned_end),
                crop = range(s_.spec.crop_begin, s_.spec.crop_end);
    const V lane = numbers<V>() * static_cast<T>(s_.is_interleaved() ? s_.vectors : 1);
    for (int64_t i = 0; i < s_.vectors; ++i) {
      const V number = lane + static_cast<T>(s_.is_interleaved() ? i : i * kLanes);
      store(s_.work.is_output + i * kLanes, inside(number, outputs));
      store(s_.work.is_owned + i * kLanes, inside(number, owned));
      store(s_.work.is_in_crop + i * kLanes, inside(number, crop));
    }
  }

  template <Objective objective>
  SSIM_INLINE void compute_all(int64_t q) const {
    Row row[kStepRows];
    for (int j = 0; j < kStepRows; ++j) {
      const bool exists = s_.spec.rows.is_output(q + j);
      row[j] = {exists, exists && s_.task.outputs.contains(q + j),
                s_.strip.slice_counts && s_.spec.rows.is_in_crop(q + j),
                s_.derivatives.slot(2 * s_.radius + j) * kLanes};
      if (objective == Objective::general && s_.spec.grad_map && exists) read_upstream(q + j, j);
    }
    const Constants constants{s_.pivots(),
                              broadcast<V>(s_.spec.c1[s_.batch]),
                              broadcast<V>(s_.spec.c2[s_.batch]),
                              broadcast<V>(s_.spec.grad_similarity[s_.batch]),
                              broadcast<V>(s_.spec.grad_contrast[s_.batch]),
                              s_.work.is_output,
                              s_.work.is_owned,
                              s_.work.is_in_crop,
                              s_.derivatives.to_next_field(),
                              s_.derivatives.to_next_vector(),
                              s_.moments.to_next_vector(),
                              s_.spec.map ? s_.work.values : nullptr,
                              s_.spec.grad_map ? s_.work.upstream : nullptr,
                              s_.spec.wants_contrast,
                              s_.spec.wants_constants};
    V sum[kSums][kStepRows] = {};
    alignas(kLine) T moments[kChunk * kMomentsOfVector];
    for (int64_t begin = 0; begin < s_.vectors; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, s_.vectors);
      convolve_all<T, Bytes>(s_.moments.down(begin, end - begin, kMoments, 0, moments, kMomentsOfVector,
                                             kStepRows * kLanes, kLanes),
                             s_.window(0));
      for (int j = 0; j < kStepRows; ++j)
        compute_row<objective>(begin, end, j, row[j], moments + j * kLanes, constants, sum);
    }
    for (int j = 0; j < kStepRows; ++j) {
      if (row[j].owned) finish_row(q + j, j, row[j].in_crop, sum);
    }
  }

  // Computes the outputs of row j at vectors [begin, end) of columns: adds their losses to `sum` and stores
  // their derivatives and map values.
  template <Objective objective>
  SSIM_INLINE void compute_row(int64_t begin, int64_t end, int j, const Row& row, const T* moments,
                               const Constants& constants, V (&sum)[kSums][kStepRows]) const {
    T* out = s_.derivatives.at(begin, 0, 0) + row.derivatives;
    if (!row.exists) {
      for (int64_t i = begin; Derivatives > 0 && i < end; ++i, out += constants.next_vector)
        put(out, {V{}, V{}, V{}, V{}}, constants, V{});
      return;
    }
    V sum_of_row[kSums];
    unrolled<kSums>([&](auto k) SSIM_INLINE_LAMBDA { sum_of_row[k] = sum[k][j]; });
    // With a mask, the ring of moments also holds the weights of the outputs, at the row that they are
    // centred on.
    const T* weights = Masked ? s_.moments.at(begin, kMoments, s_.moments.slot(s_.radius + j)) : nullptr;
    const int64_t place = (j * s_.work.padded_vectors() + begin) * kLanes;
    T* values = constants.values ? constants.values + place : nullptr;
    const T* upstream = constants.upstream ? constants.upstream + place : nullptr;
    for (int64_t i = begin; i < end; ++i, moments += kMomentsOfVector, out += constants.next_vector) {
      if constexpr (objective == Objective::general) {
        compute_general(i, row, moments, weights, values, upstream, constants, sum_of_row, out);
        if constexpr (Masked) weights += constants.next_weights;
        if (values) values += kLanes;
        if (upstream) upstream += kLanes;
      } else {
        compute_mean<objective>(i, row, moments, constants, sum_of_row, out);
      }
    }
    unrolled<kSums>([&](auto k) SSIM_INLINE_LAMBDA { sum[k][j] = sum_of_row[k]; });
  }

  // Computes a vector of outputs for an objective that is a single mean: adds their losses to the mean's
  // sum and stores their derivatives.
  template <Objective objective>
  SSIM_INLINE void compute_mean(int64_t i, const Row& row, const T* moments, const Constants& constants,
                                V (&sum)[kSums], T* out) const {
    const auto terms = output_of(moments, V{}, constants).terms;
    V weight;
    if constexpr (objective == Objective::mean_similarity) {
      sum[kSimilarityLoss] += only(terms.similarity_loss(), constants.owned(i));
      weight = V{} + 1;
    } else {
      sum[kContrastLoss] += only(terms.contrast_loss, only(constants.owned(i), constants.in_crop(i)));
      weight = row.in_crop ? only(V{} + 1, constants.in_crop(i)) : V{};
    }
    if constexpr (Derivatives > 0)
      put(out, objective_partials<objective>(terms, weight, weight), constants, constants.outputs(i));
  }

  // Computes all results that a request can have, for a vector of outputs. With a mask, losses and
  // derivatives are multiplied by the outputs' weights in the means.
  SSIM_INLINE void compute_general(int64_t i, const Row& row, const T* moments, const T* weights, T* values,
                                   const T* upstream, const Constants& constants, V (&sum)[kSums],
                                   T* out) const {
    V weight{};
    if constexpr (Masked) weight = load<V>(weights);
    const auto output = output_of(moments, weight, constants);
    const V own = constants.owned(i);
    sum[kSimilarityLoss] += only(output.in_mean(output.terms.similarity_loss()), own);
    if constexpr (Masked) sum[kOutputWeights] += only(output.weight, own);
    if (constants.wants_contrast) {
      const V counts = only(own, constants.in_crop(i));
      sum[kContrastLoss] += only(output.in_mean(output.terms.contrast_loss), counts);
      if constexpr (Masked) sum[kCroppedWeights] += only(output.weight, counts);
    }
    if (values) store(values, output.in_map());
    if (gradients == GradientsOf::none && !constants.wants_constants) return;
    V of_similarity = constants.by_similarity, of_contrast = row.in_crop ? constants.by_contrast : V{};
    if constexpr (Masked) {
      of_similarity *= weight;
      of_contrast *= weight;
    }
    of_contrast = only(of_contrast, constants.in_crop(i));
    if (upstream) of_similarity += load<V>(upstream);
    if constexpr (Derivatives > 0)
      put(out, output.partials_by(of_similarity, of_contrast), constants, constants.outputs(i));
    if (constants.wants_constants) {
      const auto by = output.constant_partials_by(of_similarity, of_contrast);
      sum[kByC1] += only(by.c1, own);
      sum[kByC2] += only(by.c2, own);
    }
  }

  SSIM_INLINE auto output_of(const T* moments, const V& weight, const Constants& c) const {
    V of_output[kMoments];
    unrolled<kMoments>([&](auto m)
                           SSIM_INLINE_LAMBDA { of_output[m] = load<V>(moments + m * kStepRows * kLanes); });
    if constexpr (Masked) {
      return MaskedOutput<V>(of_output, weight, s_.mask.weighs_windows(), c.pivots, c.c1, c.c2);
    } else {
      return PlainOutput<V>(of_output, c.pivots, c.c1, c.c2);
    }
  }

  // Stores derivatives in the ring of derivatives, with zeros in lanes that have no output.
  SSIM_INLINE void put(T* out, const Partials<V>& f, const Constants& constants, const V& exist) const {
    const int64_t field = constants.next_field;
    store(out + kByA * field, only(f.a, exist));
    store(out + kByP * field, only(f.p, exist));
    store(out + kByD * field, only(f.d, exist));
    if constexpr (gradients == GradientsOf::both) store(out + kByB * field, only(f.b, exist));
  }

  // Writes row j of the map, and adds the row's sums to those of its segment.
  SSIM_INLINE void finish_row(int64_t q, int j, bool counts, const V (&sum)[kSums][kStepRows]) const {
    if (const ImageRows<T>& map = s_.spec.map) {
      s_.to_natural_order(s_.work.values + j * s_.work.padded_vectors() * kLanes, s_.work.rows[0]);
      const int64_t begin = s_.work.positions.of_column(s_.spec.columns.centre(s_.columns.owned_begin));
      map.write_from(s_.work.rows[0] + begin, map.offset(s_.strip.plane), q, s_.columns.owned_begin,
                     s_.columns.owned_end - s_.columns.owned_begin);
    }
    Sums& sums = s_.sums_of(s_.spec.rows.centre(q));
    sums.similarity_loss += total<T>(sum[kSimilarityLoss][j]);
    if (counts) sums.contrast_loss += total<T>(sum[kContrastLoss][j]);
    sums.by_c1 += total<T>(sum[kByC1][j]);
    sums.by_c2 += total<T>(sum[kByC2][j]);
    if constexpr (Masked) {
      sums.weight += total<T>(sum[kOutputWeights][j]);
      if (counts) sums.cropped_weight += total<T>(sum[kCroppedWeights][j]);
    }
  }

  // Reads row q of the map's upstream gradient into row j of `work.upstream`.
  SSIM_INLINE void read_upstream(int64_t q, int j) const {
    const ImageRows<T>& upstream = s_.spec.grad_map;
    const int64_t begin = s_.work.positions.of_column(s_.spec.columns.centre(s_.columns.output_begin));
    upstream.read_into(s_.work.rows[0] + begin, upstream.offset(s_.strip.plane), q, s_.columns.output_begin,
                       s_.columns.output_end - s_.columns.output_begin);
    s_.from_natural_order(s_.work.rows[0], s_.work.upstream + j * s_.work.padded_vectors() * kLanes);
  }

  const State& s_;
};

}  // namespace ssim_fused::cpu
