// The parameters of a pass, and the part of it that one march computes: some rows of a strip of a plane.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../math/geometry.h"
#include "../math/pixel_term.h"
#include "../math/ssim.h"
#include "march/task_rows.h"
#include "rows/image_rows.h"

namespace ssim_fused::cpu {

// The number of fields of moments with a mask: the fifth is the weight of the window. The ring of moments
// has a sixth, the weights of the outputs that are centred on a row.
constexpr int kMaskedMoments = moment_fields(true), kMaskedRing = kMaskedMoments + 1;

// Sums over the outputs of a segment: of 1 - SSIM, of 1 - contrast sensitivity, and of the derivatives by
// the constants. `pixels` is the sum of the pixel term over the segment's pixels. With a mask, also the
// sums of the weights of the outputs, and of those in the crop.
struct Sums {
  double similarity_loss = 0, contrast_loss = 0, by_c1 = 0, by_c2 = 0, pixels = 0;
  double weight = 0, cropped_weight = 0;
};

// A row of pixels of both images, [count], and the row of each requested gradient, to which slopes are added.
template <class T>
struct TermRow {
  const T *x, *y;
  const T* weights = nullptr;  // if there is a mask
  T *grad_x = nullptr, *grad_y = nullptr;
};

// Returns the sum of the pixel term over a row, and adds its slopes, times `weight`, to the row's
// gradients.
template <class T>
using TermRowFunction = double (*)(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared,
                                   T weight);

// The pixel term of a spec (rows/pixel_term.h).
template <class T>
struct PixelTermParams {
  PixelTerm term = PixelTerm::none;
  T eps_squared{};
  T weight{};  // factor of the slopes in the gradients; zero if a march does not add them
  TermRowFunction<T> add_row = nullptr;
  std::vector<T> shares = {};  // [B]: with a mask, 1 / the sum of the weights of an image's pixels

  explicit operator bool() const { return term != PixelTerm::none; }
  double sum(const T* x, const T* y, const T* weights, int64_t count) const {
    return add_row(term, {x, y, weights}, count, eps_squared, weight);
  }
  double sum_and_slopes(int64_t image, const T* x, const T* y, const T* weights, int64_t count, T* grad_x,
                        T* grad_y) const {
    if (weight == T(0)) return sum(x, y, weights, count);
    const T share = shares.empty() ? T(1) : shares[static_cast<size_t>(image)];
    return add_row(term, {x, y, weights, grad_x, grad_y}, count, eps_squared, weight * share);
  }
};

// The data between the passes over volumes: four fields of moments, with a mask five. Three or four fields
// of derivatives later overwrite them.
template <class T>
struct Fields {
  // [volumes, 4 or 5, slices, rows, columns]; the strides define the order of the dimensions.
  T* data = nullptr;
  int64_t volume, slice, row, field;  // strides; a row is contiguous
  bool in_lanes = false;              // rows are in the order of interleave.h, in whole vectors

  T* at(int64_t v, int64_t s, int64_t r) const { return data + v * volume + s * slice + r * row; }
};

// The parameters that all strips of a pass share.
template <class T>
struct PassSpec {
  ImageRows<T> preds, target;
  ImageRows<T> map, grad_preds, grad_target;  // outputs, if requested
  ImageRows<T> grad_map;                      // upstream gradient of the map, if given
  ImageRows<T> mask;                          // weights, if given
  Axis mask_columns;                          // `columns`; in Pass::depth, the columns of the slices
  int64_t mask_slice;                         // offset from a plane's slice to its slice of the mask
  bool mask_weighs_windows;                   // if not, it only weights outputs in the means
  Fields<T> fields;                           // between the passes over volumes
  Axis rows, columns;
  bool sees_padding;                       // windows see mostly zero padding
  std::array<std::vector<T>, 2> taps;      // rows, columns: [2 radius + 1]
  std::array<std::vector<T>, 2> reversed;  // the same, last tap first, for the adjoint
  // The factors of the windows along rows and columns (factor_of_sums). If a factor is not zero, all `taps`
  // are this number, rounded. If neither is zero, the factor of the rows includes that of the columns, which
  // is then one.
  std::array<double, 2> uniform{};
  int64_t crop_begin, crop_end;    // columns of outputs in the mean contrast sensitivity
  T slice_sum;                     // in Pass::depth: the sum of a slice's window, rows' taps times columns'
  std::vector<T> c1, c2;           // [B]
  std::vector<T> grad_similarity;  // [B], upstream weight of every output's similarity
  // [B], upstream weight of the contrast sensitivity of every output in the crop.
  std::vector<T> grad_contrast;
  bool wants_constants;                                 // sums include the derivatives by c1 and c2
  bool wants_similarity = true, wants_contrast = true;  // whether their means are requested
  PixelTermParams<T> pixel_term;

  // Whether the adjoint of window and padding, down the rows (0) or along the columns (1), is the window
  // applied to mirrored derivatives.
  bool mirrors(int which) const {
    const Axis& axis = which == 0 ? rows : columns;
    return axis.mirrors() && taps[which] == reversed[which];
  }

  int moment_fields() const { return mask ? kMaskedMoments : kPlainMoments; }
};

// The column ranges of a strip. It owns input columns [begin, end): it computes their gradients and the
// values of the outputs that are centred on them. The first and the last strip also own the outputs that
// are centred outside the input.
struct Columns {
  int64_t begin, end;
  int64_t owned_begin, owned_end;        // outputs owned
  int64_t extended_begin, extended_end;  // extended columns whose gradients fold back onto the owned ones
  int64_t output_begin, output_end;      // outputs computed

  Columns(const Axis& axis, int64_t begin, int64_t end, bool gradient, bool mirrors)
      : begin(begin), end(end) {
    const bool first = begin == 0, last = end == axis.n;
    const int64_t length = axis.output_length(), shift = axis.radius - axis.pad;
    owned_begin = first ? 0 : std::clamp<int64_t>(begin - shift, 0, length);
    owned_end = last ? length : std::clamp<int64_t>(end - shift, 0, length);
    const bool folds = axis.reflects && !mirrors;
    extended_begin = first && folds ? -axis.pad : begin;
    extended_end = last && folds ? axis.n + axis.pad : end;
    output_begin = owned_begin;
    output_end = owned_end;
    if (gradient) {
      output_begin = std::clamp<int64_t>(extended_begin + axis.pad - 2 * axis.radius, 0, length);
      output_end = std::clamp<int64_t>(extended_end + axis.pad, output_begin, length);
    }
  }
};

// The part of a pass that one march computes: a task's rows of a strip of a plane.
template <class T>
struct StripTask {
  const PassSpec<T>& spec;
  Plane plane;
  Columns columns;
  TaskRows rows;
  Pivots<T> pivots;          // the same in all passes over a volume
  Sums* sums;                // [segments of the task's rows]
  int64_t volume = 0;        // index in `fields`
  bool slice_counts = true;  // whether the slice is in the crop
};

}  // namespace ssim_fused::cpu
