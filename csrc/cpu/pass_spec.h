// What a pass computes, and the part of it that one march takes: a strip of columns of a plane, some rows of
// it.
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

// Fields of moments. Masked, a window has its weight, too; and in the ring, a row beside it the weights of
// the outputs that are centred there.
constexpr int kMaskedMoments = moment_fields(true), kMaskedRing = kMaskedMoments + 1;

// Sums over the outputs of a segment: of one minus similarity, of one minus contrast sensitivity, and of the
// derivatives by the constants; and over its pixels, of the pixel term; masked, of the outputs' weights, and
// of those in the crop.
struct Sums {
  double similarity_loss = 0, contrast_loss = 0, by_c1 = 0, by_c2 = 0, pixels = 0;
  double weight = 0, cropped_weight = 0;
};

// A row of both images, [count], and of the gradients that the slopes are added to, where wanted.
template <class T>
struct TermRow {
  const T *x, *y;
  const T* weights = nullptr;  // masked
  T *grad_x = nullptr, *grad_y = nullptr;
};

// Returns the sum over the row.
template <class T>
using TermRowFunction = double (*)(PixelTerm term, const TermRow<T>& row, int64_t count, T eps_squared,
                                   T weight);

// The pixel term of a spec (rows/pixel_term.h).
template <class T>
struct PixelTermParams {
  PixelTerm term = PixelTerm::none;
  T eps_squared{};
  T weight{};  // of the slopes in the gradients; zero: they are not added here
  TermRowFunction<T> add_row = nullptr;
  std::vector<T> shares = {};  // [B]: masked, one over the weights of an image's pixels

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

// Between a volume's passes: four fields of moments, masked five, or in their place three or four of
// derivatives.
template <class T>
struct Fields {
  T* data = nullptr;                  // [volumes, 4 or 5, slices, rows, columns], in the strides' order
  int64_t volume, slice, row, field;  // strides; along a row they are one
  bool in_lanes = false;              // rows lie as a march has them (interleave.h), in whole vectors

  T* at(int64_t v, int64_t s, int64_t r) const { return data + v * volume + s * slice + r * row; }
};

// What all strips of a pass share.
template <class T>
struct PassSpec {
  ImageRows<T> preds, target;
  ImageRows<T> map, grad_preds, grad_target;  // outputs, where wanted
  ImageRows<T> grad_map;                      // upstream gradient of the map, where given
  ImageRows<T> mask;                          // weights, where given
  Axis mask_columns;                          // `columns`, but in Pass::depth those of the slices
  int64_t mask_slice;                         // where slice 0 of the planes lies in it
  bool mask_weighs_windows;                   // or only outputs in the means
  Fields<T> fields;                           // of volumes, from pass to pass
  Axis rows, columns;
  bool sees_padding;                       // windows see zero padding for the most part
  std::array<std::vector<T>, 2> taps;      // rows, columns: [2 radius + 1]
  std::array<std::vector<T>, 2> reversed;  // the same, last tap first: the adjoint's
  // Of uniform windows along rows and columns, the factor of their sums; else zero. Their `taps` are the same
  // number, rounded. Where both are uniform, the rows' factor includes the columns', which is one.
  std::array<double, 2> uniform{};
  int64_t crop_begin, crop_end;    // columns of outputs that count for the contrast sensitivity
  T slice_sum;                     // in Pass::depth: of a slice's window, the rows' taps times the columns'
  std::vector<T> c1, c2;           // [B]
  std::vector<T> grad_similarity;  // [B], upstream weight of every output
  std::vector<T> grad_contrast;    // [B], the same for the contrast sensitivity of the cropped outputs
  bool wants_constants;            // derivatives by c1 and c2 in the sums
  bool wants_similarity = true, wants_contrast = true;  // in the sums
  PixelTermParams<T> pixel_term;

  // Whether along rows (0) or columns (1) the adjoint of window and padding is the window over mirrored
  // derivatives.
  bool mirrors(int which) const {
    const Axis& axis = which == 0 ? rows : columns;
    return axis.mirrors() && taps[which] == reversed[which];
  }

  int moment_fields() const { return mask ? kMaskedMoments : kPlainMoments; }
};

// Column ranges of one strip: it owns input columns [begin, end), hence the gradient there and the outputs
// centred there (the first and last strip also those centred outside the input).
struct Columns {
  int64_t begin, end;
  int64_t owned_begin, owned_end;        // outputs whose value counts here
  int64_t extended_begin, extended_end;  // positions whose derivative folds back onto the owned columns
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

template <class T>
struct StripTask {
  const PassSpec<T>& spec;
  Plane plane;
  Columns columns;
  TaskRows rows;
  Pivots<T> pivots;          // the same for all passes over a volume
  Sums* sums;                // [segments of rows owned]
  int64_t volume = 0;        // in `fields`
  bool slice_counts = true;  // for the contrast sensitivity
};

}  // namespace ssim_fused::cpu
