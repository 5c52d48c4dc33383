// The pyramid of MS-SSIM: halving images, and gathering the gradients of all levels.
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "../api/pyramid_request.h"
#include "parallel.h"
#include "rows/mask.h"
#include "rows/pixel_term.h"
#include "rows/read_write.h"
#include "scratch.h"

namespace ssim_fused::cpu {

// The step from one level of the pyramid to the next: 2x2 pixels, or 2x2x2 voxels, become one. An image
// keeps its single slice.
struct Halving {
  int64_t slices;  // slices that become one
  double share;    // weight of each pixel or voxel in the mean

  Halving(const View& from, const View& to)
      : slices(from.depth() / 2 == to.depth() && from.depth() > 1 ? 2 : 1),
        share(slices == 2 ? 0.125 : 0.25) {}
};

constexpr int kMostHalved = 4;  // rows that become one, at most

// Halves `count` rows of 2 width pixels to a row of `width` means.
template <class T>
void mean_of_rows(int count, const T* const (&rows)[kMostHalved], int64_t width, T share, T* mean) {
  const auto columns = [&]<int two>(std::integral_constant<int, two>) SSIM_INLINE_LAMBDA {
    for (int64_t i = 0; i < width; ++i) {
      T left = rows[0][2 * i], right = rows[0][2 * i + 1];
      for (int k = 1; k < 2 * two; ++k) {
        left += rows[k][2 * i];
        right += rows[k][2 * i + 1];
      }
      mean[i] = (left + right) * share;
    }
  };
  if (count == 2) {
    columns(std::integral_constant<int, 1>{});
  } else {
    columns(std::integral_constant<int, 2>{});
  }
}

// Halves `count` rows to a row of weighted means. Rows and weights have 2 width elements. A mean is zero if
// its pixels have no weight.
template <class T>
void weighed_mean_of_rows(int count, const T* const (&rows)[kMostHalved],
                          const T* const (&weights)[kMostHalved], int64_t width, T* mean) {
  for (int64_t i = 0; i < width; ++i) {
    T sum[2] = {}, total[2] = {};
    for (int k = 0; k < count; ++k) {
      for (int64_t j = 0; j < 2; ++j) {
        const T weight = weights[k][2 * i + j];
        sum[j] += weight > 0 ? weight * rows[k][2 * i + j] : T(0);
        total[j] += weight;
      }
    }
    const T all = total[0] + total[1];
    mean[i] = all > 0 ? (sum[0] + sum[1]) / all : T(0);
  }
}

// Halves an image. `in` is the view `from` as an image. `weights`, if given, weight the means.
template <class T>
void downsample_image(const ImageRows<T>& in, const ImageRows<T>& weights, const View& from, const View& to) {
  const ImageRows<T> out = image_rows<T>(to);
  const Halving halving(from, to);
  const int64_t height = to.height(), width = to.width(), wide = 2 * width, rows = to.depth() * height;
  const int count = 2 * static_cast<int>(halving.slices);
  parallel_for(0, from.batch() * from.channels() * rows, 16, [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(2 * kMostHalved * wide + width);
    T* const mean = scratch.get() + 2 * kMostHalved * wide;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / rows, slice = task % rows / height, y = task % height;
      const Plane plane{image / from.channels(), image % from.channels(), slice};
      const T *pixels[kMostHalved], *of_pixels[kMostHalved];
      for (int k = 0; k < count; ++k) {
        const Plane source{plane.batch, plane.channel, halving.slices * slice + k / 2};
        T* const row = scratch.get() + 2 * k * wide;
        pixels[k] = in.see(row, in.offset(source), 2 * y + k % 2, 0, wide);
        if (weights) of_pixels[k] = weights.see(row + wide, weights.offset(source), 2 * y + k % 2, 0, wide);
      }
      if (weights) {
        weighed_mean_of_rows(count, pixels, of_pixels, width, mean);
      } else {
        mean_of_rows(count, pixels, width, static_cast<T>(halving.share), mean);
      }
      out.write_from(mean, out.offset(plane), y, 0, width);
    }
  });
}

// Computes rows of the gradient of the finest level from the gradients of all levels. The gradient of a
// level's pixel is its own gradient times the level's factor, plus its share of the gradient of the coarser
// pixel that it was averaged into. Each level keeps the row computed last, because several finer rows need
// it.
template <class T>
class Gatherer {
 public:
  // `masks`: of the levels, if they weight the means between levels; otherwise empty.
  Gatherer(const std::vector<ImageRows<T>>& levels, const std::vector<ImageRows<T>>& masks,
           const std::vector<View>& sizes, const Halving& halving)
      : levels_(levels),
        masks_(masks),
        sizes_(sizes),
        halving_(halving),
        storage_(total_width(sizes) + 2 * sizes[0].width()) {
    T* next = storage_.get() + 2 * sizes[0].width();
    for (size_t l = 0; l < sizes.size(); ++l) {
      rows_[l] = next;
      next += sizes[l].width();
    }
  }

  // Sets the image and channel of the rows that follow. `factors` has one factor per level, `stride` apart.
  void start_image(int64_t batch, int64_t channel, const T* factors, int64_t stride) {
    batch_ = batch;
    channel_ = channel;
    for (size_t l = 0; l < levels_.size(); ++l) factors_[l] = factors[static_cast<int64_t>(l) * stride];
    current_.fill(-1);
  }

  // Returns row y of a slice of a level's gradient, with the contributions of all coarser levels.
  T* row(size_t level, int64_t slice, int64_t y) {
    T* const out = rows_[level];
    const View& size = sizes_[level];
    if (current_[level] == slice * size.height() + y) return out;
    current_[level] = slice * size.height() + y;
    const ImageRows<T>& image = levels_[level];
    const T* const own = image.see(out, image.offset({batch_, channel_, slice}), y, 0, size.width());
    for (int64_t i = 0; i < size.width(); ++i) out[i] = own[i] * factors_[level];
    if (level + 1 == levels_.size()) return out;
    const View& half = sizes_[level + 1];
    if (slice / halving_.slices < half.depth() && y / 2 < half.height()) {
      const T* const below = row(level + 1, slice / halving_.slices, y / 2);
      if (!masks_.empty()) {
        add_weighed(level, slice, y, below, out);
        return out;
      }
      for (int64_t i = 0; i < half.width(); ++i) {
        const T part = below[i] * static_cast<T>(halving_.share);
        out[2 * i] += part;
        out[2 * i + 1] += part;
      }
    }
    return out;
  }

 private:
  // Adds the shares of the coarser level's gradient, in proportion to the pixels' weights. A masked pixel
  // had no part in the mean and gets nothing.
  void add_weighed(size_t level, int64_t slice, int64_t y, const T* below, T* out) {
    const int64_t width = sizes_[level + 1].width();
    T *const weights = storage_.get(), *const means = weights + 2 * width;
    const ImageRows<T>&mask = masks_[level], &half = masks_[level + 1];
    mask.read_into(weights, mask.offset({batch_, channel_, slice}), y, 0, 2 * width);
    half.read_into(means, half.offset({batch_, channel_, slice / halving_.slices}), y / 2, 0, width);
    for (int64_t i = 0; i < width; ++i) {
      const T part = means[i] > 0 ? below[i] * static_cast<T>(halving_.share) / means[i] : T(0);
      for (int64_t k = 2 * i; k < 2 * i + 2; ++k) out[k] += weights[k] > 0 ? weights[k] * part : T(0);
    }
  }

  const std::vector<ImageRows<T>>&levels_, &masks_;
  const std::vector<View>& sizes_;
  const Halving& halving_;
  static int64_t total_width(const std::vector<View>& sizes) {
    int64_t width = 0;
    for (const View& size : sizes) width += size.width();
    return width;
  }

  const Scratch<T> storage_;                   // two rows of weights, then one row of each level
  std::array<T*, kMaxLevels> rows_{};          // [width of the level]: the row computed last
  std::array<int64_t, kMaxLevels> current_{};  // index of that row, -1 if none
  std::array<T, kMaxLevels> factors_{};
  int64_t batch_ = 0, channel_ = 0;
};

// Adds the gradients of all levels to that of the finest, in place, with the slopes of the pixel term.
template <class T>
void gather_gradients(const GatherRequest& request) {
  std::vector<View> views{request.finest};
  views.insert(views.end(), request.coarse.begin(), request.coarse.end());
  std::vector<ImageRows<T>> levels;
  for (const View& view : views) levels.push_back(image_rows<T>(view));
  const ImageRows<T>& out = levels[0];
  const Halving halving = views.size() > 1 ? Halving(views[0], views[1]) : Halving(views[0], views[0]);
  const T* const factors = static_cast<const T*>(request.factors);
  const View& finest = request.finest;
  const int64_t batch = finest.batch(), channels = finest.channels(), height = finest.height(),
                rows = finest.depth() * height;
  const ImageRows<T> image_of_slopes = image_rows<T>(request.image), other = image_rows<T>(request.other);
  const View& mask_view = request.mask.view;
  std::vector<ImageRows<T>> masks;
  if (!request.coarse_masks.empty()) masks.push_back(weight_rows<T>(mask_view));
  for (const View& view : request.coarse_masks) masks.push_back(weight_rows<T>(view));
  const ImageRows<T> mask = weight_rows<T>(mask_view);
  std::vector<double> weights;
  if (mask && request.pixels) weights = pixel_weights<T>(mask_view, request.finest.channels());
  const PixelTermParams<T> pixels = pixel_term_params<T>(request.pixels, weights);
  constexpr int64_t kGrain = 32;  // rows per task: enough that few coarse rows are computed twice
  parallel_for(0, batch * channels * rows, kGrain, [&](int64_t begin, int64_t end) {
    Gatherer<T> gatherer(levels, masks, views, halving);
    const Scratch<T> scratch(3 * finest.width());
    T *const x = scratch.get(), *const y_of_row = x + finest.width(),
             *const weight = y_of_row + finest.width();
    int64_t current = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / rows, slice = task % rows / height, y = task % height;
      if (image != current) {
        current = image;
        gatherer.start_image(image / channels, image % channels, factors + image / channels, batch);
      }
      const Plane plane{image / channels, image % channels, slice};
      T* const gradient = gatherer.row(0, slice, y);
      if (pixels) {
        const int64_t width = finest.width();
        const T* const pixels_of_x = image_of_slopes.see(x, image_of_slopes.offset(plane), y, 0, width);
        const T* const pixels_of_y = other.see(y_of_row, other.offset(plane), y, 0, width);
        if (mask) mask.read_into(weight, mask.offset(plane), y, 0, width);
        pixels.sum_and_slopes(plane.batch, pixels_of_x, pixels_of_y, mask ? weight : nullptr, width, gradient,
                              nullptr);
      }
      out.write_from(gradient, out.offset(plane), y, 0, finest.width());
    }
  });
}

}  // namespace ssim_fused::cpu
