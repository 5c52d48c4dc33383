// A row of outputs: which of them count, what each weighs in the derivatives, and sums over them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lanes.h"
#include "problem.h"

namespace ssim_fused::cpu {

struct Range {
  int64_t from, to;  // counted from output_begin
};

// Outputs [begin, end) without the crop.
template <class T>
SSIM_INLINE Range cropped(const Strip<T>& strip, int64_t begin, int64_t end) {
  return {std::max(begin, strip.problem.crop_begin) - strip.columns.output_begin,
          std::min(end, strip.problem.crop_end) - strip.columns.output_begin};
}

// Weights of the outputs of row q in the derivatives; `in_crop`: whether any count for the contrast
// sensitivity. Masked, `in_means` are their weights in the means.
template <bool Masked, class T>
SSIM_INLINE void upstream_weights(const Strip<T>& strip, int64_t q, bool in_crop, T* of_similarity,
                                  T* of_contrast, const T* in_means) {
  const Problem<T>& problem = strip.problem;
  const Columns& c = strip.columns;
  const int64_t count = c.output_end - c.output_begin;
  const T similarity = problem.grad_similarity[strip.plane.batch],
          contrast = problem.grad_contrast[strip.plane.batch];
  if (problem.grad_map) {
    problem.grad_map.read_into(of_similarity, problem.grad_map.offset(strip.plane), q, c.output_begin, count);
    for (int64_t i = 0; i < count; ++i) of_similarity[i] += Masked ? similarity * in_means[i] : similarity;
  } else {
    std::fill(of_similarity, of_similarity + count, similarity);
    for (int64_t i = 0; Masked && i < count; ++i) of_similarity[i] *= in_means[i];
  }
  std::fill(of_contrast, of_contrast + count, T(0));
  if (contrast != T(0) && in_crop) {
    const Range crop = cropped(strip, c.output_begin, c.output_end);
    if (crop.from < crop.to) std::fill(of_contrast + crop.from, of_contrast + crop.to, contrast);
    for (int64_t i = crop.from; Masked && i < crop.to; ++i) of_contrast[i] *= in_means[i];
  }
}

// The lanes of v, whose numbers are given, that lie in the range; elsewhere zero, whatever v has there.
template <class T, class V>
SSIM_INLINE V only(const V& v, const V& number, Range range) {
  return (number >= static_cast<T>(range.from)) & (number < static_cast<T>(range.to)) ? v : V{};
}

template <class T, class V>
SSIM_INLINE double total(const V& sum) {
  double result = 0;
  for (unsigned k = 0; k < sizeof(V) / sizeof(T); ++k) result += static_cast<double>(sum[k]);
  return result;
}

}  // namespace ssim_fused::cpu
