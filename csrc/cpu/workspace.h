// What a march keeps between raw pixels and results: O(strip width x window) elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../math/pass.h"
#include "problem.h"
#include "scratch.h"

namespace ssim_fused::cpu {

// Row buffers for one strip, carved out of one allocation. Nothing is initialised: lanes and rows that no
// pixel wrote reach no result.
template <class T>
class Workspace {
 public:
  Workspace(const Problem<T>& problem, const Columns& c, Pass pass, int fields)
      : outputs(padded(c.output_end - c.output_begin)),
        raw(padded(outputs + 2 * problem.columns.radius)),
        extended(padded(c.extended_end - c.extended_begin)),
        // One vector more, which the last vector of outputs may reach into.
        derivative_columns(padded(extended + 2 * problem.columns.radius) + padded(1)),
        // Room for several steps before the last 2 radius rows move back to the front.
        ring_rows(2 * problem.rows.radius + std::max<int64_t>(16 * kStepRows, problem.rows.radius / 2)),
        storage_(carve(nullptr, problem, pass, fields)) {
    carve(storage_.get(), problem, pass, fields);
  }

  // A row of derivatives but for `count` columns from `margin` on.
  void zero_around(T* row, int64_t margin, int64_t count) const {
    std::fill(row, row + margin, T(0));
    if (margin + count < derivative_columns) std::fill(row + margin + count, row + derivative_columns, T(0));
  }

  // Row lengths, whole cache lines.
  const int64_t outputs, raw, extended, derivative_columns;
  const int64_t ring_rows;
  // Shapes: `fields` is the number of derivatives.
  T* staged;           // [4, raw]: what the pixels of one row add to the moments; masked [5, raw]
  T* moments;          // [ring_rows, 4, outputs]; masked kMaskedRing
  T* derivative_rows;  // [ring_rows, fields, derivative_columns]
  T* column_sums;      // [kStepRows, fields, derivative_columns]
  T* gathered;         // [fields, extended]
  T* pixels;           // [2, extended]: x' and y' of a gradient row
  T* gradient;         // [2, extended]
  T* values;           // [kStepRows, outputs]: the map
  T* weights;          // [kStepRows, 2, outputs]: upstream weights of similarity and contrast sensitivity
  T* folded_taps;      // [2 radius + 1]
  T* pixel_weights;    // [extended]; only where masked

 private:
  static int64_t padded(int64_t n) {
    constexpr int64_t lanes = kLine / sizeof(T);
    return (n + lanes - 1) / lanes * lanes;
  }

  // Sets the pointers; the number of elements from the first to the last.
  int64_t carve(T* const begin, const Problem<T>& problem, Pass pass, int fields) {
    int64_t used = 0;
    const auto part = [&](T*& pointer, int64_t elements) {
      pointer = begin + used;
      used += elements;
    };
    part(staged, problem.moment_fields() * raw);
    part(moments,
         pass == Pass::gradient ? 0 : ring_rows * (problem.mask ? kMaskedRing : kPlainMoments) * outputs);
    part(derivative_rows, ring_rows * fields * derivative_columns);
    part(column_sums, kStepRows * fields * derivative_columns);
    part(gathered, fields * extended);
    part(pixels, 2 * extended);
    part(gradient, 2 * extended);
    part(values, kStepRows * outputs);
    part(weights, kStepRows * 2 * outputs);
    part(folded_taps, padded(2 * problem.rows.radius + 1));
    part(pixel_weights, problem.mask ? extended : 0);
    return used + padded(1);  // which the last vector of a row may reach into
  }

  const Scratch<T> storage_;
};

}  // namespace ssim_fused::cpu
