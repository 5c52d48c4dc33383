// The order of a strip's columns in memory. A window along the row finds its columns in the same way as a
// window down the rows finds its rows: as consecutive, aligned vectors. To this end a row is cut into
// stretches of equal length, one for each lane, and lane l of vector i holds column i of stretch l:
//
//     columns  0 1 2 3 4 5 6 7 8 9 a b   of a row, for four lanes: stretches of three
//     vectors  0 3 6 9 | 1 4 7 a | 2 5 8 b
//
// The next column to the right is in the next vector. To the right of the last vector lies the first one
// again, shifted by one lane. Only windows along the row and conversions from and to natural order depend
// on this order.
#pragma once

#include <cstdint>
#include <utility>

#include "lanes.h"

namespace ssim_fused::cpu {

// One step of a transpose: exchanges the off-diagonal blocks of two rows of a square matrix that are
// `distance` rows apart.
template <int distance, class V>
SSIM_INLINE void exchange(V& upper, V& lower) {
  constexpr int kLanes = sizeof(V) / sizeof(upper[0]);
  [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    const V left = __builtin_shufflevector(upper, lower, (I & distance ? kLanes + I - distance : I)...);
    lower = __builtin_shufflevector(upper, lower, (I & distance ? kLanes + I : I + distance)...);
    upper = left;
  }(std::make_integer_sequence<int, kLanes>{});
}

// Transposes four rows as blocks of 4x4 elements; a row of a block has 16 bytes. Takes half the
// instructions of exchanges at distances two and one.
template <class V>
SSIM_INLINE void transpose_quads(V& a, V& b, V& c, V& d) {
  constexpr int kLanes = sizeof(V) / sizeof(a[0]);
  [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    const auto pairs = [](const V& x, const V& y,
                          auto from) SSIM_INLINE_LAMBDA {  // `from`: the lower or upper half of each quad
      return __builtin_shufflevector(x, y, ((I & ~3) + from + (I & 3) / 2 + (I & 1 ? kLanes : 0))...);
    };
    const auto halves = [](const V& x, const V& y, auto from) SSIM_INLINE_LAMBDA {
      return __builtin_shufflevector(x, y, ((I & ~3) + from + (I & 1) + (I & 2 ? kLanes : 0))...);
    };
    constexpr std::integral_constant<int, 0> lower;
    constexpr std::integral_constant<int, 2> upper;
    const V ab = pairs(a, b, lower), cd = pairs(c, d, lower), ab2 = pairs(a, b, upper),
            cd2 = pairs(c, d, upper);
    a = halves(ab, cd, lower);
    b = halves(ab, cd, upper);
    c = halves(ab2, cd2, lower);
    d = halves(ab2, cd2, upper);
  }(std::make_integer_sequence<int, kLanes>{});
}

template <int distance, int lanes, class V>
SSIM_INLINE void transpose_by(V (&rows)[lanes]) {
  if constexpr (distance == 2 && sizeof(rows[0][0]) == 4) {
    unrolled<lanes / 4>([&](auto i) SSIM_INLINE_LAMBDA {
      transpose_quads(rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]);
    });
  } else if constexpr (distance > 0) {
    unrolled<lanes>([&](auto i) SSIM_INLINE_LAMBDA {
      if constexpr ((i & distance) == 0) exchange<distance>(rows[i], rows[i + distance]);
    });
    transpose_by<distance / 2>(rows);
  }
}

template <int lanes, class V>
SSIM_INLINE void transpose(V (&rows)[lanes]) {
  transpose_by<lanes / 2>(rows);
}

// Shift a vector by one lane. Each lane gets the value of the lane before it (after it); the first (last)
// lane gets that of `end`.
template <class V>
SSIM_INLINE V from_lane_before(const V& v, const V& end) {
  constexpr int kLanes = sizeof(V) / sizeof(v[0]);
  return [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    return __builtin_shufflevector(v, end, (I == 0 ? kLanes : I - 1)...);
  }(std::make_integer_sequence<int, kLanes>{});
}
template <class V>
SSIM_INLINE V from_lane_after(const V& v, const V& end) {
  constexpr int kLanes = sizeof(V) / sizeof(v[0]);
  return [&]<int... I>(std::integer_sequence<int, I...>) SSIM_INLINE_LAMBDA {
    return __builtin_shufflevector(v, end, (I + 1 == kLanes ? 2 * kLanes - 1 : I + 1)...);
  }(std::make_integer_sequence<int, kLanes>{});
}

// Converts a row from natural order: lane l of vector i gets column l * stretch + i. `vectors` must be a
// multiple of the number of lanes.
template <class V, class T>
SSIM_INLINE void interleave(const T* row, int64_t stretch, int64_t vectors, T* out) {
  constexpr int kLanes = sizeof(V) / sizeof(T);
  for (int64_t i = 0; i < vectors; i += kLanes) {
    V block[kLanes];
    unrolled<kLanes>([&](auto l) SSIM_INLINE_LAMBDA { block[l] = load<V>(row + l * stretch + i); });
    transpose(block);
    unrolled<kLanes>([&](auto l) SSIM_INLINE_LAMBDA { store(out + (i + l) * kLanes, block[l]); });
  }
}

// Converts a row to natural order. The last block comes first, because what it writes beyond the end of
// each stretch is then overwritten by the first block, which writes the beginning of the next stretch.
template <class V, class T>
SSIM_INLINE void deinterleave(const T* in, int64_t stretch, T* row) {
  constexpr int kLanes = sizeof(V) / sizeof(T);
  for (int64_t i = (stretch - 1) / kLanes * kLanes; i >= 0; i -= kLanes) {
    V block[kLanes];
    unrolled<kLanes>([&](auto l) SSIM_INLINE_LAMBDA { block[l] = load<V>(in + (i + l) * kLanes); });
    transpose(block);
    unrolled<kLanes>([&](auto l) SSIM_INLINE_LAMBDA { store(row + l * stretch + i, block[l]); });
  }
}

// Fills the halo of a row, vectors [-reach, 0) and [stretch, stretch + reach), with the columns of the
// stretches before and after. Lanes of the halo beyond the ends of the row keep their values, or mirror the
// columns at that end.
template <class V, class T>
SSIM_INLINE void add_neighbours(T* row, int64_t stretch, int64_t reach, bool mirrors_first,
                                bool mirrors_last) {
  constexpr int64_t kLanes = sizeof(V) / sizeof(T);
  const int64_t row_length = stretch * kLanes, to_first_end = mirrors_first ? 1 : -1,
                to_last_end = mirrors_last ? -1 : 1;
  T* const last = row + row_length - kLanes;
  for (int64_t k = kLanes; k <= reach * kLanes; k += kLanes) {
    const V first_end = load<V>(row + to_first_end * k), last_end = load<V>(last + to_last_end * k);
    store(row - k, from_lane_before(load<V>(row + row_length - k), first_end));
    store(last + k, from_lane_after(load<V>(last + k - row_length), last_end));
  }
}

}  // namespace ssim_fused::cpu
