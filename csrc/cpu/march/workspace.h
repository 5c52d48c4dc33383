// What a march keeps between raw pixels and results: O(strip width x window) elements.
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

// The positions of a strip: columns of the input, and beside it those that outputs are centred on or that
// reflect back, from `origin` on. In memory they are `vectors` vectors of so many lanes, in the order of
// interleave.h; along the depth, where no window lies along the row, in their own.
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

  // Where a row in the order of interleave.h has a position; those beside it as neighbours of its ends.
  int64_t place(int64_t position) const {
    const int64_t lane = std::clamp<int64_t>(position / vectors, 0, lanes - 1);
    return (position - lane * vectors) * lanes + lane;
  }
};

// What mirrors the columns near the image's ends, of a strip that has them (gradients.h): where the first
// lane begins with the first column, and the last lane ends with the last, add_neighbours; else copies.
struct MirroredColumns {
  struct Copy {
    int64_t from, to;
  };
  bool by_first_lane, by_last_lane;
  std::vector<int64_t> ends;  // places in a row of sums, as in `copies`
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

// Buffers for one strip, carved out of one allocation. Nothing is initialised: lanes and rows that no pixel
// wrote reach no result.
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
  const int64_t reach;    // of the window along the row
  const bool is_row;      // the whole of an image's, in whole vectors, and mirrored beyond its ends
  const int64_t raw;      // vectors of a row that windows see, whole blocks
  const int64_t natural;  // elements of a row as it lies in an image, and what a last block reaches beyond
  const int64_t slots;    // rows in a ring, whole steps
  const std::optional<MirroredColumns> mirrored;  // where the columns mirror
  const bool is_default[2];                       // windows along rows and columns
  const int64_t pixel_rows;
  // Shapes, in vectors but for the rows in their natural order; `fields`: the derivatives; the moments are
  // four, masked five, and in their ring six.
  T* rows[5];      // [natural]: of both images, of weights, and of both gradients
  T* pixels;       // [pixel_rows, 2, raw], masked 3: of both images, until their gradients are made
  T* staged;       // [moments, raw]: what the pixels of one row add to the moments
  T* moments;      // [vectors, moments, slots]
  T* derivatives;  // [vectors, fields, slots]
  T* column_sums;  // [kStepRows, fields or moments, reach + vectors + reach]
  T* row_sums;     // [fields, vectors]: along the row, too
  T* gradient;     // [2, vectors]
  T* values;       // [kStepRows, vectors]: the map
  T* upstream;     // [kStepRows, vectors]: the map's upstream gradient
  T* weights;      // [vectors]: along the depth and masked, of a row of outputs
  T* taps[2];      // [2 radius + 1], rows and columns
  T* reversed[2];  // the same, last tap first
  T* folded_taps;  // [2 radius + 1] of rows
  T* is_output;    // [vectors], all bits or none: where there is an output,
  T* is_owned;     // one whose value counts here,
  T* is_in_crop;   // for the contrast sensitivity, too

  int64_t sums_row() const { return (2 * reach + padded_vectors()) * positions.lanes; }
  // Of a row that leaves in natural order: whole blocks.
  int64_t padded_vectors() const { return whole_blocks(positions.vectors); }

 private:
  int64_t whole_blocks(int64_t vectors) const {
    return (vectors + positions.lanes - 1) / positions.lanes * positions.lanes;
  }

  // Sets the pointers; the number of elements from the first to the last.
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
