// The positions of outputs, taps and inputs along one axis. For host and device.
//
// Inputs have positions [0, n). Padding extends them by `pad` on either side to the extended positions [-pad,
// n + pad), which reflect into the input or read as zero. Output o is centred on input o + radius - pad, and
// its tap k is at extended position o - pad + k, for k in [0, 2 radius].
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

namespace ssim_fused {

template <class Index>  // 32 bits in CUDA kernels
struct BasicAxis {
  Index n;        // input length
  Index radius;   // of the window, which has 2 radius + 1 taps
  Index pad;      // positions added at either end: 0 is "valid", radius is "same"
  bool reflects;  // otherwise positions outside the input read as zero

  SSIM_HOST_DEVICE Index output_length() const { return n + 2 * (pad - radius); }
  SSIM_HOST_DEVICE Index centre(Index output) const { return output + radius - pad; }
  SSIM_HOST_DEVICE bool is_output(Index output) const { return output >= 0 && output < output_length(); }
  // Contrast sensitivity is averaged over the crop: all outputs except the first `pad` and the last `pad`.
  SSIM_HOST_DEVICE Index crop_begin() const { return pad; }
  SSIM_HOST_DEVICE Index crop_end() const { return output_length() - pad; }
  SSIM_HOST_DEVICE bool is_in_crop(Index output) const {
    return output >= crop_begin() && output < crop_end();
  }

  // The functions with "at" take z, the input position that an output is centred on. The conditions are
  // symmetric in z and n - 1 - z.
  SSIM_HOST_DEVICE Index output_at(Index z) const { return z - (radius - pad); }
  SSIM_HOST_DEVICE bool has_output_at(Index z) const { return z >= radius - pad && z < n - (radius - pad); }
  SSIM_HOST_DEVICE bool is_in_crop_at(Index z) const { return z >= radius && z < n - radius; }

  // Returns the input position that extended position e reads, or -1 if it reads zero. One reflection
  // suffices because pad < n.
  SSIM_HOST_DEVICE Index source(Index e) const {
    if (e >= 0 && e < n) return e;
    if (!reflects) return -1;
    return e < 0 ? -e : 2 * (n - 1) - e;
  }

  // Returns whether there is one output per input, padded by reflection, and no window reaches beyond both
  // ends. Positions beyond an end then have the same neighbours, mirrored, as the inputs they repeat, so
  // moments and derivatives may be mirrored instead of computed.
  SSIM_HOST_DEVICE bool mirrors() const { return reflects && pad == radius && pad > 0 && n > 2 * radius; }

  // Returns whether input i is also read through reflected positions, so that its derivative has more than
  // one part.
  SSIM_HOST_DEVICE bool is_folded(Index i) const {
    return reflects && ((i >= 1 && i <= pad) || (i <= n - 2 && i >= n - 1 - pad));
  }

  // Returns the weight in the adjoint of padding and window with which the derivative at `output` contributes
  // to input i: the sum of the taps over the extended positions that read i.
  template <class T>
  SSIM_HOST_DEVICE T adjoint_tap(const T* taps, Index i, Index output) const {
    if (!is_output(output)) return T(0);
    T weight = tap_at(taps, i, output);
    if (!reflects) return weight;
    if (i >= 1 && i <= pad) weight += tap_at(taps, -i, output);
    if (i <= n - 2 && i >= n - 1 - pad) weight += tap_at(taps, 2 * (n - 1) - i, output);
    return weight;
  }

 private:
  template <class T>
  SSIM_HOST_DEVICE T tap_at(const T* taps, Index extended, Index output) const {
    const Index k = extended + pad - output;
    return k >= 0 && k <= 2 * radius ? taps[k] : T(0);
  }
};

using Axis = BasicAxis<int64_t>;

// Returns the part of a window's weight that falls on the image, for windows that reach beyond both ends of a
// zero-padded axis: that of the window in the middle of the axis, which is close to that of any other window.
// Returns 1 for shorter windows and other padding.
template <class Index, class Taps>
double weight_of_image(const BasicAxis<Index>& axis, const Taps& taps) {
  if (axis.reflects || axis.pad != axis.radius || axis.radius < axis.n) return 1;
  double weight = 0;
  for (Index i = 0; i < axis.n; ++i)
    weight += static_cast<double>(taps[static_cast<size_t>(axis.radius - axis.n / 2 + i)]);
  return weight;
}

// Returns whether windows mostly see zero padding, given `weight_of_image` of the axes. Moments are then
// computed about zero: about a pivot among the pixels, they would be small differences of large numbers.
constexpr bool is_mostly_padding(double weight_of_image) { return weight_of_image < 0.5; }

}  // namespace ssim_fused
