// A window over vectors that lie one behind the other: along a row in the order of interleave.h, or down a
// ring.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "outlined.h"

namespace ssim_fused::cpu {

constexpr int kOutputs = 8;  // of a window at neighbouring places, at a time

// A window's taps, each a vector of its own of equal lanes: so a multiplication reads it as it lies.
template <class T>
struct Window {
  const T* taps;
  int64_t size;
  bool is_default;  // symmetric, of kDefaultSize taps: those are kept in registers
  // Of a uniform window (`is_uniform`), whose outputs share sums: the factor of a sum, in two parts, since
  // one rounded number would bias every variance. One: sums are left as they are.
  bool is_uniform = false;
  T factor = T(1), rest = T(0);
};

constexpr int kDefaultSize = 11;  // sigma 1.5

template <class T>
bool is_default_window(const std::vector<T>& taps) {
  return taps.size() == kDefaultSize && std::equal(taps.begin(), taps.end(), taps.rbegin());
}

// Where a window has its inputs and leaves its sums: of some fields, at some blocks of neighbouring outputs.
// The inputs of a block are vectors that lie one behind the other, but from vector `wrap` on they go on
// `ring` before their place: of more outputs than one not before the last begins, of the default window at a
// multiple of kOutputs. All in elements but `wrap`.
template <class T>
struct Passage {
  int64_t blocks, fields;
  const T* in;
  int64_t in_block, in_field;  // from one to the next
  T* out;
  int64_t out_block, out_field, out_step;  // out_step: from one output of a block to the next
  int64_t wrap = INT64_MAX, ring = 0;
};

// Of neighbouring outputs; output j is of vectors j ... j + size - 1. What lies outside the window is left
// out, not multiplied by zero, so that a NaN does not reach beyond it.
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
  // A vector is loaded once for all outputs that it is in the window of.
  unrolled<outputs - 1>([&](auto k) SSIM_INLINE_LAMBDA {
    const V v = load<V>(in + k * kLanes);
    unrolled<k + 1>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] += v * tap(k - j); });
  });
  for (int64_t k = outputs - 1; k < window.size; ++k) {
    const V v = at(k);
    const T* last = window.taps + k * kLanes;
    hide(last);  // else compilers keep all taps in registers, and move them from one to the next
    unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA { sum[j] += v * load<V>(last - j * kLanes); });
  }
  unrolled<outputs - 1>([&](auto e) SSIM_INLINE_LAMBDA {
    const V v = at(window.size + e);
    unrolled<outputs - 1 - e>([&](auto i)
                                  SSIM_INLINE_LAMBDA { sum[e + 1 + i] += v * tap(window.size - 1 - i); });
  });
}

// The same under the default window, of which `tap` has one half and the middle.
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

// The sums under a uniform window. All windows see the vectors from the last one's first to the first one's
// last; each adds those before that, from the right, and those after it, from the left: size + 12 additions
// for eight outputs.
template <int outputs, class V, class T>
SSIM_INLINE void sum_uniform(V (&sum)[outputs], const T* in, const Passage<T>& s, int64_t size) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const auto at = [&](int64_t k)
                      SSIM_INLINE_LAMBDA { return load<V>(in + k * kLanes - (k >= s.wrap ? s.ring : 0)); };
  if constexpr (outputs == 8) {
    if (size == outputs - 1) {  // nothing is shared by all
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
  if (size < outputs) {
    unrolled<outputs>([&](auto j) SSIM_INLINE_LAMBDA {
      sum[j] = at(j);
      for (int64_t k = 1; k < size; ++k) sum[j] += at(j + k);
    });
    return;
  }
  V shared[2] = {at(outputs - 1), V{}};  // two, since an addition waits for the one before
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

// Along a row of vectors, kOutputs at a time, and what is left in smaller blocks.
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
