// The CUDA kernels for windows that the strip march (strip/march.cuh) does not serve: of any length, or
// padded by more than their radius. They process one axis at a time, over scratch in the compute type.
// launch/wide.cuh launches them in order; docs/kernels.md has the reasons.
//
//   kernel          file            pass
//   wide_moments    wide_row.cuh    along the columns: preds and target to their four moments
//   wide_filter     wide_axis.cuh   along the rows: moments to moments; the adjoint along the rows and the
//                                   depth: derivatives to derivatives
//   wide_formula    wide_axis.cuh   along the depth, then the formula, sums and map: moments to derivatives
//   wide_gradient   wide_row.cuh    the adjoint along the columns, and the gradients
//
// A thread computes kRun consecutive outputs along the filtered axis, so that each input it reads serves all
// of them. Along the rows and the depth, a warp processes kLanes columns and reads global memory, which
// neighbouring warps share through the L1 cache. Along the columns, a block stages some rows in shared
// memory.
//
// No tap multiplies a position outside the window, so a NaN does not spread beyond the window's reach.
#pragma once

#include <cstdint>

#include "../../math/geometry.h"
#include "../../math/ssim.h"
#include "device.cuh"
#include "mask.cuh"
#include "problem.cuh"
#include "reduce.cuh"

namespace ssim_fused::cuda {

constexpr int kWideThreads = 128;
constexpr int kLanes = kWarpSize;  // columns per warp
constexpr int kWideWarps = kWideThreads / kLanes;
constexpr int kRun = 8;  // outputs per thread, along the filtered axis

// Blocks per SM: a thread has 128 registers for float, and all that there are for double.
template <class T>
constexpr int kWideBlocks = sizeof(T) == 8 ? 2 : 4;

// ---------------------------------------------------------------------------------------------------------
// Taps

// Taps are passed as kernel arguments. A copy from the host would wait, or could not be captured in a graph.
constexpr int kTapsOfLaunch = 256;
template <class T>
struct TapsParams {
  T* out;  // [count]
  int count;
  T taps[kTapsOfLaunch];
};

template <class T>
SSIM_KERNEL(kTapsOfLaunch, 1)
set_taps_kernel(SSIM_PARAMS TapsParams<T> p) {
  const int i = threadIdx.x;
  if (i < p.count) p.out[i] = p.taps[i];
}

// A pass along one axis. An adjoint pass filters from the outputs back to the inputs, with the taps reversed,
// over an axis with zeros outside; fold_both then adds what reflection folds back.
template <class T>
struct WideAxis {
  DeviceAxis axis;
  const T* taps;  // [2 radius + 1], padded with zeros to whole kRun, aligned to 16 bytes
  // Only for adjoint passes with reflection: the axis and the taps of the forward pass.
  bool folds;
  DeviceAxis forward;
  const T* forward_taps;  // [2 radius + 1]
};

// Applies `count` taps to the inputs i, i + 1, ... and adds the result to sum[m][i], for each field m and
// each i. load(group, place, value) reads value[m] of input n = kRun * group + place.
template <int Fields, class T, class Load>
SSIM_DEVICE void filter_run(T (&sum)[Fields][kRun], const T* taps, int count, Load&& load) {
  T window[Fields][kRun], tap[kRun];  // input n is in window[n % kRun]
  const auto read = [&](int group, int place) {
    T value[Fields];
    load(group, place, value);
#pragma unroll
    for (int m = 0; m < Fields; ++m) window[m][place % kRun] = value[m];
  };
  const auto read_taps = [&](int group) {
    constexpr int kSize = Vector<T>::kSize;
    const auto* const vectors = reinterpret_cast<const Vector<T>*>(taps) + group * (kRun / kSize);
#pragma unroll
    for (int v = 0; v < kRun / kSize; ++v) {
      const Vector<T> some = vectors[v];
#pragma unroll
      for (int i = 0; i < kSize; ++i) tap[v * kSize + i] = some.value[i];
    }
  };
  const auto add = [&](int k) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
#pragma unroll
      for (int m = 0; m < Fields; ++m) sum[m][i] += tap[k] * window[m][(k + i) % kRun];
    }
  };
#pragma unroll
  for (int place = 0; place < kRun; ++place) read(0, place);
  int group = 0;
#pragma unroll 1
  for (; kRun * (group + 1) < count; ++group) {
    read_taps(group);
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      add(k);
      read(group, kRun + k);
    }
  }
  const int rest = count - kRun * group;
  read_taps(group);
#pragma unroll
  for (int k = 0; k < kRun; ++k) {
    if (k < rest) add(k);
    if (k + 1 < rest) read(group, kRun + k);
  }
}

// Adds the derivatives that reflection folds back to sum[m][i], the gradient at input first + i, for the
// inputs in [low, high], which extended position mirror - (first + i) also reads. load(o, value) reads
// value[m] of output o.
template <int Fields, class T, class Load>
SSIM_DEVICE void fold_back(T (&sum)[Fields][kRun], const DeviceAxis& axis, const T* taps, int first, int low,
                           int high, int mirror, Load&& load) {
  const int begin = max(first, low), end = min(first + kRun - 1, high);  // the inputs of this run that fold
  if (begin > end) return;
  const int from = max(0, mirror - end + axis.pad - 2 * axis.radius);
  const int to = min(axis.output_length() - 1, mirror - begin + axis.pad);
#pragma unroll 1
  for (int o = from; o <= to; ++o) {
    T value[Fields];
    load(o, value);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const int k = mirror - (first + i) + axis.pad - o;
      if (first + i < begin || first + i > end || k < 0 || k > 2 * axis.radius) continue;
      const T tap = taps[k];
#pragma unroll
      for (int m = 0; m < Fields; ++m) sum[m][i] += tap * value[m];
    }
  }
}

// Folds back both ends of an axis (math/geometry.h).
template <int Fields, class T, class Load>
SSIM_DEVICE void fold_both(T (&sum)[Fields][kRun], const WideAxis<T>& pass, int first, Load&& load) {
  const DeviceAxis& axis = pass.forward;
  fold_back(sum, axis, pass.forward_taps, first, 1, axis.pad, 0, load);
  fold_back(sum, axis, pass.forward_taps, first, max(0, axis.n - 1 - axis.pad), axis.n - 2, 2 * (axis.n - 1),
            load);
}

// ---------------------------------------------------------------------------------------------------------
// Along the rows and the depth

// The address of fields in scratch, as strides in elements for the volume, slice, group of columns, field,
// and position on the filtered axis. Volumes count from the first one of the slab.
template <class T>
struct Lines {
  T* data;  // scratch of a slab, or of a chunk of it
  int64_t offset, volume, slice, group, field, line;

  SSIM_DEVICE T* at(int64_t v, int64_t z, int64_t g) const {
    return data + (offset + v * volume + z * slice + g * group);
  }
};

// Parameters of passes whose work is divided into units: kLanes columns of a slice, or of all slices. Units
// are numbered in the order volume, slice, group of columns.
template <class T>
struct UnitParams {
  WideAxis<T> pass;
  Lines<const T> in;
  Lines<T> out;
  int64_t first_unit, end_unit;  // of this launch
  int64_t slices, groups;
  int64_t width;  // columns
  int64_t first_volume;
  const T* pivots;  // [B * C]; null: zeros
  // Padding pixels have x' = y' = -pivot. `padding` is the product of the sums of taps of the passes before.
  T padding;
};

template <class T>
struct Unit {
  int64_t volume, slice, group;

  SSIM_DEVICE Unit(const UnitParams<T>& p, int64_t unit) {
    group = unit % p.groups;
    slice = unit / p.groups % p.slices;
    volume = unit / p.groups / p.slices;
  }
};

// Reads `Fields` fields at one position of the filtered axis, for a thread of a unit.
template <int Fields, class T>
class UnitReader {
 public:
  SSIM_DEVICE UnitReader(const UnitParams<T>& p, const Unit<T>& unit, int64_t lane, int first)
      : p_(p), in_(p.in.at(unit.volume, unit.slice, unit.group) + lane), first_(first - p.pass.axis.pad) {
    const T pivot = p.pivots ? p.pivots[p.first_volume + unit.volume] : T(0);
    mirror_ = p.pass.axis.reflects ? 2 * (p.pass.axis.n - 1) : kNoMirror;
    padding_ = moments_of_zeros(pivot, p.padding);
  }

  SSIM_DEVICE void operator()(int group, int place, T (&value)[Fields]) const {
    // Branch-free version of axis.source.
    const int extended = first_ + kRun * group + place;
    const int low = p_.pass.axis.reflects ? max(extended, -extended) : extended;
    const int position = min(low, mirror_ - low);
    const bool is_inside = static_cast<unsigned>(position) < static_cast<unsigned>(p_.pass.axis.n);
    const T* from = in_ + position * p_.in.line;
#pragma unroll
    for (int m = 0; m < Fields; ++m, from += p_.in.field) {
      value[m] = m == kMomentM       ? padding_.m
                 : m == kMomentDelta ? padding_.delta
                 : m == kMomentP     ? padding_.p
                 : m == kMomentD     ? padding_.d
                                     : p_.padding;  // the weight of a masked window
      if (is_inside) value[m] = *from;
    }
  }
  SSIM_DEVICE void at(int position, T (&value)[Fields]) const {
    const T* from = in_ + position * p_.in.line;
#pragma unroll
    for (int m = 0; m < Fields; ++m, from += p_.in.field) value[m] = *from;
  }

 private:
  const UnitParams<T>& p_;
  static constexpr int kNoMirror = 1 << 30;  // above twice any position: kMaxAxis
  const T* in_;
  int first_, mirror_;
  Moments<T> padding_;
};

template <class T, int Fields>
struct FilterParams : UnitParams<T> {};

template <class T, int Fields>
SSIM_KERNEL(kWideThreads, kWideBlocks<T>)
wide_filter_kernel(SSIM_PARAMS FilterParams<T, Fields> p) {
  const int thread = threadIdx.x;
  const int length = p.pass.axis.output_length();
  const int tiles = (length + kRun - 1) / kRun;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWideWarps + thread / kLanes;
  const int first = static_cast<int>(warp % tiles) * kRun;
  const int64_t index = p.first_unit + warp / tiles;
  if (index >= p.end_unit) return;
  const Unit<T> unit(p, index);
  const int lane = thread % kLanes;
  if (unit.group * kLanes + lane >= p.width) return;

  T sum[Fields][kRun] = {};
  const UnitReader<Fields, T> reader(p, unit, lane, first);
  filter_run(sum, p.pass.taps, 2 * p.pass.axis.radius + 1, reader);
  if (p.pass.folds) fold_both(sum, p.pass, first, [&](int o, T(&value)[Fields]) { reader.at(o, value); });
  T* const out = p.out.at(unit.volume, unit.slice, unit.group) + (lane + first * p.out.line);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (first + i >= length) break;
#pragma unroll
    for (int m = 0; m < Fields; ++m) out[m * p.out.field + i * p.out.line] = sum[m][i];
  }
}

template <class Storage, bool Masked>
struct FormulaParams : UnitParams<ComputeOf<Storage>> {
  ProblemOf<Storage, Masked> problem;
  GradientsOf gradients;
  int sums;  // kMeans or kWithConstants
};

// Returns the mask at the pixel that an output is centred on.
template <class Storage>
SSIM_DEVICE ComputeOf<Storage> centre_weight(const MaskedProblem<Storage>& problem, int64_t image,
                                             int64_t channel, int slice, int row, int column) {
  const auto at = [](const DeviceAxis& axis, int output) { return axis.source(axis.centre(output)); };
  return problem.template weight<ComputeOf<Storage>>(image, channel, at(problem.depth, slice),
                                                     at(problem.rows, row), at(problem.columns, column));
}

// Adds the derivatives of an output with respect to the constants to the sums, and writes those with respect
// to its moments, as far as they are requested. Advances `out` to the next output.
template <class Storage, bool Masked, class T>
SSIM_DEVICE void differentiate(const FormulaParams<Storage, Masked>& p, const LocalTerms<T>& terms, T n,
                               T of_similarity, T of_contrast, T*& out, T (&sums)[kWithConstants]) {
  if (p.sums == kWithConstants) {
    const auto by = Masked ? masked_constant_partials(terms, of_similarity, of_contrast, n)
                           : constant_partials(terms, of_similarity, of_contrast);
    sums[kByC1] += by.c1;
    sums[kByC2] += by.c2;
  }
  if (p.gradients != GradientsOf::none) {
    const auto f = Masked ? masked_partials(terms, of_similarity, of_contrast, n)
                          : objective_partials<Objective::general>(terms, of_similarity, of_contrast);
    to_fields<GradientsOf::preds>(f, [&](int field, T value) { out[field * p.out.field] = value; });
    if (p.gradients == GradientsOf::both) out[kByB * p.out.field] = f.b;
    out += p.out.line;
  }
}

// Applies the formula to the moments of a thread's outputs: kRun positions along the depth, from `first` on,
// at pixel `pixel` of a slice, which is in column `lane` of the unit. There are `length` positions. Adds to
// the sums, and writes the map and the derivatives.
template <class Storage, bool Masked, class T>
SSIM_DEVICE void formula_run(const FormulaParams<Storage, Masked>& p, const Unit<T>& unit, int64_t pixel,
                             int lane, int first, int length, const T (&moments)[moment_fields(Masked)][kRun],
                             T (&sums)[kWithConstants]) {
  const auto& problem = p.problem;
  const int64_t volume = p.first_volume + unit.volume;
  const int64_t image = volume / problem.channels, channel = volume % problem.channels;
  const int row = static_cast<int>(pixel / problem.columns.output_length());
  const int column = static_cast<int>(pixel % problem.columns.output_length());
  const bool may_count = problem.rows.is_in_crop(row) && problem.columns.is_in_crop(column);
  const T pivot = p.pivots ? p.pivots[volume] : T(0);
  const T c1 = problem.constants.c1_of(image);
  const T c2 = problem.constants.c2_of(image);
  T mean_similarity = problem.of_similarity.of(image), mean_contrast = problem.of_contrast.of(image);
  if constexpr (Masked) {
    mean_similarity *= problem.template share<T>(image, kAllOutputs);
    mean_contrast *= problem.template share<T>(image, kCroppedOutputs);
  }
  const auto place = [&](const auto& array) {
    return array.data ? array.plane(image, channel) +
                            (first * array.slice_stride + row * array.stride[2] + column * array.stride[3])
                      : nullptr;
  };
  auto* const map = place(problem.map);
  auto* const grad_map = place(problem.grad_map);
  T* out = p.out.at(unit.volume, unit.slice, unit.group) + (lane + first * p.out.line);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (first + i >= length) break;
    const auto of_window = moments_of_fields<T>([&](int f) { return moments[f][i]; });
    const bool counts = may_count && p.pass.axis.is_in_crop(first + i);
    // With a mask: the window's weight, and the output's weight in the means. A window that sees no pixel has
    // no output.
    T n = T(1), weight = T(1);
    bool exists = true;
    if constexpr (Masked) {
      if (problem.weighs_windows) n = moments[kWindowWeight][i];
      exists = n > T(kLeastWeight);
      weight = exists ? centre_weight(problem, image, channel, first + i, row, column) : T(0);
    }
    const auto terms = [&] {
      if constexpr (Masked) return masked_terms(of_window, n, pivot, c1, c2);
      if constexpr (!Masked) return local_terms(of_window, pivot, c1, c2);
    }();
    if (weight > T(0)) {
      sums[kSimilarityLoss] += Masked ? weight * terms.similarity_loss() : terms.similarity_loss();
      if (counts) sums[kContrastLoss] += Masked ? weight * terms.contrast_loss : terms.contrast_loss;
    }
    if (map) store_as(map[i * problem.map.slice_stride], exists ? terms.similarity() : T(1));
    if (p.gradients != GradientsOf::none || p.sums == kWithConstants) {
      T of_similarity = Masked ? mean_similarity * weight : mean_similarity;
      if (grad_map && exists) {
        of_similarity += static_cast<T>(to_compute(grad_map[i * problem.grad_map.slice_stride]));
      }
      const T of_contrast = !counts ? T(0) : Masked ? mean_contrast * weight : mean_contrast;
      differentiate(p, terms, n, of_similarity, of_contrast, out, sums);
    }
  }
}

// Each block computes kWideWarps * kRun outputs of a unit.
template <class Storage, bool Masked>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_formula_kernel(SSIM_PARAMS FormulaParams<Storage, Masked> p) {
  using T = ComputeOf<Storage>;
  constexpr int kFields = moment_fields(Masked);
  const auto& problem = p.problem;
  const int thread = threadIdx.x, lane = thread % kLanes;
  const int length = p.pass.axis.output_length();
  const int blocks = (length + kWideWarps * kRun - 1) / (kWideWarps * kRun);  // per unit
  const int64_t index = p.first_unit + blockIdx.x / static_cast<unsigned>(blocks);
  const int block = static_cast<int>(blockIdx.x % static_cast<unsigned>(blocks));
  const int first = (block * kWideWarps + thread / kLanes) * kRun;
  const Unit<T> unit(p, index);
  const int64_t pixel = unit.group * kLanes + lane;
  double totals[kWithConstants] = {};
  if (first < length && pixel < p.width) {
    T moments[kFields][kRun] = {};
    filter_run(moments, p.pass.taps, 2 * p.pass.axis.radius + 1,
               UnitReader<kFields, T>(p, unit, lane, first));
    T sums[kWithConstants] = {};
    formula_run(p, unit, pixel, lane, first, length, moments, sums);
#pragma unroll
    for (int n = 0; n < kWithConstants; ++n) totals[n] = static_cast<double>(sums[n]);
  }
  // The index of the block among those of all units of the batch.
  const int64_t place = (p.first_volume * p.groups + index) * blocks + block;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  if (p.sums == kWithConstants) {
    write_block_sums<kWideThreads>(totals, scratch, problem.sums, problem.batch, place, thread);
  } else {
    double means[kMeans] = {totals[kSimilarityLoss], totals[kContrastLoss]};
    write_block_sums<kWideThreads>(means, scratch, problem.sums, problem.batch, place, thread);
  }
}

constexpr int kWideSumsShared = kWideWarps * kWithConstants * sizeof(double);

}  // namespace ssim_fused::cuda
