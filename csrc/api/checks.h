// Checks of the operators' arguments (arguments.h), and their conversion for a Request. Messages name the
// argument, its value and what was expected.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../math/pyramid.h"
#include "arguments.h"
#include "request.h"
#include "tensors.h"

namespace ssim_fused {

inline std::string to_text(const std::vector<double>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

// Returns the enumerator with the name `value`. `names` are in the order of the enumerators.
template <class Enum, size_t count>
Enum parse_name(const char* argument, const std::string& value, const char* const (&names)[count]) {
  std::string expected;
  for (size_t i = 0; i < count; ++i) {
    if (value == names[i]) return static_cast<Enum>(i);
    expected += (i == 0 ? "'" : i + 1 < count ? "', '" : "' or '") + std::string(names[i]);
  }
  STD_TORCH_CHECK(false, argument, " is '", value, "', expected ", expected, "'");
  return {};
}

inline constexpr const char* kPaddingNames[] = {"reflect", "zero", "valid"};
inline constexpr const char* kMaskModeNames[] = {"window", "map"};
inline constexpr const char* kNormalizationNames[] = {"none", "relu", "simple"};

// The window arguments of a call, independent of its images. check_windows makes the windows of an image from
// them and checks what depends on its sides.
struct WindowSpec {
  std::vector<double> sigma;
  std::vector<int64_t> kernel_size;
  std::optional<std::vector<double>> taps;
  Padding padding;
  double data_range, k1, k2;
};

inline Reduction check_reduction(int64_t reduction) {
  STD_TORCH_CHECK(reduction >= 0 && reduction <= 2, "reduction is ", reduction,
                  ", expected 0 (none), 1 (mean) or 2 (sum)");
  return static_cast<Reduction>(reduction);
}

inline PixelRequest check_pixels(const PixelArguments& arguments) {
  PixelRequest request;
  const auto term = pixel_term_of(arguments.term);
  STD_TORCH_CHECK(term, "pixel_term is '", arguments.term, "', expected ", pixel_term_names(true));
  request.term = *term;
  STD_TORCH_CHECK(request || !arguments.want_terms, "want_terms is true and pixel_term 'none', expected ",
                  pixel_term_names(false));
  if (!request) return request;
  STD_TORCH_CHECK(arguments.ssim_weight >= 0 && arguments.ssim_weight <= 1, "ssim_weight is ",
                  arguments.ssim_weight, ", expected a number from 0 to 1");
  STD_TORCH_CHECK(!has_eps(request.term) || (arguments.eps > 0 && std::isfinite(arguments.eps)),
                  "pixel_eps is ", arguments.eps, ", expected a positive finite number");
  request.eps = arguments.eps;
  request.mean_weight = 1 - arguments.ssim_weight;
  request.ssim_weight = arguments.ssim_weight;
  return request;
}

inline LevelWeights check_levels(const PyramidArguments& arguments) {
  const std::vector<double>& betas = arguments.betas;
  STD_TORCH_CHECK(!betas.empty() && betas.size() <= kMaxLevels, "betas has ", betas.size(),
                  " elements, expected 1 to ", kMaxLevels, ", one for each level");
  LevelWeights weights{static_cast<int>(betas.size()),
                       parse_name<Normalization>("normalize", arguments.normalize, kNormalizationNames),
                       {}};
  std::copy(betas.begin(), betas.end(), weights.betas);
  return weights;
}

// All arguments of a call of SSIM or MS-SSIM except its tensors and the requested gradients, parsed and
// checked as far as possible without the images.
struct Spec {
  WindowSpec window;
  MaskMode mask_mode;
  PixelRequest pixels;
  bool want_terms;
  Reduction reduction;
  bool as_distance;
  WantedOutputs outputs;
  LevelWeights levels{};  // levels = 0 for SSIM

  Spec(WindowArguments arguments, const PixelArguments& pixel, const ReductionArguments& reductions,
       const WantedOutputs& outputs)
      : window{std::move(arguments.sigma),
               std::move(arguments.kernel_size),
               std::move(arguments.taps),
               parse_name<Padding>("padding", arguments.padding, kPaddingNames),
               arguments.data_range,
               arguments.k1,
               arguments.k2},
        mask_mode(parse_name<MaskMode>("mask_mode", arguments.mask_mode, kMaskModeNames)),
        pixels(check_pixels(pixel)),
        want_terms(pixel.want_terms),
        reduction(check_reduction(reductions.reduction)),
        as_distance(reductions.as_distance || pixels),
        outputs(outputs) {
    STD_TORCH_CHECK(!pixels || !(outputs.contrast || outputs.map), "pixel_term is '", pixel.term,
                    "', which goes with the value alone, expected want_contrast and want_map to be false");
  }
};

// -----------------------------------------------------------------------------------------------------------
// Checks that need the images

inline void check_images(const Tensor& preds, const Tensor& target) {
  STD_TORCH_CHECK(preds.dim() == 4 || preds.dim() == 5, "preds has shape ", to_text(preds.sizes()),
                  ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(std::ranges::equal(preds.sizes(), target.sizes()), "target has shape ",
                  to_text(target.sizes()), ", expected the shape of preds, ", to_text(preds.sizes()));
  const ScalarType type = preds.scalar_type();
  STD_TORCH_CHECK(is_differentiable(type) || is_integer(type), "preds has dtype ",
                  torch::headeronly::toString(type), ", expected one of ", float_names(), ", ",
                  integer_names());
  STD_TORCH_CHECK(type == target.scalar_type() || holds_integers_of(type, target.scalar_type()),
                  "target has dtype ", torch::headeronly::toString(target.scalar_type()),
                  ", expected the dtype of preds, ", torch::headeronly::toString(type));
  STD_TORCH_CHECK(preds.device() == target.device(),
                  "target is on another device than preds; move one of them");
  STD_TORCH_CHECK(preds.size(1) > 0, "preds has shape ", to_text(preds.sizes()),
                  ", expected at least one channel");
}

// Float64 results exist for integer images: those of floats are in the images' own type.
inline void check_float64(const Images& images, const Spec& spec, const WantedGradients& wanted) {
  if (!spec.outputs.float64) return;
  const Tensor& preds = images.preds;
  STD_TORCH_CHECK(is_integer(preds.scalar_type()), "want_float64 is true and preds has dtype ",
                  torch::headeronly::toString(preds.scalar_type()), ", expected one of ", integer_names());
  STD_TORCH_CHECK(preds.is_cpu(), "want_float64 is true, expected images on the CPU");
  STD_TORCH_CHECK(!images.constants && !images.mask && !spec.pixels && !wanted,
                  "want_float64 is true, expected neither constants, mask, pixel_term nor gradients");
}

inline Mask check_mask(const Tensor& preds, const std::optional<Tensor>& mask, MaskMode mode) {
  if (!mask) return {{}, mode};
  bool fits = mask->dim() == preds.dim() && (mask->size(1) == 1 || mask->size(1) == preds.size(1));
  for (int64_t d = 0; fits && d < preds.dim(); ++d) fits = d == 1 || mask->size(d) == preds.size(d);
  STD_TORCH_CHECK(fits, "mask has shape ", to_text(mask->sizes()), ", expected that of preds, ",
                  to_text(preds.sizes()), ", with its channels or one");
  const ScalarType type = mask->scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Bool || is_differentiable(type), "mask has dtype ",
                  torch::headeronly::toString(type), ", expected bool or a float type");
  STD_TORCH_CHECK(mask->device() == preds.device(), "mask is on another device than preds; move one of them");
  View view = input_view(*mask);
  if (view.channels() == 1) view.stride[1] = 0;
  return {view, mode};
}

inline Constants check_constants(const Tensor& preds, double data_range, double k1, double k2,
                                 const std::optional<Tensor>& constants) {
  if (!constants) {
    // An infinite range determines no constants, so the result is NaN.
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

// Checks an upstream gradient: one element, or one for each image.
inline Upstream check_upstream(const char* name, const std::optional<Tensor>& gradient, const Tensor& preds,
                               double scale) {
  if (!gradient) return {};
  const bool is_shared = gradient->numel() == 1,
             is_each = gradient->dim() == 1 && gradient->size(0) == preds.size(0);
  STD_TORCH_CHECK(is_shared || is_each, name, " has shape ", to_text(gradient->sizes()),
                  ", expected one element, or [B]");
  const ScalarType type = compute_type(preds.scalar_type());
  STD_TORCH_CHECK(gradient->scalar_type() == type, name, " has dtype ",
                  torch::headeronly::toString(gradient->scalar_type()), ", expected ",
                  torch::headeronly::toString(type));
  STD_TORCH_CHECK(gradient->device() == preds.device(), name,
                  " is on another device than preds; move one of them");
  return {gradient->const_data_ptr(), is_each && !(is_shared && preds.size(0) != 1) ? gradient->stride(0) : 0,
          scale};
}

// Checks a stored gradient of an image or a volume.
inline void check_gradient(const Tensor& gradient) {
  STD_TORCH_CHECK(gradient.dim() == 4 || gradient.dim() == 5, "gradient has shape ",
                  to_text(gradient.sizes()), ", expected [B, C, H, W] or [B, C, D, H, W]");
  STD_TORCH_CHECK(is_differentiable(gradient.scalar_type()), "gradient has dtype ",
                  torch::headeronly::toString(gradient.scalar_type()), ", expected one of ", float_names());
}

// Returns the taps of a Gaussian of standard deviation sigma. torchmetrics truncates at 3.5 sigma.
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

// Returns the sum of exp(-(i / sigma)^2 / 2) over the integers i from -radius to radius.
inline long double gaussian_sum(double sigma, double radius) {
  constexpr double kLongestSum = 4096;
  const auto weight = [&](double i) { return std::exp(-(i / sigma) * (i / sigma) / 2); };
  if (radius <= kLongestSum) {
    long double total = 1;
    for (double i = 1; i <= radius; ++i) total += 2 * static_cast<long double>(weight(i));
    return total;
  }
  // The Euler-Maclaurin formula: the integral, the end points and the first derivative term. The next term is
  // below 1e-16 of the sum, because sigma is above kLongestSum / 3.5.
  const long double s = sigma, root = std::sqrt(2.0L), ends = weight(radius), slope = radius / sigma / sigma;
  return s * std::sqrt(std::numbers::pi_v<long double>) * root * std::erf(radius / sigma / root) + ends -
         slope * ends / 6;
}

// Clipped windows replace zero-padded windows with a radius above n, the side of the image: taps n or more
// pixels from the middle see zero padding at every output. A clipped window has radius n, and its first and
// last tap have the weight of all taps at that distance or beyond.

inline std::vector<double> clipped_gaussian(double sigma, double radius, int64_t n) {
  std::vector<double> taps(static_cast<size_t>(2 * n + 1));
  const long double total = gaussian_sum(sigma, radius);
  long double beyond = 1;
  for (int64_t i = 0; i < n; ++i) {
    const double distance = static_cast<double>(i) / sigma;
    const auto tap = static_cast<double>(std::exp(-(distance * distance) / 2) / total);
    taps[static_cast<size_t>(n - i)] = taps[static_cast<size_t>(n + i)] = tap;
    beyond -= i == 0 ? tap : 2 * static_cast<long double>(tap);
  }
  taps.front() = taps.back() = static_cast<double>(std::max(beyond, 0.0L) / 2);
  return taps;
}

inline std::vector<double> clipped_uniform(int64_t size, int64_t n) {
  const double tap = 1 / static_cast<double>(size);
  std::vector<double> taps(static_cast<size_t>(2 * n + 1), tap);
  taps.front() = taps.back() = static_cast<double>(size / 2 - n + 1) * tap;
  return taps;
}

inline std::vector<double> clipped_taps(const std::vector<double>& window, int64_t n) {
  const auto beyond = static_cast<int64_t>(window.size() / 2) - n;  // clipped taps at either end
  std::vector<double> taps(window.begin() + beyond, window.end() - beyond);
  taps.front() = std::accumulate(window.begin(), window.begin() + beyond + 1, 0.0);
  taps.back() = std::accumulate(window.end() - beyond - 1, window.end(), 0.0);
  return taps;
}

inline Windows check_windows(const View& images, bool is_volume, const WindowSpec& spec) {
  const auto& [sigma, kernel_size, taps, padding, data_range, k1, k2] = spec;
  const size_t dims = is_volume ? 3 : 2, first = 3 - dims;
  const bool reflects = padding == Padding::reflect, is_valid = padding == Padding::valid;
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
  size_t used = 0;  // elements of `taps` read so far
  for (size_t d = 0; d < dims; ++d) {
    const int64_t size = kernel_size[kernel_size.size() == 1 ? 0 : d], n = images.shape[2 + first + d];
    STD_TORCH_CHECK(size > 0 && size % 2 == 1, "kernel_size is ", to_text(kernel_size),
                    ", expected odd positive numbers");
    double radius = static_cast<double>(size / 2);
    const bool is_gaussian = !taps && !sigma.empty();
    if (is_gaussian) {
      const double s = sigma[sigma.size() == 1 ? 0 : d];
      radius = std::floor(3.5 * s + 0.5);
      STD_TORCH_CHECK(s > 0 && std::isfinite(radius), "sigma is ", to_text(sigma),
                      ", expected positive finite numbers");
    }
    // Check the sides first: the taps of a window that is too large are not computed.
    const bool pads_for_kernel_size = is_volume && d + 1 == dims && reflects;
    const double pad = is_valid ? 0 : pads_for_kernel_size ? static_cast<double>(size / 2) : radius;
    STD_TORCH_CHECK(!reflects || pad < static_cast<double>(n), "preds has a side of ", n,
                    ", too small for reflection by ", pad, ": each side must be larger than half its window");
    STD_TORCH_CHECK(n > 0 && static_cast<double>(n) + 2 * (pad - radius) > 0, "preds has a side of ", n,
                    ", smaller than its window of ", 2 * radius + 1, " taps");
    const bool is_clipped = padding == Padding::zero && radius > static_cast<double>(n);
    const int64_t reach = is_clipped ? n : static_cast<int64_t>(radius);
    windows.axes[first + d] = {n, reach, is_clipped ? n : static_cast<int64_t>(pad), reflects};
    std::vector<double>& of_axis = windows.taps[first + d];
    if (taps) {
      STD_TORCH_CHECK(taps->size() - used >= static_cast<size_t>(size), "taps has ", taps->size(),
                      " elements, expected the sum of kernel_size, ", to_text(kernel_size));
      of_axis.assign(taps->begin() + static_cast<int64_t>(used),
                     taps->begin() + static_cast<int64_t>(used) + size);
      used += static_cast<size_t>(size);
      for (double tap : of_axis)
        STD_TORCH_CHECK(std::isfinite(tap), "taps has the element ", tap, ", expected finite numbers");
      if (is_clipped) of_axis = clipped_taps(of_axis, n);
    } else if (is_gaussian) {
      const double s = sigma[sigma.size() == 1 ? 0 : d];
      of_axis = is_clipped ? clipped_gaussian(s, radius, n) : gaussian_taps(s, reach);
    } else if (is_clipped) {
      of_axis = clipped_uniform(size, n);
    } else {
      of_axis.assign(static_cast<size_t>(size), 1.0 / static_cast<double>(size));
    }
  }
  STD_TORCH_CHECK(!taps || used == taps->size(), "taps has ", taps ? taps->size() : 0,
                  " elements, expected the sum of kernel_size, ", to_text(kernel_size));
  return windows;
}

// Returns the factor of a stored float16 gradient. The gradient of a mean over millions of pixels would
// underflow. That of their sum is bounded by a small multiple of 1 / sqrt(min(c1, c2)), so a power of two
// near the product of the number of pixels and sqrt(min(c1, c2)) keeps it in range. The factor depends only
// on values that the backward knows, too.
inline double stored_scale(ScalarType type, int64_t elements_of_image, double c1, double c2) {
  if (type != ScalarType::Half) return 1;
  const double bound =
      static_cast<double>(std::max<int64_t>(elements_of_image, 1)) * std::sqrt(std::min(c1, c2));
  return bound > 0 && std::isfinite(bound) ? std::exp2(std::floor(std::log2(bound))) : 1;
}

}  // namespace ssim_fused
