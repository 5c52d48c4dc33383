// The rows of a plane that one task owns, and the rows and outputs that it reads and computes for them.
// Every range of rows in the CPU kernels comes from here. The code is free of torch and reads no pixels, so
// that tests/tasks.cpp can check it for all small sizes.
//
// Each input row in [0, n) belongs to exactly one task, which computes its gradient and its pixel term. A
// task owns the outputs that are centred on its rows. If padding is wider than the window, the first and
// the last task also own the outputs that are centred outside the input. So each output of the plane
// belongs to exactly one task.
//
// If padding is narrower than the window ("valid"), no output is centred on the last radius - pad rows.
// These rows never form a task of their own: each task owns at least one output (`task_count`), whose
// window reaches the task's last row. So a march that sums the pixel terms of the rows it reads misses
// none.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>

#include "../../math/geometry.h"

namespace ssim_fused::cpu {

constexpr int64_t kStepRows = 8;  // rows per step
constexpr int64_t kSegment = 32;  // rows whose sums are kept together; a multiple of kStepRows

struct RowRange {
  int64_t begin, end;

  bool contains(int64_t row) const { return row >= begin && row < end; }
  int64_t length() const { return std::max<int64_t>(0, end - begin); }
};

struct TaskRows {
  RowRange rows;      // input rows owned: gradients and pixel terms
  RowRange outputs;   // outputs owned: values, sums, maps, and the moments of a slice
  RowRange computed;  // outputs computed, kStepRows per step; may end beyond the last output

  // `with_gradient`: the march also needs the derivatives at all outputs that see an owned row.
  TaskRows(const Axis& axis, RowRange rows, bool with_gradient) : rows(rows) {
    const int64_t length = axis.output_length();
    const auto output_at = [&](int64_t row) { return std::clamp<int64_t>(axis.output_at(row), 0, length); };
    outputs = {rows.begin == 0 ? 0 : output_at(rows.begin),
               rows.end == axis.n ? length : output_at(rows.end)};
    // Steps begin at the same outputs in every march, so that the division into tasks changes no bit.
    const int64_t first = with_gradient ? rows.begin + axis.pad - 2 * axis.radius : outputs.begin;
    computed.begin = std::max<int64_t>(first, 0) / kStepRows * kStepRows;
    computed.end = with_gradient ? std::max(rows.end + axis.pad, outputs.end) : outputs.end;
    assert(0 <= rows.begin && rows.begin < rows.end && rows.end <= axis.n);
    assert(0 <= outputs.begin && outputs.begin < outputs.end && outputs.end <= length);
    assert(computed.begin <= outputs.begin && outputs.end <= computed.end);
  }

  // Returns the extended rows that the windows of outputs q ... q + kStepRows - 1 see. No output sees rows
  // beyond the padding.
  static RowRange rows_seen(const Axis& axis, int64_t q) {
    const int64_t first = q - axis.pad;
    return {first, std::min(first + 2 * axis.radius + kStepRows, axis.n + axis.pad)};
  }

  // With the derivatives of outputs q ... q + kStepRows - 1, the gradients of some owned rows are complete.
  // Returns these rows.
  RowRange completed_rows(const Axis& axis, int64_t q) const {
    const int64_t first = q - axis.pad;
    return {std::max(first, rows.begin), std::min(first + kStepRows, rows.end)};
  }

  // Returns the index, among the task's segments, of the segment that counts an input row or an output
  // centred on it.
  int64_t segment_of(int64_t row) const {
    return (std::clamp(row, rows.begin, rows.end - 1) - rows.begin) / kSegment;
  }
};

// Returns the number of tasks of `rows_of_task` rows that an axis is divided into. The last task also owns
// the rows on which no output is centred.
inline int64_t task_count(const Axis& axis, int64_t rows_of_task) {
  const int64_t centres = axis.n - std::max<int64_t>(0, axis.radius - axis.pad);
  return std::max<int64_t>(1, (centres + rows_of_task - 1) / rows_of_task);
}

}  // namespace ssim_fused::cpu
