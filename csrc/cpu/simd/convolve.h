// Convolves a window with consecutive vectors: along a row in the order of interleave.h, or down a ring
// buffer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "outlined.h"

namespace ssim_fused::cpu {

constexpr int kOutputs = 8;  // adjacent outputs that are computed together

// The taps of a window. Each is stored as a vector of equal lanes, so that a multiplication can read it
// from memory.
template <class T>
struct Window {
  const T* taps;
  int64_t size;
  bool is_default;  // symmetric, with kDefaultSize taps: they are kept in registers
  // The outputs of a uniform window (`is_uniform`) share sums. Their factor is the sum of two parts,
  // because a single rounded number would bias every variance. If `factor` is 1, sums are not multiplied.
  bool is_uniform = false;
  T factor = T(1), rest = T(0);
};

constexpr int kDefaultSize = 11;  // taps of a Gaussian window with sigma 1.5

template <class T>
bool is_default_window(const std::vector<T>& taps) {
  return taps.size() == kDefaultSize && std::equal(taps.begin(), taps.end(), taps.rbegin());
}

// The inputs and outputs of a convolution: `fields` fields at `blocks` blocks of adjacent outputs. The
// inputs of a block are consecutive vectors. From vector `wrap` on, `ring` is subtracted from the address,
// because the ring buffer wraps around. `wrap` must be at least the number of outputs of a block minus one,
// and for the default window a multiple of kOutputs. Distances are in elements, `wrap` is in vectors.
template <class T>
struct Passage {
  int64_t blocks, fields;
  const T* in;
  int64_t in_block, in_field;  // distances to the next block and field
  T* out;
  int64_t out_block, out_field, out_step;  // out_step: to the next output of a block
  int64_t wrap = INT64_MAX, ring = 0;
};

// Computes adjacent outputs: output j from vectors j ... j + size - 1. Vectors outside an output's window
// are left out instead of multiplied by zero, so that a NaN does not spread beyond the window.
template <int outputs, class V, class T>
SSIM_INLINE void convolve(V (&sum)[outputs], const T* in, const Passage<T>& s, const Window<T>& window) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const auto at = [&](int64_t k)
                      SSIM_INLINE_LAMBDA { return load<V>(in + k * kLanes - (k >= s.wrap ? s.ring : 0)); };
  const auto tap = [&](int64_t k) SSIM_INLINE_LAMBDA { return load<V>(window.taps + k * kLanes); };
  unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] = V{}; });
  if (window.size < outputs - 1) {
    unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA {
      for (int64_t k = 0; k < window.size; ++k) sum[j] += at(j + k) * tap(k);
    });
    return;
  }
  // Each vector is loaded once, for all outputs whose window contains it.
  unrolled<outputs - 1>([&](auto k) SSIM_INLINE_LAMBDA {
    const V v = load<V>(in + k * kLanes);
    unrolled<k + 1>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] += v * tap(k - j); });
  });
  for (int64_t k = outputs - 1; k < window.size; ++k) {
    const V v = at(k);
    const T* last = window.taps + k * kLanes;
    hide(last);  // otherwise compilers keep all taps in registers and shift them with moves
    unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] += v * load<V>(last - j * kLanes); });
  }
  unrolled<outputs - 1>([&](auto e) SSIM_INLINE_LAMBDA {
    const V v = at(window.size + e);
    unrolled<outputs - 1 - e>([&](auto i)
                                  SSIM_INLINE_LAMBDA { sum[e + 1 + i] += v * tap(window.size - 1 - i); });
  });
}

// Computes adjacent outputs of the default window. `tap` holds the first half of its taps and the middle
// one.
template <int outputs, class V, class T>
SSIM_INLINE void convolve_default(V (&sum)[outputs], const T* in, const Passage<T>& s,
                                  const V (&tap)[kDefaultSize / 2 + 1]) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const T* const part[] = {in, in - (s.wrap <= kOutputs ? s.ring : 0),
                           in - (s.wrap <= 2 * kOutputs ? s.ring : 0)};
  static_assert(kDefaultSize + kOutputs - 1 <= 3 * kOutputs);
  unrolled<kDefaultSize + outputs - 1>([&](auto k) SSIM_INLINE_LAMBDA {
    const V v = load<V>(part[k / kOutputs] + k * kLanes);
    unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA {
      constexpr int place = k - j;
      if constexpr (place == 0) {
        sum[j] = v * tap[0];
      } else if constexpr (place > 0 && place < kDefaultSize) {
        sum[j] += v * tap[std::min(place, kDefaultSize - 1 - place)];
      }
    });
  });
}

// Computes the sums of adjacent outputs of a uniform window. All windows share the vectors from the first
// vector of the last window to the last vector of the first window, which are added once. To this sum each
// window adds its vectors before that range, accumulated from right to left, and those after it,
// accumulated from left to right. Eight outputs take size + 12 additions. A window has at least seven taps.
template <int outputs, class V, class T>
SSIM_INLINE void sum_uniform(V (&sum)[outputs], const T* in, const Passage<T>& s, int64_t size) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const auto at = [&](int64_t k)
                      SSIM_INLINE_LAMBDA { return load<V>(in + k * kLanes - (k >= s.wrap ? s.ring : 0)); };
  if constexpr (outputs == 8) {
    if (size == outputs - 1) {  // no vector is in all eight windows
      sum[6] = at(6);
      unrolled<6>([&](auto k)
                      SSIM_INLINE_LAMBDA { sum[5 - k] = sum[6 - k] + load<V>(in + (5 - k) * kLanes); });
      V after = at(7);
      unrolled<6>([&](auto k) SSIM_INLINE_LAMBDA {
        sum[k + 1] += after;
        after += at(8 + k);
      });
      sum[7] = after;
      return;
    }
  }
  V shared[2] = {at(outputs - 1), V{}};  // two, because an addition waits for the result of the one before
  const auto add = [&](const T* from, int64_t begin, int64_t end) SSIM_INLINE_LAMBDA {
    int64_t k = begin;
    for (; k + 1 < end; k += 2) {
      shared[0] += load<V>(from + k * kLanes);
      shared[1] += load<V>(from + (k + 1) * kLanes);
    }
    if (k < end) shared[0] += load<V>(from + k * kLanes);
  };
  const int64_t turn = std::clamp<int64_t>(s.wrap, outputs, size);
  add(in, outputs, turn);
  add(in - s.ring, turn, size);
  sum[outputs - 1] = shared[0] + shared[1];
  unrolled<outputs - 1>([&](auto k) SSIM_INLINE_LAMBDA {
    sum[outputs - 2 - k] = sum[outputs - 1 - k] + load<V>(in + (outputs - 2 - k) * kLanes);
  });
  V after{};
  unrolled<outputs - 1>([&](auto k) SSIM_INLINE_LAMBDA {
    after += at(size + k);
    sum[k + 1] += after;
  });
}

// Convolves all blocks and fields of a passage, in the loop for the kind of window.
template <class T, int Bytes, int outputs = kOutputs>
SSIM_INLINE void convolve_all(const Passage<T>& passage, const Window<T>& window_of_all) {
  outlined<Bytes>([s = passage, window = window_of_all]() SSIM_INLINE_LAMBDA {
    using V = Lanes<T, Bytes>;
    const auto each = [&](auto&& convolve_one) SSIM_INLINE_LAMBDA {
      for (int64_t block = 0; block < s.blocks; ++block) {
        const T* in = s.in + block * s.in_block;
        T* out = s.out + block * s.out_block;
        for (int64_t field = 0; field < s.fields; ++field, in += s.in_field, out += s.out_field) {
          V sum[outputs];
          convolve_one(sum, in);
          T* to = out;
          unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA {
            store(to, sum[j]);
            to += s.out_step;
          });
        }
      }
    };
    if (window.is_uniform) {
      const V factor = broadcast<V>(window.factor), rest = broadcast<V>(window.rest);
      if (window.factor == T(1)) {
        each([&](V(&sum)[outputs], const T* in) SSIM_INLINE_LAMBDA { sum_uniform(sum, in, s, window.size); });
      } else {
        each([&](V(&sum)[outputs], const T* in) SSIM_INLINE_LAMBDA {
          sum_uniform(sum, in, s, window.size);
          unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] = sum[j] * factor + sum[j] * rest; });
        });
      }
    } else if (window.is_default) {
      V tap[kDefaultSize / 2 + 1];
      unrolled<kDefaultSize / 2 + 1>(
          [&](auto k) SSIM_INLINE_LAMBDA { tap[k] = load<V>(window.taps + k * (Bytes / sizeof(T))); });
      each([&](V(&sum)[outputs], const T* in) SSIM_INLINE_LAMBDA { convolve_default(sum, in, s, tap); });
    } else {
      each([&](V(&sum)[outputs], const T* in) SSIM_INLINE_LAMBDA { convolve(sum, in, s, window); });
    }
  });
}

// Convolves a row of vectors, kOutputs outputs at a time and the remainder in smaller blocks.
template <class T, int Bytes>
SSIM_INLINE void convolve_row(int64_t vectors, int64_t fields, const T* in, int64_t in_field, T* out,
                              int64_t out_field, int64_t out_step, const Window<T>& window) {
  constexpr int64_t kLanes = Bytes / sizeof(T);
  int64_t done = 0;
  const auto convolve_blocks = [&]<int outputs>(std::integral_constant<int, outputs>) SSIM_INLINE_LAMBDA {
    const int64_t blocks = (vectors - done) / outputs;
    if (blocks == 0) return;
    convolve_all<T, Bytes, outputs>({blocks, fields, in + done * kLanes, outputs * kLanes, in_field,
                                     out + done * out_step, outputs * out_step, out_field, out_step},
                                    window);
    done += blocks * outputs;
  };
  convolve_blocks(std::integral_constant<int, kOutputs>{});
  convolve_blocks(std::integral_constant<int, 4>{});
  convolve_blocks(std::integral_constant<int, 2>{});
  convolve_blocks(std::integral_constant<int, 1>{});
}

}  // namespace ssim_fused::cpu
