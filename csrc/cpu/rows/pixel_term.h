// Computes the pixel term (math/pixel_term.h) of a row of both images: returns its sum, and adds its slopes
// to the gradients. All marches share these functions, one per instruction set. A march calls them while
// the row is in L1, and needs no additional instances.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "../../api/request.h"
#include "../../math/pixel_term.h"
#include "../pass_spec.h"
#include "../simd/instruction_set.h"
#include "../simd/lanes.h"

namespace ssim_fused::cpu {

template <PixelTerm term, bool Masked, int Bytes, class T>
SSIM_INLINE double sum_pixels(const TermRow<T>& row, int64_t count, T eps_squared, T weight) {
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
SSIM_INLINE double sum_row(const TermRow<T>& row, int64_t count, T eps_squared, T weight) {
  if (row.weights) return sum_pixels<term, true, Bytes>(row, count, eps_squared, weight);
  return sum_pixels<term, false, Bytes>(row, count, eps_squared, weight);
}

template <int Bytes, class T>
SSIM_INLINE double add_row(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared, T weight) {
  return with_pixel_term(term, [&]<PixelTerm known>() SSIM_INLINE_LAMBDA {
    if constexpr (known == PixelTerm::none) return 0.0;
    if constexpr (known != PixelTerm::none) return sum_row<known, Bytes>(row, count, eps_squared, weight);
  });
}

template <class T>
double add_row_baseline(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared, T weight) {
  return add_row<16>(term, row, count, eps_squared, weight);
}

#if defined(SSIM_X86_TARGETS)
template <class T>
SSIM_TARGET_AVX2 double add_row_avx2(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared,
                                     T weight) {
  return add_row<32>(term, row, count, eps_squared, weight);
}
template <class T>
SSIM_TARGET_AVX512 double add_row_avx512(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared,
                                         T weight) {
  return add_row<64>(term, row, count, eps_squared, weight);
}
#endif

template <class T>
TermRowFunction<T> select_term_rows() {
#if defined(SSIM_X86_TARGETS)
  if (std::is_same_v<T, float> && chosen_instruction_set() == InstructionSet::avx512)
    return add_row_avx512<T>;
  if (chosen_instruction_set() >= InstructionSet::avx2) return add_row_avx2<T>;
#endif
  return add_row_baseline<T>;
}

// `weights`: with a mask, the sum of the weights of each image's pixels; otherwise empty.
template <class T>
PixelTermParams<T> pixel_term_params(const PixelRequest& request, const std::vector<double>& weights = {}) {
  PixelTermParams<T> terms{request.term, static_cast<T>(request.eps * request.eps),
                           static_cast<T>(request.slope_scale), select_term_rows<T>()};
  for (double weight : weights) terms.shares.push_back(static_cast<T>(weight > 0 ? 1 / weight : 0));
  return terms;
}

}  // namespace ssim_fused::cpu
