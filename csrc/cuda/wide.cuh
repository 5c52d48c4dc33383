// The CUDA kernels for windows wider than the strip kernel's (strip.cuh), or padded by more than their
// radius: any radius, four passes over scratch memory in the compute type.
//
//   wide_moments   along the rows of preds and target: four moments   [planes, 4, H, Wo]
//   wide_formula   down the columns of those, formula, sums, map:     [planes, maps, Ho, Wo]
//   wide_down      the adjoint down the columns, in the moments' place: [planes, maps, H, Wo]
//   wide_gradient  the adjoint along the rows, and the gradients
//
// A block takes kWideThreads columns of one row of one plane.
#pragma once

#include <cstdint>

#include "../geometry.h"
#include "../ssim_math.h"
#include "device.cuh"
#include "picture.cuh"

namespace ssim_fused {

constexpr int kWideThreads = 128;

template <class Storage>
struct WideParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  int64_t first_plane;  // of this launch: scratch begins with it
  int maps;             // 0, 3 or 4
  const T *row_taps, *column_taps;
  T column_sum;  // of column_taps
  T* moments;
  T* derivatives;
};

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

// Where a block works. All threads of a block have to construct it: the pivot is found by one warp.
template <class Storage>
struct WidePlace {
  using T = ComputeOf<Storage>;
  int row, column;
  int64_t local_plane;  // in scratch
  int64_t image, channel;
  T pivot;

  SSIM_DEVICE WidePlace(const WideParams<Storage>& p, int row_count, int column_count, bool needs_pivot) {
    const int thread = threadIdx.x;
    const int across = (column_count + kWideThreads - 1) / kWideThreads;
    const int64_t line = blockIdx.x / static_cast<unsigned>(across);
    column = static_cast<int>(blockIdx.x % static_cast<unsigned>(across)) * kWideThreads + thread;
    row = static_cast<int>(line % row_count);
    local_plane = line / row_count;
    image = (p.first_plane + local_plane) / p.channels;
    channel = (p.first_plane + local_plane) % p.channels;
    pivot = T(0);
    // Zero is the best pivot for windows that see nothing but padding.
    const bool has_empty_windows = !p.columns.reflects && p.columns.pad > p.columns.radius;
    if (!needs_pivot || has_empty_windows) return;
    T* const shared = reinterpret_cast<T*>(shared_memory());
    if (thread < 32) {
      const T value = choose_pivot(p.target.plane(image, channel), p.target.stride[2], p.target.stride[3], 0,
                                   p.rows.n, 0, p.columns.n, thread);
      if (thread == 0) *shared = value;
    }
    __syncthreads();
    pivot = *shared;
    __syncthreads();  // `shared` may be used again
  }
};

// Calls each(output, tap) for the outputs whose derivatives reach input i, those by way of the reflection
// too.
template <class T, class F>
SSIM_DEVICE void for_each_adjoint_tap(const DeviceAxis& axis, const T* taps, int i, F&& each) {
  const auto gather = [&](int extended) {
    const int first = extended + axis.pad - 2 * axis.radius;
    const int begin = max(0, first), end = min(axis.output_length(), extended + axis.pad + 1);
    for (int o = begin; o < end; ++o) each(o, taps[extended + axis.pad - o]);
  };
  gather(i);
  if (!axis.reflects) return;
  if (i >= 1 && i <= axis.pad) gather(-i);
  if (i <= axis.n - 2 && i >= axis.n - 1 - axis.pad) gather(2 * (axis.n - 1) - i);
}

template <class Storage>
SSIM_KERNEL(kWideThreads, 1)
wide_moments_kernel(SSIM_PARAMS WideParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int length = p.columns.output_length();
  const WidePlace<Storage> place(p, p.rows.n, length, true);
  if (place.column >= length) return;
  const Storage* const preds = p.preds.plane(place.image, place.channel) + place.row * p.preds.stride[2];
  const Storage* const target = p.target.plane(place.image, place.channel) + place.row * p.target.stride[2];
  Moments<T> sum{};
  for (int k = 0; k <= 2 * p.columns.radius; ++k) {
    const int column = p.columns.source(place.column - p.columns.pad + k);
    const T raw_x = column >= 0 ? static_cast<T>(to_compute(preds[column * p.preds.stride[3]])) : T(0);
    const T raw_y = column >= 0 ? static_cast<T>(to_compute(target[column * p.target.stride[3]])) : T(0);
    const T difference = raw_x - raw_y, x = raw_x - place.pivot, y = raw_y - place.pivot;
    const T tap = p.column_taps[k];
    sum.a += tap * x;
    sum.b += tap * y;
    sum.p += tap * (x * y);
    sum.d += tap * (difference * difference);
  }
  const int64_t map = static_cast<int64_t>(p.rows.n) * length;
  T* const out =
      p.moments + 4 * place.local_plane * map + static_cast<int64_t>(place.row) * length + place.column;
  out[0] = sum.a;
  out[map] = sum.b;
  out[2 * map] = sum.p;
  out[3 * map] = sum.d;
}

template <class Storage>
SSIM_KERNEL(kWideThreads, 1)
wide_formula_kernel(SSIM_PARAMS WideParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int length = p.columns.output_length();
  const WidePlace<Storage> place(p, p.rows.output_length(), length, true);
  const int i = place.row, j = place.column;
  double sums[kWithConstants] = {};
  if (j < length) {
    const int64_t map = static_cast<int64_t>(p.rows.n) * length;
    const T* const in = p.moments + 4 * place.local_plane * map + j;
    const T pivot = place.pivot;
    Moments<T> sum{};
    for (int k = 0; k <= 2 * p.rows.radius; ++k) {
      const int row = p.rows.source(i - p.rows.pad + k);
      const T tap = p.row_taps[k];
      if (row < 0) {  // a row of zeros, less the pivot
        const T zero = -pivot * p.column_sum;
        sum.a += tap * zero;
        sum.b += tap * zero;
        sum.p -= tap * (zero * pivot);
        continue;
      }
      const T* const from = in + static_cast<int64_t>(row) * length;
      sum.a += tap * from[0];
      sum.b += tap * from[map];
      sum.p += tap * from[2 * map];
      sum.d += tap * from[3 * map];
    }
    const T c1 = formula_constant(p.constants ? p.constants[0] : p.c1);
    const T c2 = formula_constant(p.constants ? p.constants[1] : p.c2);
    const auto terms = local_terms(sum, pivot, c1, c2);
    const T similarity = terms.similarity();
    const bool is_cropped_in = i >= p.rows.pad && i < p.rows.output_length() - p.rows.pad &&
                               j >= p.columns.pad && j < length - p.columns.pad;
    sums[kSimilarity] = static_cast<double>(similarity);
    if (is_cropped_in) sums[kContrastSensitivity] = static_cast<double>(terms.contrast_sensitivity());
    if (p.map.data) {
      store_as(p.map.plane(place.image, place.channel)[i * p.map.stride[2] + j * p.map.stride[3]],
               similarity);
    }
    if (p.maps > 0 || p.wants_constants) {
      T of_similarity = p.of_similarity.of(place.image);
      if (p.grad_map.data) {
        of_similarity += static_cast<T>(to_compute(p.grad_map.plane(
            place.image, place.channel)[i * p.grad_map.stride[2] + j * p.grad_map.stride[3]]));
      }
      const T of_contrast = is_cropped_in ? p.of_contrast.of(place.image) : T(0);
      const auto by = constant_partials(terms, of_similarity, of_contrast);
      sums[kByC1] = static_cast<double>(by.c1);
      sums[kByC2] = static_cast<double>(by.c2);
      if (p.maps > 0) {
        const auto f = partials(terms, of_similarity, of_contrast);
        const int64_t pixels = static_cast<int64_t>(p.rows.output_length()) * length;
        T* const out =
            p.derivatives + p.maps * place.local_plane * pixels + static_cast<int64_t>(i) * length + j;
        out[0] = f.a;
        out[pixels] = f.p;
        out[2 * pixels] = f.d;
        if (p.maps == 4) out[3 * pixels] = f.b;
      }
    }
  }
  double* const out =
      p.partial +
      (p.first_plane * p.rows.output_length() * ((length + kWideThreads - 1) / kWideThreads) + blockIdx.x) *
          kWithConstants;
  add_up_block<kWideThreads>(sums, reinterpret_cast<double*>(shared_memory()), out, threadIdx.x);
}

template <class Storage>
SSIM_KERNEL(kWideThreads, 1)
wide_down_kernel(SSIM_PARAMS WideParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int length = p.columns.output_length();
  const WidePlace<Storage> place(p, p.rows.n, length, false);
  if (place.column >= length) return;
  const int64_t pixels = static_cast<int64_t>(p.rows.output_length()) * length;
  const int64_t out_pixels = static_cast<int64_t>(p.rows.n) * length;
  const T* const in = p.derivatives + p.maps * place.local_plane * pixels + place.column;
  T* const out = p.moments + p.maps * place.local_plane * out_pixels +
                 static_cast<int64_t>(place.row) * length + place.column;
  for (int m = 0; m < p.maps; ++m) {
    T sum = T(0);
    for_each_adjoint_tap(p.rows, p.row_taps, place.row, [&](int o, T tap) {
      sum += tap * in[m * pixels + static_cast<int64_t>(o) * length];
    });
    out[m * out_pixels] = sum;
  }
}

template <class Storage>
SSIM_KERNEL(kWideThreads, 1)
wide_gradient_kernel(SSIM_PARAMS WideParams<Storage> p) {
  using T = ComputeOf<Storage>;
  const int length = p.columns.output_length();
  const WidePlace<Storage> place(p, p.rows.n, p.columns.n, true);
  const int i = place.row, j = place.column;
  if (j >= p.columns.n) return;
  const int64_t pixels = static_cast<int64_t>(p.rows.n) * length;
  const T* const in = p.moments + p.maps * place.local_plane * pixels + static_cast<int64_t>(i) * length;
  T sum[4] = {};
  for_each_adjoint_tap(p.columns, p.column_taps, j, [&](int o, T tap) {
    for (int m = 0; m < p.maps; ++m) sum[m] += tap * in[m * pixels + o];
  });
  const T x =
      to_compute(p.preds.plane(place.image, place.channel)[i * p.preds.stride[2] + j * p.preds.stride[3]]);
  const T y =
      to_compute(p.target.plane(place.image, place.channel)[i * p.target.stride[2] + j * p.target.stride[3]]);
  const T by_difference = (x - y) * sum[2];
  store_as(
      p.grad_preds.plane(place.image, place.channel)[i * p.grad_preds.stride[2] + j * p.grad_preds.stride[3]],
      sum[0] + ((y - place.pivot) * sum[1] + by_difference));
  if (p.maps == 4) {
    store_as(p.grad_target.plane(place.image,
                                 place.channel)[i * p.grad_target.stride[2] + j * p.grad_target.stride[3]],
             sum[3] + ((x - place.pivot) * sum[1] - by_difference));
  }
}

constexpr int kWideShared = kWideThreads / 32 * kWithConstants * sizeof(double);

}  // namespace ssim_fused
