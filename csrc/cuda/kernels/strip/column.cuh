// Stage 3 of the strip march, down the columns: each thread owns a column. The window is a transposed FIR
// filter in registers (fir.cuh): a row is added to the sums of all outputs it belongs to, so no values are
// shifted through the window. The formula follows, then a second filter over the derivatives, whose results
// replace the moments in the exchange buffer. Volumes use either half alone.
#pragma once

#include <cstdint>

#include "../../../math/ssim.h"
#include "exchange.cuh"

namespace ssim_fused::cuda {

template <class Config>
class StripColumns {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Block = StripBlock<Config>;
  using Column = StripColumn<Config>;
  using Exchange = StripExchange<Config>;
  using Numbers = StripNumbers<Config>;
  static constexpr int kDerivatives = Config::kDerivatives, kRadius = Config::kRadius, kTaps = Config::kTaps;
  static constexpr int kDerivativesOr1 = kDerivatives > 0 ? kDerivatives : 1;  // an array needs an element

 public:
  // Sets of taps in which the reflection of rows is folded back: for the first rows, the last rows, and all
  // others.
  static constexpr int kFoldBytes = kDerivatives > 0 ? kFoldPlaces<kRadius> * (kTaps + 1) * sizeof(T) : 0;
  // The sums of each thread, [sum][thread].
  static constexpr int kTotalBytes =
      Config::kPass == Pass::image ? Config::kSums * Config::kThreads * sizeof(double) : 0;

  SSIM_DEVICE StripColumns(char* fold_taps, char* totals)
      : fold_taps_(reinterpret_cast<T*>(fold_taps)), totals_(reinterpret_cast<double*>(totals)) {}

  SSIM_DEVICE void begin(const Block& at) {
    const int thread = static_cast<int>(at.thread());
    if constexpr (Config::kGeneral && Config::kPass == Pass::image) {
      map_ = at.p.map.data ? at.p.map.plane(at.image, at.channel) : nullptr;
      grad_map_ = at.p.grad_map.data ? at.p.grad_map.plane(at.image, at.channel) : nullptr;
    }
    if constexpr (kDerivatives > 0) {
#pragma unroll 1
      for (int i = thread; i < kFoldPlaces<kRadius> * kTaps; i += Config::kThreads) {
        const int place = i / kTaps, k = i % kTaps;
        fold_taps_[place * (kTaps + 1) + k] = fold_tap<kRadius>(at.p.rows, at.p.row_taps, place, k);
      }
    }
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) {
#pragma unroll
      for (int f = 0; f < kPlainMoments; ++f) moment_[f][k] = T(0);
#pragma unroll
      for (int f = 0; f < kDerivatives; ++f) derivative_[f][k] = T(0);
    }
    if constexpr (Config::kPass == Pass::image) {
#pragma unroll
      for (int n = 0; n < Config::kSums; ++n) totals_[n * Config::kThreads + thread] = 0;
    }
  }

  // Adds input rows `row` to row + 7 of moments, which completes the outputs kRadius rows above.
  SSIM_DEVICE void image(const Block& at, int row, char* exchange) {
    const int z = row - kRadius;  // the first output that this step completes
    const Column column(at);
    char* const place = exchange + Exchange::slot(column);
    T step[Config::kSumsOfOutputs];
#pragma unroll
    for (int n = 0; n < Config::kSumsOfOutputs; ++n) step[n] = T(0);
    const T numbers[] = {at.numbers[Numbers::kPivot], at.numbers[Numbers::kC1], at.numbers[Numbers::kC2],
                         column.doubled_weight(at)};
    const auto owned = [&] { return z >= at.row_begin && z + kStepRows <= at.row_end; };
    const int reach = kDerivatives > 0 ? kRadius : 0;
    const int free = Config::kGeneral ? reach : max(reach, at.p.rows.radius);
    const bool is_free = (Config::kGeneral && Config::kGradients == GradientsOf::none) ||
                         (z >= free && z + kStepRows <= at.p.rows.n - free);
    if (is_free && (Config::kGeneral || owned())) {
#pragma unroll 4
      for (int r = 0; r < kStepRows; ++r)
        output<Rows::inside>(at, column, z + r, place + r * Exchange::kRow, numbers, step);
    } else if (!Config::kGeneral && is_free) {
#pragma unroll 1
      for (int r = 0; r < kStepRows; ++r)
        output<Rows::gated>(at, column, z + r, place + r * Exchange::kRow, numbers, step);
    } else {
#pragma unroll 1
      for (int r = 0; r < kStepRows; ++r)
        output<Rows::border>(at, column, z + r, place + r * Exchange::kRow, numbers, step);
    }
#pragma unroll
    for (int n = 0; n < Config::kSumsOfOutputs; ++n) {
      totals_[n * Config::kThreads + at.thread()] += static_cast<double>(step[n]);
    }
  }

  // Pass::moments: writes the moments of the windows that the step completes to scratch.
  SSIM_DEVICE void moments(const Block& at, int row, const char* exchange) {
    const int z = row - kRadius;
    const Column column(at);
    const char* const place = exchange + Exchange::slot(column);
    const SliceColumn<T> fields = column.of_slice(at, z);
    const DeviceAxis& rows = at.p.rows;
    const int width = at.p.columns.output_length();
    const int begin = max(at.row_begin, rows.radius - rows.pad),
              end = min(at.row_end, rows.n - (rows.radius - rows.pad));
    const auto output = [&](int r, bool is_owned) {
      T complete[kPlainMoments];
      filter_moments(at, place + r * Exchange::kRow, complete);
      if (!is_owned) return;
      T* const to = fields.on(r * width);
#pragma unroll
      for (int f = 0; f < kPlainMoments; ++f) to[f * kGroup] = complete[f];
    };
    if (z >= begin && z + kStepRows <= end) {
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) output(r, column.is_owned);
    } else {
#pragma unroll 1
      for (int r = 0; r < kStepRows; ++r) output(r, column.is_owned && z + r >= begin && z + r < end);
    }
  }

  // Pass::gradient: filters the derivatives in the exchange buffer in place by the adjoint of the window.
  SSIM_DEVICE void derivatives(const Block& at, int z, char* exchange) {
    const Column column(at);
    char* const place = exchange + Exchange::slot(column);
    const auto output = [&]<bool Border>(int r) {
      char* const row = place + r * Exchange::kRow;
      T values[kMostDerivatives] = {};
#pragma unroll
      for (int f = 0; f < kDerivatives; ++f)
        values[f] = *reinterpret_cast<const T*>(row + f * Exchange::kField);
      filter_derivatives<Border>(at, row, z + r, values);
    };
    if (z >= kRadius && z + kStepRows <= at.p.rows.n - kRadius) {
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) output.template operator()<false>(r);
    } else {
#pragma unroll 1
      for (int r = 0; r < kStepRows; ++r) output.template operator()<true>(r);
    }
  }

  // Returns the thread's sum of the pixel term, or null if it has none.
  SSIM_DEVICE double* pixel_total(const Block& at) const {
    return Config::kSumsPixelTerm ? totals_ + (Config::kSums - 1) * Config::kThreads + at.thread() : nullptr;
  }

  // Writes the sums of a part of a strip, after the march down that part.
  SSIM_DEVICE void write_sums(const Block& at, int64_t strip, int part) const {
    const auto& p = at.p;
    const int thread = static_cast<int>(at.thread());
    const Column column(at);
    double sums[Config::kSums];
#pragma unroll
    for (int n = 0; n < Config::kSums; ++n) {
      const bool is_of_pixels = Config::kSumsPixelTerm && n == Config::kSums - 1;
      const bool counts =
          is_of_pixels || (column.is_owned && (n != kContrastLoss || p.columns.is_in_crop_at(column.z)));
      sums[n] = counts ? totals_[n * Config::kThreads + thread] : 0.0;
    }
    const int64_t block = strip * p.parts + part;
    if (at.row_end == p.rows.n) {  // the strip has no further parts
      double* const next = p.sums.blocks(p.batch) + (block + 1) * Config::kSums;
      for (int i = thread; i < (p.parts - 1 - part) * Config::kSums; i += Config::kThreads) next[i] = 0;
    }
    __syncthreads();  // the summation reuses the memory of the totals
    write_block_sums<Config::kThreads>(sums, totals_, p.sums, p.batch, block, thread);
  }

 private:
  // Properties of all rows of a step. `inside`: every row is owned (unless General), counts for both means,
  // and reflection does not reach it. `gated`: like `inside`, but rows may not be owned. `border`: nothing is
  // known.
  enum class Rows { inside, gated, border };

  // Adds one row of moments, which completes output z.
  template <Rows rows>
  SSIM_DEVICE void output(const Block& at, const Column& column, int z, char* place, const T (&numbers)[4],
                          T (&step)[Config::kSumsOfOutputs]) {
    constexpr int kWeight = 3;  // index in `numbers` of the column's weight
    T complete[kPlainMoments];
    filter_moments(at, place, complete);
    const auto terms = local_terms(moments_of_fields<T>([&](int f) { return complete[f]; }),
                                   numbers[Numbers::kPivot], numbers[Numbers::kC1], numbers[Numbers::kC2]);

    const auto& p = at.p;
    constexpr bool kAllExist = rows != Rows::border && !Config::kGeneral;
    constexpr bool kAllOwned = rows == Rows::inside && !Config::kGeneral;
    const bool row_exists = kAllExist || p.rows.has_output_at(z);
    const bool row_is_owned = kAllOwned || (row_exists && at.owns_row(z));
    const bool row_is_cropped_in = kAllOwned || (row_is_owned && (kAllExist || p.rows.is_in_crop_at(z)));
    if (row_is_owned) step[kSimilarityLoss] += terms.similarity_loss();
    if (row_is_cropped_in) step[kContrastLoss] += terms.contrast_loss;

    // Outputs that do not exist get weight zero. Such an output may still be NaN, but only if a window of an
    // existing neighbour contains a NaN too, which then reaches every pixel that this output reaches.
    T weight = T(0), of_contrast = T(0);
    if constexpr (Config::kGeneral) {
      if (row_exists && column.exists) {
        const int64_t i = p.rows.output_at(z), j = p.columns.output_at(column.z);
        weight = at.numbers[Numbers::kSimilarityWeight];
        if (grad_map_) weight += to_compute(grad_map_[i * p.grad_map.stride[2] + j * p.grad_map.stride[3]]);
        if (p.rows.is_in_crop_at(z) && p.columns.is_in_crop_at(column.z))
          of_contrast = at.numbers[Numbers::kContrastWeight];
        if (map_ && row_is_owned && column.is_owned)
          store_as(map_[i * p.map.stride[2] + j * p.map.stride[3]], terms.similarity());
      }
      if (p.wants_constants && row_is_owned) {
        const auto by = constant_partials(terms, weight, of_contrast);
        step[kByC1] += by.c1;
        step[kByC2] += by.c2;
      }
    } else if constexpr (Config::kObjective == Objective::mean_contrast) {
      weight = kAllExist || p.rows.is_in_crop_at(z) ? numbers[kWeight] : T(0);
    } else {
      weight = row_exists ? numbers[kWeight] : T(0);
    }
    if constexpr (kDerivatives > 0) {
      const auto f = objective_partials<Config::kObjective>(terms, weight, of_contrast);
      T values[kMostDerivatives];
      to_fields<GradientsOf::both>(f, [&](int field, T value) { values[field] = value; });
      filter_derivatives<rows == Rows::border>(at, place, z, values);
    }
  }

  // Adds one row of moments, which completes the moments of the window kRadius rows above.
  SSIM_DEVICE void filter_moments(const Block& at, const char* place, T (&complete)[kPlainMoments]) {
    const T* const taps = at.p.row_taps;
#pragma unroll
    for (int f = 0; f < kPlainMoments; ++f) {
      const T value = *reinterpret_cast<const T*>(place + f * Exchange::kField);
      complete[f] = push<Config::kNarrow>(moment_[f], value, at.p.rows.radius,
                                          [&](int k) { return taps[kTaps - 1 - k]; });
    }
  }

  // Adds the derivatives at z, which completes the adjoint at z - kRadius. `Border`: z may be any row;
  // otherwise reflection does not reach it.
  template <bool Border>
  SSIM_DEVICE void filter_derivatives(const Block& at, char* place, int z,
                                      const T (&values)[kMostDerivatives]) {
    const T* const taps = at.p.row_taps;
    const T* const edge_taps =
        Border ? fold_taps_ + fold_place<kRadius>(at.p.rows, z) * (kTaps + 1) : nullptr;
#pragma unroll
    for (int f = 0; f < kDerivatives; ++f) {
      const T sum = push<Config::kNarrow>(derivative_[f], values[f], at.p.rows.radius,
                                          [&](int k) { return Border ? edge_taps[k] : taps[k]; });
      *reinterpret_cast<T*>(place + f * Exchange::kField) = sum;
    }
  }

  T* const fold_taps_;                 // [kFoldPlaces, kTaps + 1], in shared memory
  double* const totals_;               // [sums, threads], in shared memory
  Storage* map_ = nullptr;             // [H, W], the plane of the map, with the strides of the params
  const Storage* grad_map_ = nullptr;  // [H, W], that of its upstream gradient
  T moment_[kPlainMoments][kTaps - 1],
      derivative_[kDerivativesOr1][kTaps - 1];  // the unfinished sums of both filters
};

}  // namespace ssim_fused::cuda
