// A pass as an operator requests it from a device: images, windows and constants in, memory for the results
// out. Everything is checked (checks.h), and nothing here knows tensors.
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

// How images continue beyond their edges; "valid" images do not.
enum class Padding { reflect, zero, valid };

// The scope of a mask's weights. `window`: to the pixels in every window, and to an output in the means by
// the weight of the pixel it is centred on. `map`: to the outputs only.
enum class MaskMode { window, map };

// Weights of the pixels, of bool or any floating-point type. A view of one channel stands for all of them; a
// weight that is not positive counts as zero.
struct Mask {
  View view;
  MaskMode mode = MaskMode::window;

  explicit operator bool() const { return static_cast<bool>(view); }
  bool weighs_windows() const { return mode == MaskMode::window; }
};

// One window for each axis: depth, rows, columns. The window of images has one tap along the depth.
struct Windows {
  std::array<Axis, 3> axes{};
  std::array<std::vector<double>, 3> taps{};  // [2 radius + 1] each
  bool sum_to_one = true;                     // except for rounding

  // Whether the window of an axis is uniform: more than one tap, each one over their number.
  bool is_uniform(size_t axis) const {
    const std::vector<double>& of_axis = taps[axis];
    const double tap = 1 / static_cast<double>(of_axis.size());
    return of_axis.size() > 1 &&
           std::all_of(of_axis.begin(), of_axis.end(), [&](double of_pixel) { return of_pixel == tap; });
  }

  // Whether the windows see zero padding for the most part.
  bool see_padding() const {
    double weight = 1;
    for (size_t d = 0; d < axes.size(); ++d) weight *= weight_of_image(axes[d], taps[d]);
    return is_mostly_padding(weight);
  }

  // The taps of an axis in the type of the arithmetic. Rounded taps would sum to one plus or minus some
  // rounding errors, which would bias every variance: the taps in the middle absorb the rest, each at most
  // one unit in the last place. If the window sees padding for the most part, the taps in the middle are too
  // small for that, and the sum does not matter, as the padding's moments about zero are zero.
  template <class T>
  std::vector<T> taps_as(size_t axis) const {
    std::vector<T> rounded(taps[axis].begin(), taps[axis].end());
    if (!sum_to_one || is_mostly_padding(weight_of_image(axes[axis], taps[axis]))) return rounded;
    const size_t middle = rounded.size() / 2;
    // Summed from the smallest tap on; exact in double if T is float.
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

// c1 = (k1 L)^2 and c2 = (k2 L)^2: two numbers, or, if `data` is set, a tensor [2] or [B, 2] on the images'
// device.
struct Constants {
  double c1 = 0, c2 = 0;
  const void* data = nullptr;            // of the compute type
  int64_t image_stride = 0, stride = 0;  // from image to image, and from c1 to c2
};

// The reduction over the batch, numbered as in PyTorch.
enum class Reduction { none, mean, sum };

// The pixel term of a loss (math/pixel_term.h).
struct PixelRequest {
  PixelTerm term = PixelTerm::none;
  double eps = 0;  // Charbonnier's constant
  double mean_weight = 0,
         ssim_weight = 1;  // weights of the pixel term's mean and of SSIM's distance in the value
  double slope_scale = 0;  // factor of the slopes in the gradients; includes 1 / pixels
  // [B, 2], in the compute type: mean phi, and the distance of SSIM or MS-SSIM. Null if not requested.
  void* terms = nullptr;

  explicit operator bool() const { return term != PixelTerm::none; }
  double value(double mean, double distance) const {
    return term == PixelTerm::none ? distance : mean_weight * mean + ssim_weight * distance;
  }
};

// The weight of an image's mean in the derivatives: `values` [B] (ones if null) times `scale`.
struct Upstream {
  const void* values = nullptr;  // of the compute type
  int64_t stride = 0;
  double scale = 0;
};

// One pass over images or volumes. Pointers to results are null, and views empty, if they are not requested.
// Gradients are those of the distance: of 1 - similarity, or of 1 - contrast sensitivity.
struct Request {
  View preds, target;
  bool is_volume = false;
  Windows windows;
  Constants constants;
  Mask mask;

  bool in_float64 = false;  // arithmetic and results, also of integers

  Objective objective = Objective::mean_similarity;
  Upstream of_similarity, of_contrast;  // weights of the means in the gradients; `scale` includes 1 / divisor
  View grad_map;                        // upstream gradient of the map, added to these weights

  Reduction reduction = Reduction::none;  // of `similarity`
  bool as_distance = false;               // 1 - similarity and 1 - contrast sensitivity instead
  void* similarity = nullptr;             // [B], or one number, in the compute type
  void* contrast = nullptr;               // [B]: the contrast sensitivity
  PixelRequest pixels;                    // if set, `similarity` is the sum of both terms
  View map, grad_preds, grad_target;
  void* grad_constants = nullptr;  // [B, 2]: derivatives of each image's objective by c1 and c2
  bool keeps_constants = false;    // the same for a level of MS-SSIM, kept on the device

  // The type of the arithmetic, and of the results per image.
  ScalarType compute_type() const {
    return in_float64 ? ScalarType::Double : ssim_fused::compute_type(preds.type);
  }
  ScalarType map_type() const { return in_float64 ? ScalarType::Double : ssim_fused::map_type(preds.type); }
  // The number of pixels of an image.
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
  // The number of outputs of an image over which the similarity is averaged; below, the contrast sensitivity.
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
  // The divisor of a mean's weight. With a mask it is the mask's sum over an image's outputs, which only the
  // device knows: the device divides.
  double divisor() const { return mask ? 1 : outputs(); }
  double cropped_divisor() const { return mask ? 1 : cropped_outputs(); }
  // Exchanges the images. SSIM is symmetric, so the gradient by target alone is that by preds of exchanged
  // images, and kernels know no other case.
  void exchange_images() {
    std::swap(preds, target);
    std::swap(grad_preds, grad_target);
  }
};

}  // namespace ssim_fused
