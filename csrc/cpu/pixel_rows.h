// The pixel term (math/pixel_term.h) of a row of both images: its sum, and its slopes added to the gradients.
// Functions of their own, one for each instruction set, that all marches share: a row is taken while it is in
// L1, and costs the marches no instance.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "../api/request.h"
#include "../math/pixel_term.h"
#include "instruction_set.h"
#include "lanes.h"
#include "problem.h"

namespace ssim_fused::cpu {

template <PixelTerm term, bool Masked, int Bytes, class T>
SSIM_INLINE double sum_pixels(const PixelRow<T>& row, int64_t count, T eps_squared, T weight) {
  using V = Lanes<T, Bytes>;
  constexpr int64_t kLanes = Bytes / sizeof(T);
  V sum{};
  double total = 0;
  int64_t i = 0;
  const auto at = [&]<class X>(const X& difference, const X& eps) SSIM_INLINE_LAMBDA {
    if constexpr (Masked) {
      return masked_pixel_term<term>(difference, load<X>(row.weights + i), eps);
    } else {
      return pixel_term<term>(difference, eps);
    }
  };
  for (; i + kLanes <= count; i += kLanes) {
    const auto phi = at(load<V>(row.x + i) - load<V>(row.y + i), broadcast<V>(eps_squared));
    sum += phi.value;
    if (row.grad_x) store(row.grad_x + i, load<V>(row.grad_x + i) + weight * phi.slope);
    if (row.grad_y) store(row.grad_y + i, load<V>(row.grad_y + i) - weight * phi.slope);
  }
  for (; i < count; ++i) {
    const auto phi = at(row.x[i] - row.y[i], eps_squared);
    total += static_cast<double>(phi.value);
    if (row.grad_x) row.grad_x[i] += weight * phi.slope;
    if (row.grad_y) row.grad_y[i] -= weight * phi.slope;
  }
  for (int64_t k = 0; k < kLanes; ++k) total += static_cast<double>(sum[k]);
  return total;
}

template <PixelTerm term, int Bytes, class T>
SSIM_INLINE double sum_row(const PixelRow<T>& row, int64_t count, T eps_squared, T weight) {
  if (row.weights) return sum_pixels<term, true, Bytes>(row, count, eps_squared, weight);
  return sum_pixels<term, false, Bytes>(row, count, eps_squared, weight);
}

template <int Bytes, class T>
SSIM_INLINE double take_row(PixelTerm term, const PixelRow<T>& row, int64_t count, T eps_squared, T weight) {
  return with_pixel_term(term, [&]<PixelTerm known>() SSIM_INLINE_LAMBDA {
    if constexpr (known == PixelTerm::none) return 0.0;
    if constexpr (known != PixelTerm::none) return sum_row<known, Bytes>(row, count, eps_squared, weight);
  });
}

template <class T>
double take_row_baseline(PixelTerm term, const PixelRow<T>& row, int64_t count, T eps_squared, T weight) {
  return take_row<16>(term, row, count, eps_squared, weight);
}

#if defined(SSIM_X86_TARGETS)
template <class T>
SSIM_TARGET_AVX2 double take_row_avx2(PixelTerm term, const PixelRow<T>& row, int64_t count, T eps_squared,
                                      T weight) {
  return take_row<32>(term, row, count, eps_squared, weight);
}
template <class T>
SSIM_TARGET_AVX512 double take_row_avx512(PixelTerm term, const PixelRow<T>& row, int64_t count,
                                          T eps_squared, T weight) {
  return take_row<64>(term, row, count, eps_squared, weight);
}
#endif

template <class T>
PixelRowFunction<T> select_pixel_rows() {
#if defined(SSIM_X86_TARGETS)
  if (std::is_same_v<T, float> && chosen_instruction_set() == InstructionSet::avx512)
    return take_row_avx512<T>;
  if (chosen_instruction_set() >= InstructionSet::avx2) return take_row_avx2<T>;
#endif
  return take_row_baseline<T>;
}

// `weights`: masked, of each image's pixels.
template <class T>
PixelTerms<T> pixel_terms(const PixelRequest& request, const std::vector<double>& weights = {}) {
  PixelTerms<T> terms{request.term, static_cast<T>(request.eps * request.eps),
                      static_cast<T>(request.slope_scale), select_pixel_rows<T>()};
  for (double weight : weights) terms.shares.push_back(static_cast<T>(weight > 0 ? 1 / weight : 0));
  return terms;
}

}  // namespace ssim_fused::cpu
