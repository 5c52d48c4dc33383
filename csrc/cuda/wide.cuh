// The CUDA kernels for windows wider than the strip kernel's (strip.cuh), or padded by more than their
// radius, of any length: one axis at a time, over scratch in the compute type. wide_launch.cuh puts them
// together; kernels.md says why.
//
//   wide_moments   along the columns, from preds and target to their four moments
//   wide_filter    along the rows; and the adjoint along the rows and the depth: maps to maps
//   wide_formula   along the depth, then the formula, sums, map: moments to derivatives
//   wide_gradient  the adjoint along the columns, and the gradients
//
// A thread makes kRun outputs next to one another on the filtered axis, so that an input that was read serves
// all of them. Along the rows and the depth a warp takes kLanes columns and reads global memory, which the L1
// cache serves to the warps beside it; along the columns a block stages some rows in shared memory.
//
// Positions outside the input are never read and never multiplied: a NaN stays within a window's reach.
#pragma once

#include <cstdint>

#include "../math/geometry.h"
#include "../math/ssim.h"
#include "device.cuh"
#include "picture.cuh"

namespace ssim_fused {

constexpr int kWideThreads = 128;
constexpr int kLanes = 32;  // columns of a warp
constexpr int kWideWarps = kWideThreads / kLanes;
constexpr int kRun = 8;  // outputs of a thread along the filtered axis

// Blocks that an SM shall hold: 128 registers a thread for float, all that there are for double.
template <class T>
constexpr int kWideBlocks = sizeof(T) == 8 ? 2 : 4;

// ---------------------------------------------------------------------------------------------------------
// Taps

// Taps travel as kernel arguments: that needs no copy from the host, which would wait or could not be
// captured.
constexpr int kTapsOfLaunch = 256;
template <class T>
struct TapsParams {
  T* out;
  int count;
  T taps[kTapsOfLaunch];
};

template <class T>
SSIM_KERNEL(kTapsOfLaunch, 1)
set_taps_kernel(SSIM_PARAMS TapsParams<T> p) {
  const int i = threadIdx.x;
  if (i < p.count) p.out[i] = p.taps[i];
}

// A pass along one axis. The adjoint is a pass from the outputs back to the inputs, by the taps in reverse,
// over an axis with zeros outside; what the reflection folds back comes on top.
template <class T>
struct WideAxis {
  DeviceAxis axis;
  const T* taps;  // [2 radius + 1], and zeros up to whole kRun, at sixteen bytes
  // Only of adjoints that fold: the axis and its taps, forward.
  bool folds;
  DeviceAxis forward;
  const T* forward_taps;
};

// Adds to sum[m][i] what `count` taps make of the inputs i, i + 1, ...; load(n, value) reads value[m] of
// input n = kRun * group + place, as load(group, place, value).
template <int Maps, class T, class Load>
SSIM_DEVICE void filter(T (&sum)[Maps][kRun], const T* taps, int count, Load&& load) {
  T window[Maps][kRun], tap[kRun];  // input n in window[n % kRun]
  const auto read = [&](int group, int place) {
    T value[Maps];
    load(group, place, value);
#pragma unroll
    for (int m = 0; m < Maps; ++m) window[m][place % kRun] = value[m];
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
      for (int m = 0; m < Maps; ++m) sum[m][i] += tap[k] * window[m][(k + i) % kRun];
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

// Adds to sum[m][i] what the reflection folds back of the outputs' derivatives into input first + i, by the
// extended positions mirror - (first + i). load(o, value) reads value[m] of output o.
template <int Maps, class T, class Load>
SSIM_DEVICE void fold_back(T (&sum)[Maps][kRun], const DeviceAxis& axis, const T* taps, int first, int low,
                           int high, int mirror, Load&& load) {
  const int begin = max(first, low), end = min(first + kRun - 1, high);  // of the inputs that fold
  if (begin > end) return;
  const int from = max(0, mirror - end + axis.pad - 2 * axis.radius);
  const int to = min(axis.output_length() - 1, mirror - begin + axis.pad);
#pragma unroll 1
  for (int o = from; o <= to; ++o) {
    T value[Maps];
    load(o, value);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const int k = mirror - (first + i) + axis.pad - o;
      if (first + i < begin || first + i > end || k < 0 || k > 2 * axis.radius) continue;
      const T tap = taps[k];
#pragma unroll
      for (int m = 0; m < Maps; ++m) sum[m][i] += tap * value[m];
    }
  }
}

// Both ends of it (math/geometry.h).
template <int Maps, class T, class Load>
SSIM_DEVICE void fold_both(T (&sum)[Maps][kRun], const WideAxis<T>& pass, int first, Load&& load) {
  const DeviceAxis& axis = pass.forward;
  fold_back(sum, axis, pass.forward_taps, first, 1, axis.pad, 0, load);
  fold_back(sum, axis, pass.forward_taps, first, max(0, axis.n - 1 - axis.pad), axis.n - 2, 2 * (axis.n - 1),
            load);
}

// ---------------------------------------------------------------------------------------------------------
// Along the rows and the depth

// Where maps lie in scratch, in elements: volume and slice, a group of columns, map, and the position on the
// filtered axis. Volumes count from the first of the slab.
template <class T>
struct Lines {
  T* data;
  int64_t offset, volume, slice, group, map, line;

  SSIM_DEVICE T* at(int64_t v, int64_t z, int64_t g) const {
    return data + (offset + v * volume + z * slice + g * group);
  }
};

// Work in units: kLanes columns of a slice, or of all slices; in the order volume, slice, group of columns.
template <class T>
struct UnitParams {
  WideAxis<T> pass;
  Lines<const T> in;
  Lines<T> out;
  int64_t first_unit, end_unit;  // of this launch
  int64_t slices, groups;
  int64_t width;  // columns
  int64_t first_volume;
  const T* pivots;  // [B C]; none: zeros
  // A padding pixel has x' = y' = -pivot; `padding` is what the windows of the passes before add up to.
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

// Reads `Maps` maps at one position of the filtered axis, for a thread of a unit.
template <int Maps, class T>
class UnitReader {
 public:
  SSIM_DEVICE UnitReader(const UnitParams<T>& p, const Unit<T>& unit, int64_t lane, int first)
      : p_(p), in_(p.in.at(unit.volume, unit.slice, unit.group) + lane), first_(first - p.pass.axis.pad) {
    const T pivot = p.pivots ? p.pivots[p.first_volume + unit.volume] : T(0);
    mirror_ = p.pass.axis.reflects ? 2 * (p.pass.axis.n - 1) : kNoMirror;
    padding_ = -pivot * p.padding;
    product_ = pivot * pivot * p.padding;
  }

  SSIM_DEVICE void operator()(int group, int place, T (&value)[Maps]) const {
    // As axis.source, without a branch.
    const int extended = first_ + kRun * group + place;
    const int low = p_.pass.axis.reflects ? max(extended, -extended) : extended;
    const int position = min(low, mirror_ - low);
    const bool is_inside = static_cast<unsigned>(position) < static_cast<unsigned>(p_.pass.axis.n);
    const T* from = in_ + position * p_.in.line;
#pragma unroll
    for (int m = 0; m < Maps; ++m, from += p_.in.map) {
      value[m] = m < 2 ? padding_ : m == 2 ? product_ : T(0);
      if (is_inside) value[m] = *from;
    }
  }
  SSIM_DEVICE void at(int position, T (&value)[Maps]) const {
    const T* from = in_ + position * p_.in.line;
#pragma unroll
    for (int m = 0; m < Maps; ++m, from += p_.in.map) value[m] = *from;
  }

 private:
  const UnitParams<T>& p_;
  static constexpr int kNoMirror = 1 << 30;  // beyond twice any position: kMaxAxis
  const T* in_;
  int first_, mirror_;
  T padding_, product_;
};

template <class T, int Maps>
struct FilterParams : UnitParams<T> {};

template <class T, int Maps>
SSIM_KERNEL(kWideThreads, kWideBlocks<T>)
wide_filter_kernel(SSIM_PARAMS FilterParams<T, Maps> p) {
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

  T sum[Maps][kRun] = {};
  const UnitReader<Maps, T> reader(p, unit, lane, first);
  filter(sum, p.pass.taps, 2 * p.pass.axis.radius + 1, reader);
  if (p.pass.folds) fold_both(sum, p.pass, first, [&](int o, T(&value)[Maps]) { reader.at(o, value); });
  T* const out = p.out.at(unit.volume, unit.slice, unit.group) + (lane + first * p.out.line);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (first + i >= length) break;
#pragma unroll
    for (int m = 0; m < Maps; ++m) out[m * p.out.map + i * p.out.line] = sum[m][i];
  }
}

SSIM_DEVICE bool is_cropped_in(const DeviceAxis& axis, int output) {
  return output >= axis.pad && output < axis.output_length() - axis.pad;
}

template <class Storage>
struct FormulaParams : UnitParams<ComputeOf<Storage>> {
  Problem<Storage> problem;
  int maps;  // 0, 3 or 4
  int sums;  // kMeans or kWithConstants
};

// A block: kWideWarps * kRun outputs of a unit.
template <class Storage>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_formula_kernel(SSIM_PARAMS FormulaParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const Problem<Storage>& problem = p.problem;
  const int thread = threadIdx.x, lane = thread % kLanes;
  const int length = p.pass.axis.output_length();
  const int blocks = (length + kWideWarps * kRun - 1) / (kWideWarps * kRun);  // of a unit
  const int64_t index = p.first_unit + blockIdx.x / static_cast<unsigned>(blocks);
  const int block = static_cast<int>(blockIdx.x % static_cast<unsigned>(blocks));
  const int first = (block * kWideWarps + thread / kLanes) * kRun;
  const Unit<T> unit(p, index);
  const int64_t pixel = unit.group * kLanes + lane;
  double totals[kWithConstants] = {};
  if (first < length && pixel < p.width) {
    T moments[4][kRun] = {};
    filter(moments, p.pass.taps, 2 * p.pass.axis.radius + 1, UnitReader<4, T>(p, unit, lane, first));

    const int64_t volume = p.first_volume + unit.volume;
    const int64_t image = volume / problem.channels, channel = volume % problem.channels;
    const int row = static_cast<int>(pixel / problem.columns.output_length());
    const int column = static_cast<int>(pixel % problem.columns.output_length());
    const bool may_count = is_cropped_in(problem.rows, row) && is_cropped_in(problem.columns, column);
    const T pivot = p.pivots ? p.pivots[volume] : T(0);
    const T c1 = formula_constant(problem.constants ? problem.constants[0] : problem.c1);
    const T c2 = formula_constant(problem.constants ? problem.constants[1] : problem.c2);
    const T mean_similarity = problem.of_similarity.of(image), mean_contrast = problem.of_contrast.of(image);
    const auto place = [&](const auto& picture) {
      return picture.data
                 ? picture.plane(image, channel) +
                       (first * picture.slice_stride + row * picture.stride[2] + column * picture.stride[3])
                 : nullptr;
    };
    auto* const map = place(problem.map);
    auto* const grad_map = place(problem.grad_map);
    T* out = p.out.at(unit.volume, unit.slice, unit.group) + (lane + first * p.out.line);
    T sums[kWithConstants] = {};
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (first + i >= length) break;
      const auto terms =
          local_terms(Moments<T>{moments[0][i], moments[1][i], moments[2][i], moments[3][i]}, pivot, c1, c2);
      const T similarity = terms.similarity();
      const bool counts = may_count && is_cropped_in(p.pass.axis, first + i);
      sums[kSimilarity] += similarity;
      if (counts) sums[kContrastSensitivity] += terms.contrast_sensitivity();
      if (map) store_as(map[i * problem.map.slice_stride], similarity);
      if (p.maps > 0 || p.sums == kWithConstants) {
        T of_similarity = mean_similarity;
        if (grad_map) {
          of_similarity += static_cast<T>(to_compute(grad_map[i * problem.grad_map.slice_stride]));
        }
        const T of_contrast = counts ? mean_contrast : T(0);
        if (p.sums == kWithConstants) {
          const auto by = constant_partials(terms, of_similarity, of_contrast);
          sums[kByC1] += by.c1;
          sums[kByC2] += by.c2;
        }
        if (p.maps > 0) {
          const auto f = partials(terms, of_similarity, of_contrast);
          out[0] = f.a;
          out[p.out.map] = f.p;
          out[2 * p.out.map] = f.d;
          if (p.maps == 4) out[3 * p.out.map] = f.b;
          out += p.out.line;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kWithConstants; ++n) totals[n] = static_cast<double>(sums[n]);
  }
  // Of units and their blocks since the batch's first.
  const int64_t partial = (p.first_volume * p.groups + index) * blocks + block;
  double* const scratch = reinterpret_cast<double*>(shared_memory());
  if (p.sums == kWithConstants) {
    add_up_block<kWideThreads>(totals, scratch, problem.partial + partial * kWithConstants, thread);
  } else {
    double means[kMeans] = {totals[kSimilarity], totals[kContrastSensitivity]};
    add_up_block<kWideThreads>(means, scratch, problem.partial + partial * kMeans, thread);
  }
}

constexpr int kWideSumsShared = kWideWarps * kWithConstants * sizeof(double);

// ---------------------------------------------------------------------------------------------------------
// Along the columns

// A block takes `rows` rows, of each `threads` * kRun outputs, in which a thread has kRun. Longer windows go
// through shared memory kTapChunk taps at a time.
constexpr int kTapChunk = 64;
static_assert(kTapChunk % kRun == 0);

// Every thread's inputs begin kRun further on: one unused element after kRun keeps them in different banks.
SSIM_HOST_DEVICE int banked(int i) { return i + i / kRun; }

struct RowShape {
  int threads;       // of a row
  int rows;          // of a block
  int64_t segments;  // blocks that share the same rows
  int staged;        // elements of a row in shared memory, banked
  SSIM_HOST_DEVICE int results() const { return banked(threads * kRun); }  // the same of its outputs
};

template <class Storage>
struct RowParams {
  using T = ComputeOf<Storage>;
  Problem<Storage> problem;
  RowShape shape;
  WideAxis<T> pass;
  Lines<T> lines;                  // the scratch side of it
  int64_t first_slice, end_slice;  // of this launch, counted over the slab's volumes
  int64_t first_volume;
  const T* pivots;
};

// Where a thread works.
template <class Storage>
struct RowPlace {
  int64_t volume, slice;  // of the slab
  int64_t image, channel;
  int row, slot, first, place;  // `first` output of the block; `place` of the thread in its row
  bool is_active;
  ComputeOf<Storage> pivot;

  SSIM_DEVICE explicit RowPlace(const RowParams<Storage>& p) {
    const int thread = threadIdx.x;
    slot = thread / p.shape.threads;
    place = thread % p.shape.threads;
    first = static_cast<int>(blockIdx.x % p.shape.segments) * (p.shape.threads * kRun);
    const int64_t line = blockIdx.x / p.shape.segments * p.shape.rows + slot;
    const int64_t from = p.first_slice + line / p.problem.rows.n;
    row = static_cast<int>(line % p.problem.rows.n);
    is_active = slot < p.shape.rows && from < p.end_slice;
    volume = from / p.problem.depth.n;
    slice = from % p.problem.depth.n;
    image = (p.first_volume + volume) / p.problem.channels;
    channel = (p.first_volume + volume) % p.problem.channels;
    pivot = is_active && p.pivots ? p.pivots[p.first_volume + volume] : ComputeOf<Storage>(0);
  }

  template <class Element>
  SSIM_DEVICE Element* of(const Picture<Element>& picture) const {
    return picture.plane(image, channel) + (slice * picture.slice_stride + row * picture.stride[2]);
  }
};

// Runs the filter over kTapChunk taps at a time: stage(begin, end, extended) stages inputs so that element 0
// is at extended position `extended`; then load(group, place, value) reads them for the thread.
template <int Maps, class T, class Stage, class Load>
SSIM_DEVICE void filter_row(T (&sum)[Maps][kRun], const WideAxis<T>& pass, const RowShape& shape, int first,
                            bool is_active, Stage&& stage, Load&& load) {
  const int taps = 2 * pass.axis.radius + 1;
  for (int begin = 0; begin < taps; begin += kTapChunk) {
    const int count = min(kTapChunk, taps - begin);
    __syncthreads();  // the chunk before has been read
    if (is_active) stage(shape.threads * kRun + count - 1, first - pass.axis.pad + begin);
    __syncthreads();
    if (is_active) filter(sum, pass.taps + begin, count, load);
  }
}

template <class Storage>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_moments_kernel(SSIM_PARAMS RowParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const RowPlace<Storage> at(p);
  const RowShape& shape = p.shape;
  T* const x_of_row = reinterpret_cast<T*>(shared_memory()) + at.slot * shape.staged;
  T* const y_of_row = x_of_row + shape.rows * shape.staged;
  const int mine = at.place * (kRun + 1);

  T sum[4][kRun] = {};
  filter_row(
      sum, p.pass, shape, at.first, at.is_active,
      [&](int count, int extended) {
        const Storage *const preds = at.of(p.problem.preds), *const target = at.of(p.problem.target);
#pragma unroll 4
        for (int i = at.place; i < count; i += shape.threads) {
          const int column = p.pass.axis.source(extended + i);
          const bool is_inside = column >= 0;
          x_of_row[banked(i)] =
              is_inside ? static_cast<T>(to_compute(preds[column * p.problem.preds.stride[3]])) : T(0);
          y_of_row[banked(i)] =
              is_inside ? static_cast<T>(to_compute(target[column * p.problem.target.stride[3]])) : T(0);
        }
      },
      [&](int group, int place, T(&value)[4]) {
        const int i = mine + group * (kRun + 1) + banked(place);
        const T raw_x = x_of_row[i], raw_y = y_of_row[i];
        const T x = raw_x - at.pivot, y = raw_y - at.pivot, difference = raw_x - raw_y;
        value[0] = x;
        value[1] = y;
        value[2] = x * y;
        value[3] = difference * difference;
      });

  // By way of shared memory, so that neighbours write next to one another.
  const int length = p.pass.axis.output_length();
  T* const out = p.lines.at(at.volume, at.slice, 0) + (at.row * p.lines.line + at.first);
#pragma unroll
  for (int m = 0; m < 4; m += 2) {
    __syncthreads();
    if (at.is_active) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        x_of_row[mine + i] = sum[m][i];
        y_of_row[mine + i] = sum[m + 1][i];
      }
    }
    __syncthreads();
    if (!at.is_active) continue;
#pragma unroll
    for (int n = 0; n < kRun; ++n) {
      const int i = at.place + n * shape.threads;
      if (at.first + i >= length) break;
      out[m * p.lines.map + i] = x_of_row[banked(i)];
      out[(m + 1) * p.lines.map + i] = y_of_row[banked(i)];
    }
  }
}

template <class Storage, int Maps>
struct GradientParams : RowParams<Storage> {};

template <class Storage, int Maps>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_gradient_kernel(SSIM_PARAMS GradientParams<Storage, Maps> p) {
  using T = ComputeOf<Storage>;
  const RowPlace<Storage> at(p);
  const RowShape& shape = p.shape;
  T* const row = reinterpret_cast<T*>(shared_memory()) + at.slot * shape.staged;
  T* const results =
      reinterpret_cast<T*>(shared_memory()) + shape.rows * shape.staged + at.slot * Maps * shape.results();
  const T* const in = p.lines.at(at.volume, at.slice, 0) + at.row * p.lines.line;
  const int mine = at.place * (kRun + 1);
#pragma unroll 1
  for (int m = 0; m < Maps; ++m) {
    T sum[1][kRun] = {};
    const T* const map = in + m * p.lines.map;
    filter_row(
        sum, p.pass, shape, at.first, at.is_active,
        [&](int count, int extended) {
#pragma unroll 4
          for (int i = at.place; i < count; i += shape.threads) {
            const int position = p.pass.axis.source(extended + i);
            row[banked(i)] = position >= 0 ? map[position] : T(0);
          }
        },
        [&](int group, int place, T(&value)[1]) {
          value[0] = row[mine + group * (kRun + 1) + banked(place)];
        });
    if (!at.is_active) continue;
#pragma unroll
    for (int i = 0; i < kRun; ++i) results[m * shape.results() + mine + i] = sum[0][i];
  }
  __syncthreads();
  if (!at.is_active) return;

  // The derivatives of neighbouring columns lie side by side now. First what the reflection folds back.
  const int width = p.problem.columns.n, end = min(shape.threads * kRun, width - at.first);
  if (p.pass.folds) {
    const DeviceAxis& axis = p.pass.forward;
#pragma unroll 1
    for (int i = at.place; i < end; i += shape.threads) {
      const int column = at.first + i;
      if (!axis.is_folded(column)) continue;
      T sum[Maps] = {};
      const auto gather = [&](int extended) {
        const int first = max(0, extended + axis.pad - 2 * axis.radius);
        const int last = min(axis.output_length() - 1, extended + axis.pad);
        for (int o = first; o <= last; ++o) {
          const T tap = p.pass.forward_taps[extended + axis.pad - o];
#pragma unroll
          for (int m = 0; m < Maps; ++m) sum[m] += tap * in[m * p.lines.map + o];
        }
      };
      if (column >= 1 && column <= axis.pad) gather(-column);
      if (column <= axis.n - 2 && column >= axis.n - 1 - axis.pad) gather(2 * (axis.n - 1) - column);
#pragma unroll
      for (int m = 0; m < Maps; ++m) results[m * shape.results() + banked(i)] += sum[m];
    }
  }
  const Storage* const preds = at.of(p.problem.preds) + at.first * p.problem.preds.stride[3];
  const Storage* const target = at.of(p.problem.target) + at.first * p.problem.target.stride[3];
  Storage* const grad_preds = at.of(p.problem.grad_preds) + at.first * p.problem.grad_preds.stride[3];
#pragma unroll 4
  for (int i = at.place; i < end; i += shape.threads) {
    const T x = to_compute(preds[i * p.problem.preds.stride[3]]),
            y = to_compute(target[i * p.problem.target.stride[3]]);
    const T* const f = results + banked(i);
    const T by_p = f[shape.results()], by_difference = (x - y) * f[2 * shape.results()];
    store_as(grad_preds[i * p.problem.grad_preds.stride[3]], f[0] + ((y - at.pivot) * by_p + by_difference));
    if constexpr (Maps == 4) {
      store_as((at.of(p.problem.grad_target) +
                at.first * p.problem.grad_target.stride[3])[i * p.problem.grad_target.stride[3]],
               f[3 * shape.results()] + ((x - at.pivot) * by_p - by_difference));
    }
  }
}

}  // namespace ssim_fused
