// What a call asks for, checked once for both devices. Messages name the argument, its value and what would
// be right. `Request` is what operators.h hands to a device: images, window and constants in, places for the
// results out.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "math/geometry.h"
#include "math/pass.h"
#include "pixel_request.h"
#include "view.h"

namespace ssim_fused {

// ---------------------------------------------------------------------------------------------------------------------
// Masks

// What the pixels' weights say: how much each counts in the windows (and an output, by the pixel it is
// centred on, in the means); or only how much the outputs count.
enum class MaskMode { window, map };

// Weights of the pixels: a view of one channel stands for all of them. Bool, or any float type; what is not
// positive weighs nothing.
struct Mask {
  View view;
  MaskMode mode = MaskMode::window;

  explicit operator bool() const { return static_cast<bool>(view); }
  bool weighs_windows() const { return mode == MaskMode::window; }
};

inline Mask check_mask(const Tensor& preds, const std::optional<Tensor>& mask, const std::string& mode) {
  STD_TORCH_CHECK(mode == "window" || mode == "map", "mask_mode is '", mode, "', expected 'window' or 'map'");
  const MaskMode parsed = mode == "map" ? MaskMode::map : MaskMode::window;
  if (!mask) return {{}, parsed};
  bool fits = mask->dim() == preds.dim() && (mask->size(1) == 1 || mask->size(1) == preds.size(1));
  for (int64_t d = 0; fits && d < preds.dim(); ++d) fits = d == 1 || mask->size(d) == preds.size(d);
  STD_TORCH_CHECK(fits, "mask has shape ", to_text(mask->sizes()), ", expected that of preds, ",
                  to_text(preds.sizes()), ", with its channels or one");
  const ScalarType type = mask->scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Bool || is_served(type), "mask has dtype ",
                  torch::headeronly::toString(type), ", expected bool or a float type");
  STD_TORCH_CHECK(mask->device() == preds.device(), "mask is on another device than preds; move one of them");
  View view = input_view(*mask);
  if (view.channels() == 1) view.stride[1] = 0;
  return {view, parsed};
}

// ---------------------------------------------------------------------------------------------------------------------
// Windows

// As the operators take them. With `taps`, windows of one's own, one after the other, of lengths
// `kernel_size`; else a Gaussian where `sigma` has elements, uniform windows of `kernel_size` where it has
// none. One element stands for all axes. Padding "reflect" and "zero" are by half the window; only the last
// axis of volumes is padded by half of `kernel_size`, whatever the window, as in torchmetrics. "valid" is
// none.
struct WindowArguments {
  const std::vector<double>& sigma;
  const std::vector<int64_t>& kernel_size;
  const std::optional<std::vector<double>>& taps;
  const std::string& padding;
};

// One window for each axis: depth, rows, columns; an image's has one tap along the depth.
struct Windows {
  std::array<Axis, 3> axes{};
  std::array<std::vector<double>, 3> taps{};  // [2 radius + 1] each
  bool sum_to_one = true;                     // but for rounding

  // In the type of the arithmetic. Rounded taps would sum to one plus or minus some roundings, which biases
  // every variance: those in the middle take the rest, each at most one unit in the last place.
  template <class T>
  std::vector<T> taps_as(size_t axis) const {
    std::vector<T> rounded(taps[axis].begin(), taps[axis].end());
    if (!sum_to_one) return rounded;
    const size_t middle = rounded.size() / 2;
    // From the smallest on; exact in double where T is float.
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

// Taps of standard deviation sigma, cut at 3.5 sigma as torchmetrics does.
inline std::vector<double> gaussian_taps(double sigma, int64_t radius) {
  std::vector<double> taps(static_cast<size_t>(2 * radius + 1));
  long double total = 0;
  for (int64_t i = 0; i <= radius; ++i) {
    const double distance = static_cast<double>(radius - i) / sigma;
    const double tap = std::exp(-(distance * distance) / 2);
    taps[static_cast<size_t>(i)] = taps[static_cast<size_t>(2 * radius - i)] = tap;
    total += i == radius ? tap : 2 * static_cast<long double>(tap);
  }
  for (double& tap : taps) tap = static_cast<double>(tap / total);
  return taps;
}

constexpr int64_t kWidestPadding = 4096;  // with zeros, of a side smaller than that

inline Windows check_windows(const View& images, bool is_volume, const WindowArguments& arguments) {
  const auto& [sigma, kernel_size, taps, padding] = arguments;
  const size_t dims = is_volume ? 3 : 2, first = 3 - dims;
  const bool reflects = padding == "reflect", is_valid = padding == "valid";
  STD_TORCH_CHECK(reflects || is_valid || padding == "zero", "padding is '", padding,
                  "', expected 'reflect', 'zero' or 'valid'");
  STD_TORCH_CHECK(sigma.size() == dims || sigma.size() <= 1, "sigma is ", to_text(sigma),
                  ", expected one number for ", "each of the ", dims,
                  " axes, one for all, or none: a uniform window");
  STD_TORCH_CHECK(kernel_size.size() == dims || kernel_size.size() == 1, "kernel_size is ",
                  to_text(kernel_size), ", expected one number for each of the ", dims,
                  " axes or one for all");
  Windows windows;
  windows.axes[0] = {1, 0, 0, reflects};
  windows.taps[0] = {1.0};
  windows.sum_to_one = !taps;
  size_t used = 0;  // of `taps`
  for (size_t d = 0; d < dims; ++d) {
    const int64_t size = kernel_size[kernel_size.size() == 1 ? 0 : d], n = images.shape[2 + first + d];
    STD_TORCH_CHECK(size > 0 && size % 2 == 1, "kernel_size is ", to_text(kernel_size),
                    ", expected odd positive numbers");
    double radius = static_cast<double>(size / 2);
    const bool is_gaussian = !taps && !sigma.empty();
    if (is_gaussian) {
      const double s = sigma[sigma.size() == 1 ? 0 : d];
      STD_TORCH_CHECK(s > 0 && std::isfinite(s), "sigma is ", to_text(sigma),
                      ", expected positive finite numbers");
      radius = std::floor(3.5 * s + 0.5);
    }
    // What no image of these sides can hold is refused before it is built.
    const bool pads_for_kernel_size = is_volume && d + 1 == dims && reflects;
    const double pad = is_valid ? 0 : pads_for_kernel_size ? static_cast<double>(size / 2) : radius;
    STD_TORCH_CHECK(!reflects || pad < static_cast<double>(n), "preds has a side of ", n,
                    ", too small for reflection by ", pad, ": each side must be larger than half its window");
    STD_TORCH_CHECK(n > 0 && static_cast<double>(n) + 2 * (pad - radius) > 0, "preds has a side of ", n,
                    ", smaller than its window of ", 2 * radius + 1, " taps");
    // Beyond the image there is nothing: a window of zeros but for a few taps would only take memory.
    STD_TORCH_CHECK(radius < static_cast<double>(std::max(n, kWidestPadding)), "preds has a side of ", n,
                    ", too small for zero padding by ", radius, ": use a smaller window");
    const Axis axis{n, static_cast<int64_t>(radius), static_cast<int64_t>(pad), reflects};
    windows.axes[first + d] = axis;
    std::vector<double>& of_axis = windows.taps[first + d];
    if (taps) {
      STD_TORCH_CHECK(taps->size() - used >= static_cast<size_t>(size), "taps has ", taps->size(),
                      " elements, expected the sum of kernel_size, ", to_text(kernel_size));
      of_axis.assign(taps->begin() + static_cast<int64_t>(used),
                     taps->begin() + static_cast<int64_t>(used) + size);
      used += static_cast<size_t>(size);
      for (double tap : of_axis)
        STD_TORCH_CHECK(std::isfinite(tap), "taps has the element ", tap, ", expected finite numbers");
    } else if (is_gaussian) {
      of_axis = gaussian_taps(sigma[sigma.size() == 1 ? 0 : d], axis.radius);
    } else {
      of_axis.assign(static_cast<size_t>(size), 1.0 / static_cast<double>(size));
    }
  }
  STD_TORCH_CHECK(!taps || used == taps->size(), "taps has ", taps ? taps->size() : 0,
                  " elements, expected the sum of kernel_size, ", to_text(kernel_size));
  return windows;
}

// ---------------------------------------------------------------------------------------------------------------------
// Constants

// c1 = (k1 L)^2 and c2 = (k2 L)^2: numbers, or in their place a tensor [2] or [B, 2] on the images' device.
struct Constants {
  double c1 = 0, c2 = 0;
  const void* data = nullptr;            // of the compute type
  int64_t image_stride = 0, stride = 0;  // from image to image, and from c1 to c2
};

inline Constants check_constants(const Tensor& preds, double data_range, double k1, double k2,
                                 const std::optional<Tensor>& constants) {
  if (!constants) {
    // Of an infinite range nothing is known.
    const double range = std::isfinite(data_range) ? data_range : std::numeric_limits<double>::quiet_NaN();
    return {(k1 * range) * (k1 * range), (k2 * range) * (k2 * range)};
  }
  const bool is_shared = constants->dim() == 1,
             is_each = constants->dim() == 2 && constants->size(0) == preds.size(0);
  STD_TORCH_CHECK((is_shared || is_each) && constants->size(constants->dim() - 1) == 2,
                  "constants has shape ", to_text(constants->sizes()),
                  ", expected [2], c1 and c2, or [B, 2]");
  STD_TORCH_CHECK(constants->scalar_type() == compute_type(preds.scalar_type()), "constants has dtype ",
                  torch::headeronly::toString(constants->scalar_type()), ", expected ",
                  torch::headeronly::toString(compute_type(preds.scalar_type())));
  STD_TORCH_CHECK(constants->device() == preds.device(),
                  "constants is on another device than preds; move one of them");
  return {0, 0, constants->const_data_ptr(), is_shared ? 0 : constants->stride(0),
          constants->stride(constants->dim() - 1)};
}

// What a stored float16 gradient is multiplied by. That of a mean over millions of pixels underflows. The
// gradient of their sum is bounded by a small multiple of 1 / sqrt(min(c1, c2)), so a power of two near the
// product of the two keeps it in range. It depends on nothing but what the backward knows, too.
inline double stored_scale(ScalarType type, int64_t elements_of_image, double c1, double c2) {
  if (type != ScalarType::Half) return 1;
  const double bound =
      static_cast<double>(std::max<int64_t>(elements_of_image, 1)) * std::sqrt(std::min(c1, c2));
  return bound > 0 && std::isfinite(bound) ? std::exp2(std::floor(std::log2(bound))) : 1;
}

// ---------------------------------------------------------------------------------------------------------------------
// The request

enum class Reduction { none, mean, sum };  // over the batch; numbered as in PyTorch

inline Reduction parse_reduction(int64_t reduction) {
  STD_TORCH_CHECK(reduction >= 0 && reduction <= 2, "reduction is ", reduction,
                  ", expected 0 (none), 1 (mean) or 2 (sum)");
  return static_cast<Reduction>(reduction);
}

// How much an image's mean counts in the derivatives: `values` [B] (all of them ones where null) times
// `scale`.
struct Upstream {
  const void* values = nullptr;  // of the compute type
  int64_t stride = 0;
  double scale = 0;
};

// One pass over images or volumes. Pointers to results are null, and views empty, where they are not wanted.
// Gradients are those of the distance: of 1 - similarity, or of 1 - contrast sensitivity.
struct Request {
  View preds, target;
  bool is_volume = false;
  Windows windows;
  Constants constants;
  Mask mask;

  Objective objective = Objective::mean_similarity;
  Upstream of_similarity,
      of_contrast;  // weights of the means in the gradients; `scale` includes 1 / their divisors
  View grad_map;    // upstream, added to the former

  Reduction reduction = Reduction::none;  // of `similarity`
  bool as_distance = false;               // one minus similarity and contrast sensitivity instead
  void* similarity = nullptr;             // [B], or one number, in the compute type
  void* contrast = nullptr;               // [B]: the contrast sensitivity
  PixelRequest pixels;                    // with it, `similarity` is the sum of both terms
  View map, grad_preds, grad_target;
  void* grad_constants = nullptr;  // [B, 2]: derivatives of each image's objective by c1 and c2
  bool keeps_constants = false;    // the same, kept by the device: of a level of MS-SSIM

  // Pixels of an image.
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
  // Outputs of an image over which the similarity is averaged; and the contrast sensitivity.
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
  // What the operators divide weights of means by. With a mask that is its sum over an image's outputs, which
  // only the device knows.
  double divisor() const { return mask ? 1 : outputs(); }
  double cropped_divisor() const { return mask ? 1 : cropped_outputs(); }
  // SSIM is symmetric: the gradient for target alone is that for preds with the images exchanged. So no
  // kernel has to know of it.
  void exchange_images() {
    std::swap(preds, target);
    std::swap(grad_preds, grad_target);
  }
};

}  // namespace ssim_fused
