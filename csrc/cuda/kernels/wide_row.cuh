// The CUDA kernels for wide windows along the columns (wide_axis.cuh has the others): from pixels to moments,
// and from derivatives to gradients.
#pragma once

#include <cstdint>

#include "wide_axis.cuh"

namespace ssim_fused::cuda {

// A block processes `rows` rows, of each `threads` * kRun outputs, kRun per thread. Longer windows are
// applied kTapChunk taps at a time, since the inputs are staged in shared memory.
constexpr int kTapChunk = 64;
static_assert(kTapChunk % kRun == 0);

// Returns the index in shared memory of input i. The inputs of consecutive threads begin kRun elements apart,
// and an unused element after each kRun puts them in different banks.
SSIM_HOST_DEVICE int banked(int i) { return i + i / kRun; }

struct RowShape {
  int threads;       // threads per row
  int rows;          // rows per block
  int64_t segments;  // blocks per row
  int staged;        // elements per row in shared memory, padding included
  SSIM_HOST_DEVICE int results() const { return banked(threads * kRun); }  // of the outputs of a row
};

template <class Storage, bool Masked>
struct RowParams {
  using T = ComputeOf<Storage>;
  ProblemOf<Storage, Masked> problem;
  RowShape shape;
  WideAxis<T> pass;
  Lines<T> lines;                  // the scratch that is written, or read by the adjoint
  int64_t first_slice, end_slice;  // of this launch, counted over the volumes of the slab
  int64_t first_volume;
  const T* pivots;  // [B * C]; null: zeros
};

// The position of a thread.
template <class Storage>
struct RowPlace {
  int64_t volume, slice;  // relative to the slab
  int64_t image, channel;
  int row, slot, first, place;  // `first` output of the block, `place` of the thread in its row
  bool is_active;
  ComputeOf<Storage> pivot;

  template <bool Masked>
  SSIM_DEVICE explicit RowPlace(const RowParams<Storage, Masked>& p) {
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
  SSIM_DEVICE auto of(const DeviceImage<Element>& array) const {
    return array.plane(image, channel) + (slice * array.slice_stride + row * array.stride[2]);
  }
  // Returns the weight of a column's pixel in the windows.
  SSIM_DEVICE ComputeOf<Storage> weight(const MaskedProblem<Storage>& problem, int column) const {
    using T = ComputeOf<Storage>;
    if (!problem.weighs_windows) return T(1);
    return problem.template weight<T>(image, channel, static_cast<int>(slice), row, column);
  }
};

// Filters kTapChunk taps at a time. stage(count, extended) copies `count` inputs to shared memory, of which
// element 0 is that at extended position `extended`. load(group, place, value) then reads the thread's
// inputs.
template <int Fields, class T, class Stage, class Load>
SSIM_DEVICE void filter_row(T (&sum)[Fields][kRun], const WideAxis<T>& pass, const RowShape& shape, int first,
                            bool is_active, Stage&& stage, Load&& load) {
  const int taps = 2 * pass.axis.radius + 1;
  for (int begin = 0; begin < taps; begin += kTapChunk) {
    const int count = min(kTapChunk, taps - begin);
    __syncthreads();  // all threads have read the previous chunk
    if (is_active) stage(shape.threads * kRun + count - 1, first - pass.axis.pad + begin);
    __syncthreads();
    if (is_active) filter_run(sum, pass.taps + begin, count, load);
  }
}

template <class Storage, bool Masked>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_moments_kernel(SSIM_PARAMS RowParams<Storage, Masked> p) {
  using T = ComputeOf<Storage>;
  constexpr int kFields = moment_fields(Masked);
  const RowPlace<Storage> at(p);
  const RowShape& shape = p.shape;
  T* const x_of_row = reinterpret_cast<T*>(shared_memory()) + at.slot * shape.staged;
  T* const y_of_row = x_of_row + shape.rows * shape.staged;
  T* const m_of_row = y_of_row + shape.rows * shape.staged;  // used if `Masked`
  const int mine = at.place * (kRun + 1);

  T sum[kFields][kRun] = {};
  filter_row(
      sum, p.pass, shape, at.first, at.is_active,
      [&](int count, int extended) {
        const auto preds = at.of(p.problem.preds), target = at.of(p.problem.target);
#pragma unroll 4
        for (int i = at.place; i < count; i += shape.threads) {
          const int column = p.pass.axis.source(extended + i);
          const bool is_inside = column >= 0;
          x_of_row[banked(i)] =
              is_inside ? static_cast<T>(to_compute(preds[column * p.problem.preds.stride[3]])) : T(0);
          y_of_row[banked(i)] =
              is_inside ? static_cast<T>(to_compute(target[column * p.problem.target.stride[3]])) : T(0);
          if constexpr (Masked) m_of_row[banked(i)] = at.weight(p.problem, column);
        }
      },
      [&](int group, int place, T(&value)[kFields]) {
        const int i = mine + group * (kRun + 1) + banked(place);
        Moments<T> pixel;
        if constexpr (Masked) {
          pixel = masked_moments(x_of_row[i], y_of_row[i], at.pivot, m_of_row[i]);
          value[kWindowWeight] = m_of_row[i];
        } else {
          pixel = pixel_moments(x_of_row[i], y_of_row[i], at.pivot);
        }
        to_fields(pixel, [&](int f, T of_field) { value[f] = of_field; });
      });

  // Results go through shared memory, so that consecutive threads write consecutive elements.
  const int length = p.pass.axis.output_length();
  T* const out = p.lines.at(at.volume, at.slice, 0) + (at.row * p.lines.line + at.first);
#pragma unroll
  for (int m = 0; m < kFields; m += 2) {
    const bool has_two = m + 1 < kFields;
    __syncthreads();
    if (at.is_active) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        x_of_row[mine + i] = sum[m][i];
        if (has_two) y_of_row[mine + i] = sum[has_two ? m + 1 : m][i];
      }
    }
    __syncthreads();
    if (!at.is_active) continue;
#pragma unroll
    for (int n = 0; n < kRun; ++n) {
      const int i = at.place + n * shape.threads;
      if (at.first + i >= length) break;
      out[m * p.lines.field + i] = x_of_row[banked(i)];
      if (has_two) out[(m + 1) * p.lines.field + i] = y_of_row[banked(i)];
    }
  }
}

template <class Storage, GradientsOf gradients, bool Masked>
struct GradientParams : RowParams<Storage, Masked> {};

template <class Storage, GradientsOf gradients, bool Masked>
SSIM_KERNEL(kWideThreads, kWideBlocks<ComputeOf<Storage>>)
wide_gradient_kernel(SSIM_PARAMS GradientParams<Storage, gradients, Masked> p) {
  using T = ComputeOf<Storage>;
  constexpr int kFields = derivative_fields(gradients);
  const RowPlace<Storage> at(p);
  const RowShape& shape = p.shape;
  T* const row = reinterpret_cast<T*>(shared_memory()) + at.slot * shape.staged;
  T* const results =
      reinterpret_cast<T*>(shared_memory()) + shape.rows * shape.staged + at.slot * kFields * shape.results();
  const T* const in = p.lines.at(at.volume, at.slice, 0) + at.row * p.lines.line;
  const int mine = at.place * (kRun + 1);
#pragma unroll 1
  for (int m = 0; m < kFields; ++m) {
    T sum[1][kRun] = {};
    const T* const field = in + m * p.lines.field;
    filter_row(
        sum, p.pass, shape, at.first, at.is_active,
        [&](int count, int extended) {
#pragma unroll 4
          for (int i = at.place; i < count; i += shape.threads) {
            const int position = p.pass.axis.source(extended + i);
            row[banked(i)] = position >= 0 ? field[position] : T(0);
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

  // Shared memory now has the derivatives of consecutive columns next to each other. Add what reflection
  // folds back before the gradients are computed.
  const int width = p.problem.columns.n, end = min(shape.threads * kRun, width - at.first);
  if (p.pass.folds) {
    const DeviceAxis& axis = p.pass.forward;
#pragma unroll 1
    for (int i = at.place; i < end; i += shape.threads) {
      const int column = at.first + i;
      if (!axis.is_folded(column)) continue;
      T sum[kFields] = {};
      const auto add_beyond = [&](int extended) {
        const int first = max(0, extended + axis.pad - 2 * axis.radius);
        const int last = min(axis.output_length() - 1, extended + axis.pad);
        for (int o = first; o <= last; ++o) {
          const T tap = p.pass.forward_taps[extended + axis.pad - o];
#pragma unroll
          for (int m = 0; m < kFields; ++m) sum[m] += tap * in[m * p.lines.field + o];
        }
      };
      if (column >= 1 && column <= axis.pad) add_beyond(-column);
      if (column <= axis.n - 2 && column >= axis.n - 1 - axis.pad) add_beyond(2 * (axis.n - 1) - column);
#pragma unroll
      for (int m = 0; m < kFields; ++m) results[m * shape.results() + banked(i)] += sum[m];
    }
  }
  const auto preds = at.of(p.problem.preds) + at.first * p.problem.preds.stride[3];
  const auto target = at.of(p.problem.target) + at.first * p.problem.target.stride[3];
  KeptAs<Storage>* const grad_preds = at.of(p.problem.grad_preds) + at.first * p.problem.grad_preds.stride[3];
#pragma unroll 4
  for (int i = at.place; i < end; i += shape.threads) {
    const T x = to_compute(preds[i * p.problem.preds.stride[3]]),
            y = to_compute(target[i * p.problem.target.stride[3]]);
    const T* const f = results + banked(i);
    const auto partials =
        partials_of_fields<gradients, T>([&](int field) { return f[field * shape.results()]; });
    PixelGradient<T> by;
    if constexpr (Masked) {
      by = masked_pixel_gradient(x, y, at.pivot, partials, at.weight(p.problem, at.first + i));
    } else {
      by = pixel_gradient(x, y, at.pivot, partials);
    }
    if (p.problem.pixel_term.adds_slopes()) {
      T slope = p.problem.pixel_term.weight;
      if constexpr (Masked) {
        const T weight = p.problem.template weight<T>(at.image, at.channel, static_cast<int>(at.slice),
                                                      at.row, at.first + i);
        slope *= p.problem.template share<T>(at.image, kAllPixels) *
                 p.problem.pixel_term.masked(x, y, weight).slope;
      } else {
        slope *= p.problem.pixel_term.of(x, y).slope;
      }
      by.by_x += slope;
      by.by_y -= slope;
    }
    store_as(grad_preds[i * p.problem.grad_preds.stride[3]], by.by_x);
    if constexpr (gradients == GradientsOf::both) {
      store_as((at.of(p.problem.grad_target) +
                at.first * p.problem.grad_target.stride[3])[i * p.problem.grad_target.stride[3]],
               by.by_y);
    }
  }
}

}  // namespace ssim_fused::cuda
