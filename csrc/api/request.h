// A pass as an operator requests it from a device: images, windows and constants, and memory for the results.
// All values are checked (checks.h), and tensors are not needed.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "../math/geometry.h"
#include "../math/pass.h"
#include "../math/pixel_term.h"
#include "view.h"

namespace ssim_fused {

// How images continue beyond their edges. Padding::valid does not pad.
enum class Padding { reflect, zero, valid };

// Which values a mask weights. `window`: the pixels in every window, and each output in the means by the mask
// at the pixel it is centred on. `map`: the outputs in the means only.
enum class MaskMode { window, map };

// The weights of the pixels, of type bool or any floating-point type. A mask with one channel has a channel
// stride of 0. Weights that are not positive count as zero.
struct Mask {
  View view;
  MaskMode mode = MaskMode::window;

  explicit operator bool() const { return static_cast<bool>(view); }
  bool weighs_windows() const { return mode == MaskMode::window; }
};

// One window for each axis: depth, rows, columns. Along the depth, images have a window of one tap.
struct Windows {
  std::array<Axis, 3> axes{};
  std::array<std::vector<double>, 3> taps{};  // [2 radius + 1] each
  bool sum_to_one = true;                     // up to rounding errors

  // Returns whether the window of an axis has more than one tap, and all are 1 / their number.
  bool is_uniform(size_t axis) const {
    const std::vector<double>& of_axis = taps[axis];
    const double tap = 1 / static_cast<double>(of_axis.size());
    return of_axis.size() > 1 &&
           std::all_of(of_axis.begin(), of_axis.end(), [&](double of_pixel) { return of_pixel == tap; });
  }

  // Returns whether the windows see mostly zero padding.
  bool see_padding() const {
    double weight = 1;
    for (size_t d = 0; d < axes.size(); ++d) weight *= weight_of_image(axes[d], taps[d]);
    return is_mostly_padding(weight);
  }

  // Returns the taps of an axis in the type of the arithmetic, with a sum of exactly one: the taps in the
  // middle absorb the rounding errors, each at most one unit in the last place, which would otherwise bias
  // every variance. The taps stay as rounded if the window sees mostly padding. Those in the middle are then
  // too small for such corrections, and the sum does not matter, because the moments of the padding about
  // zero are zero.
  template <class T>
  std::vector<T> taps_as(size_t axis) const {
    std::vector<T> rounded(taps[axis].begin(), taps[axis].end());
    if (!sum_to_one || is_mostly_padding(weight_of_image(axes[axis], taps[axis]))) return rounded;
    const size_t middle = rounded.size() / 2;
    // The sum starts with the smallest taps; if T is float, it is exact in double.
    const auto rest = [&] {
      double sum = 0;
      for (size_t k = 0; k < middle; ++k)
        sum += static_cast<double>(rounded[k]) + static_cast<double>(rounded[rounded.size() - 1 - k]);
      return 1 - sum - static_cast<double>(rounded[middle]);
    };
    const double error = rest();
    const T unit = std::nextafter(rounded[middle], T(1)) - rounded[middle], step = error < 0 ? -unit : unit;
    auto units = static_cast<int64_t>(std::abs(error) / static_cast<double>(unit) + 0.5);
    for (size_t k = 1; units >= 2 && k <= middle; ++k, units -= 2) {
      rounded[middle - k] += step;
      rounded[middle + k] += step;
    }
    rounded[middle] += static_cast<T>(rest());
    return rounded;
  }
};

// c1 = (k1 L)^2 and c2 = (k2 L)^2, as two numbers or, if `data` is set, as a tensor [2] or [B, 2] on the
// device of the images.
struct Constants {
  double c1 = 0, c2 = 0;
  const void* data = nullptr;            // in the compute type
  int64_t image_stride = 0, stride = 0;  // from image to image; from c1 to c2
};

// The reduction over the batch, in PyTorch's numbering.
enum class Reduction { none, mean, sum };

// The pixel term of a loss (math/pixel_term.h).
struct PixelRequest {
  PixelTerm term = PixelTerm::none;
  double eps = 0;  // the constant of PixelTerm::charbonnier
  double mean_weight = 0,
         ssim_weight = 1;  // the weights of mean phi and of the distance of SSIM in the value
  double slope_scale = 0;  // factor of the slopes in the gradients; includes 1 / pixels
  // [B, 2], in the compute type: mean phi and the distance of each image. Null if not requested.
  void* terms = nullptr;

  explicit operator bool() const { return term != PixelTerm::none; }
  double value(double mean, double distance) const {
    return term == PixelTerm::none ? distance : mean_weight * mean + ssim_weight * distance;
  }
};

// The weight of each image's mean in the gradients: `values` [B] (ones if null) times `scale`.
struct Upstream {
  const void* values = nullptr;  // in the compute type
  int64_t stride = 0;
  double scale = 0;
};

// One pass over images or volumes. Results that are not requested have null pointers or empty views.
// Gradients are those of the distance: 1 - similarity or 1 - contrast sensitivity.
struct Request {
  View preds, target;
  bool is_volume = false;
  Windows windows;
  Constants constants;
  Mask mask;

  bool in_float64 = false;  // compute in float64 and return float64 results, also for integer images

  Objective objective = Objective::mean_similarity;
  Upstream of_similarity, of_contrast;  // weights of the means in the gradients; `scale` includes 1 / divisor
  View grad_map;                        // the upstream gradient of the map, which adds to these weights

  Reduction reduction = Reduction::none;  // how `similarity` is reduced over the batch
  bool as_distance = false;               // return 1 - similarity and 1 - contrast sensitivity
  void* similarity = nullptr;             // [B], or one element, in the compute type
  void* contrast = nullptr;               // [B], the contrast sensitivity
  PixelRequest pixels;                    // if set, `similarity` is the weighted sum of both terms
  View map, grad_preds, grad_target;
  void* grad_constants = nullptr;  // [B, 2]: derivatives of each image's objective with respect to c1, c2
  bool keeps_constants = false;    // the device keeps these derivatives, of a level of MS-SSIM

  // Returns the type of the arithmetic and of the results per image.
  ScalarType compute_type() const {
    return in_float64 ? ScalarType::Double : ssim_fused::compute_type(preds.type);
  }
  ScalarType map_type() const { return in_float64 ? ScalarType::Double : ssim_fused::map_type(preds.type); }
  // Returns the number of pixels of an image.
  double pixels_of_image() const {
    return static_cast<double>(preds.elements()) / static_cast<double>(std::max<int64_t>(preds.batch(), 1));
  }
  double pixel_divisor() const { return mask ? 1 : pixels_of_image(); }
  bool wants_constants() const { return grad_constants != nullptr || keeps_constants; }
  bool wants_gradients() const { return grad_preds || grad_target || wants_constants(); }
  int64_t planes() const { return preds.batch() * preds.channels(); }
  std::array<int64_t, 5> output_shape() const {
    return {preds.batch(), preds.channels(), windows.axes[0].output_length(), windows.axes[1].output_length(),
            windows.axes[2].output_length()};
  }
  // Returns the number of outputs of an image over which the similarity is averaged; `cropped_outputs`, of
  // those over which the contrast sensitivity is averaged.
  double outputs() const {
    double count = static_cast<double>(preds.channels());
    for (const Axis& axis : windows.axes) count *= static_cast<double>(axis.output_length());
    return count;
  }
  double cropped_outputs() const {
    double count = static_cast<double>(preds.channels());
    for (const Axis& axis : windows.axes)
      count *= static_cast<double>(std::max<int64_t>(axis.crop_end() - axis.crop_begin(), 0));
    return count;
  }
  // Returns the divisor of the mean of an image. With a mask it is the sum of the outputs' weights, which
  // only the device knows, so the device divides.
  double divisor() const { return mask ? 1 : outputs(); }
  double cropped_divisor() const { return mask ? 1 : cropped_outputs(); }
  // Exchanges the two images. SSIM is symmetric, so the gradient of target alone is computed as that of preds
  // with the images exchanged, and kernels need no separate case.
  void exchange_images() {
    std::swap(preds, target);
    std::swap(grad_preds, grad_target);
  }
};

}  // namespace ssim_fused
