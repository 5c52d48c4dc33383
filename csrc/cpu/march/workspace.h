// Buffers of a march between raw pixels and results: O(strip width x window) elements.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "../../math/pass.h"
#include "../pass_spec.h"
#include "../scratch.h"
#include "../simd/convolve.h"

namespace ssim_fused::cpu {

// The positions of a strip's row: its input columns, the columns that its outputs are centred on, and those
// that reflect back, from column `origin` on. In memory a row is `vectors` vectors of `lanes` lanes, in the
// order of interleave.h. Along the depth, where no window lies along the row, it can be in natural order.
struct Positions {
  int64_t origin, count;
  int64_t lanes, vectors;

  Positions(const Axis& axis, const Columns& c, bool gradient, int lanes) : lanes(lanes) {
    origin = axis.centre(c.output_begin);
    int64_t end = axis.centre(c.output_end);
    if (gradient) {
      origin = std::min(origin, c.extended_begin);
      end = std::max(end, c.extended_end);
    }
    count = end - origin;
    vectors = vectors_of(count, lanes);
  }

  static int64_t vectors_of(int64_t count, int lanes) {
    return std::max<int64_t>(1, (count + lanes - 1) / lanes);
  }

  int64_t of_column(int64_t column) const { return column - origin; }

  // Returns the index of a position in a row in the order of interleave.h. Positions beyond the ends of the
  // row lie in its halo, in the first and the last lane.
  int64_t place(int64_t position) const {
    const int64_t lane = std::clamp<int64_t>(position / vectors, 0, lanes - 1);
    return (position - lane * vectors) * lanes + lane;
  }
};

// How a strip at an end of the image mirrors columns (gradients.h). If the first lane begins with the
// image's first column, or the last lane ends with its last, add_neighbours mirrors that end. Otherwise
// single elements are copied.
struct MirroredColumns {
  struct Copy {
    int64_t from, to;
  };
  bool by_first_lane, by_last_lane;
  std::vector<int64_t> ends;  // first and last column: indices in a row of `column_sums`, as in `copies`
  std::vector<Copy> copies;

  MirroredColumns(const Axis& axis, const Columns& c, const Positions& positions)
      : by_first_lane(c.begin == 0 && positions.origin == 0 && positions.vectors > axis.radius),
        by_last_lane(c.end == axis.n && positions.vectors > axis.radius &&
                     positions.of_column(axis.n) == positions.lanes * positions.vectors) {
    const auto mirror = [&](int64_t end, int64_t direction, bool by_lane) {
      ends.push_back(positions.place(end));
      for (int64_t k = direction; !by_lane && std::abs(k) <= axis.radius; k += direction) {
        copies.push_back({positions.place(end - k), positions.place(end + k)});
      }
    };
    if (c.begin == 0) mirror(positions.of_column(0), -1, by_first_lane);
    if (c.end == axis.n) mirror(positions.of_column(axis.n - 1), 1, by_last_lane);
  }
};

// Buffers for one strip, carved from one allocation. Nothing is initialized: values in lanes and rows that
// no pixel wrote reach no result.
template <class T>
class Workspace {
 public:
  Workspace(const PassSpec<T>& spec, const Columns& c, Pass pass, GradientsOf gradients, int lanes)
      : positions(spec.columns, c, gradients != GradientsOf::none, lanes),
        reach(spec.columns.radius),
        is_row(spec.columns.mirrors() && positions.origin == 0 && positions.count == spec.columns.n &&
               positions.count == lanes * positions.vectors && positions.vectors > reach),
        raw(whole_blocks(std::max(positions.vectors + 2 * reach, reach + padded_vectors()))),
        natural(lanes * positions.vectors + raw),
        slots((2 * spec.rows.radius + 2 * kStepRows - 1) / kStepRows * kStepRows),
        mirrored(spec.mirrors(1) && gradients != GradientsOf::none
                     ? std::optional<MirroredColumns>(std::in_place, spec.columns, c, positions)
                     : std::nullopt),
        is_default{is_default_window(spec.taps[0]), is_default_window(spec.taps[1])},
        pixel_rows(pass == Pass::image && gradients != GradientsOf::none ? 2 * spec.rows.radius + kStepRows
                                                                         : 1),
        storage_(carve(nullptr, spec, pass, derivative_fields(gradients))) {
    carve(storage_.get(), spec, pass, derivative_fields(gradients));
  }

  const Positions positions;
  const int64_t reach;  // radius of the window along the row
  const bool is_row;    // the strip has whole image rows, in whole vectors, and both ends mirror
  const int64_t raw;    // vectors of a row with its halo, rounded up to whole blocks
  // Elements of a row in natural order, and what the last block reads or writes beyond it.
  const int64_t natural;
  const int64_t slots;                            // rows in a ring, a multiple of kStepRows
  const std::optional<MirroredColumns> mirrored;  // set if gradients are computed and columns mirror
  const bool is_default[2];                       // is_default_window of taps[0] and taps[1]
  // Rows of pixels that are kept: one, or with gradients those that wait for their gradients.
  const int64_t pixel_rows;
  // Shapes are in vectors, except those of `rows`, which are in elements. `fields` is the number of
  // derivatives. `moments` is four, or with a mask five, and six in the ring.
  T* rows[5];      // [natural]: preds, target, weights, and both gradients
  T* pixels;       // [pixel_rows, 2, raw], with a mask 3: pixels, kept until their gradients are computed
  T* staged;       // [moments, raw]: what each pixel of a row contributes to the moments
  T* moments;      // [vectors, moments, slots]
  T* derivatives;  // [vectors, fields, slots]
  T* column_sums;  // [kStepRows, fields or moments, reach + vectors + reach]: convolved down the rows
  T* row_sums;     // [fields, vectors]: convolved along the row too
  T* gradient;     // [2, vectors]
  T* values;       // [kStepRows, vectors]: the map
  T* upstream;     // [kStepRows, vectors]: the map's upstream gradient
  T* weights;      // [vectors]: in the depth pass with a mask, the weights of a row of outputs
  T* taps[2];      // [2 radius + 1]: down the rows, along a row
  T* reversed[2];  // the same, last tap first
  T* folded_taps;  // [2 radius + 1]: down the rows, near the border (Axis::adjoint_tap)
  T* is_output;    // [vectors], lane mask (all bits or none): the position has an output
  T* is_owned;     // [vectors], lane mask: the strip owns that output
  T* is_in_crop;   // [vectors], lane mask: that output is in the crop

  int64_t sums_row() const { return (2 * reach + padded_vectors()) * positions.lanes; }
  // Vectors of a row rounded up to whole blocks, which conversions to natural order need.
  int64_t padded_vectors() const { return whole_blocks(positions.vectors); }

 private:
  int64_t whole_blocks(int64_t vectors) const {
    return (vectors + positions.lanes - 1) / positions.lanes * positions.lanes;
  }

  // Points each buffer into the memory at `begin`, and returns the number of elements that all need.
  int64_t carve(T* const begin, const PassSpec<T>& spec, Pass pass, int fields) {
    constexpr int64_t line = kLine / sizeof(T);
    const int64_t lanes = positions.lanes, vector = positions.vectors * lanes;
    const bool marches_pixels = pass == Pass::image || pass == Pass::moments;
    int64_t used = 0;
    const auto part = [&](T*& pointer, int64_t elements) {
      pointer = begin + used;
      used += (elements + line - 1) / line * line;
    };
    for (T*& row : rows) part(row, natural);
    part(pixels, pass == Pass::depth ? 0 : pixel_rows * (spec.mask ? 3 : 2) * raw * lanes);
    part(staged, marches_pixels ? spec.moment_fields() * raw * lanes : 0);
    part(moments, pass == Pass::gradient ? 0 : vector * (spec.mask ? kMaskedRing : kPlainMoments) * slots);
    part(derivatives, vector * fields * slots);
    part(column_sums, kStepRows * (pass == Pass::moments ? spec.moment_fields() : fields) * sums_row());
    part(row_sums, fields * vector);
    part(gradient, fields > 0 ? 2 * padded_vectors() * lanes : 0);
    part(values, spec.map ? kStepRows * padded_vectors() * lanes : 0);
    part(upstream, spec.grad_map ? kStepRows * padded_vectors() * lanes : 0);
    part(weights, pass == Pass::depth && spec.mask ? padded_vectors() * lanes : 0);
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t size = 2 * (axis == 0 ? spec.rows : spec.columns).radius + 1;
      part(taps[axis], size * lanes);
      part(reversed[axis], size * lanes);
    }
    part(folded_taps, (2 * spec.rows.radius + 1) * lanes);
    part(is_output, vector);
    part(is_owned, vector);
    part(is_in_crop, vector);
    return used;
  }

  const Scratch<T> storage_;
};

}  // namespace ssim_fused::cpu
