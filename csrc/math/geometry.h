// Where outputs, taps and inputs lie along one axis. Host and device.
//
// Input positions run over [0, n). With `pad` more positions on either side they are the extended positions
// [-pad, n + pad), which reflect back into the input or read as zero. Output o is centred on input
// o + radius - pad and its tap k lies at extended position o - pad + k, for k in [0, 2 radius].
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

namespace ssim_fused {

template <class Index>  // CUDA kernels count positions in 32 bits
struct BasicAxis {
  Index n;        // input length
  Index radius;   // of the window
  Index pad;      // at either end; 0 is "valid", radius is "same"
  bool reflects;  // else extended positions outside the input read as zero

  SSIM_HOST_DEVICE Index output_length() const { return n + 2 * (pad - radius); }
  SSIM_HOST_DEVICE Index centre(Index output) const { return output + radius - pad; }
  SSIM_HOST_DEVICE bool is_output(Index output) const { return output >= 0 && output < output_length(); }
  // The contrast sensitivity is averaged over the outputs without the first and the last `pad`.
  SSIM_HOST_DEVICE Index crop_begin() const { return pad; }
  SSIM_HOST_DEVICE Index crop_end() const { return output_length() - pad; }
  SSIM_HOST_DEVICE bool is_in_crop(Index output) const {
    return output >= crop_begin() && output < crop_end();
  }

  // The same by the input position z that an output is centred on: n - z is as far from the end as z from the
  // beginning.
  SSIM_HOST_DEVICE Index output_at(Index z) const { return z - (radius - pad); }
  SSIM_HOST_DEVICE bool has_output_at(Index z) const { return z >= radius - pad && z < n - (radius - pad); }
  SSIM_HOST_DEVICE bool is_in_crop_at(Index z) const { return z >= radius && z < n - radius; }

  // Input position that extended position e reads; -1 where it reads zero. One bounce suffices: pad < n.
  SSIM_HOST_DEVICE Index source(Index e) const {
    if (e >= 0 && e < n) return e;
    if (!reflects) return -1;
    return e < 0 ? -e : 2 * (n - 1) - e;
  }

  // Whether outputs are as many as inputs, and none sees both ends: what padding then repeats lies about the
  // first and the last input as what it repeats does.
  SSIM_HOST_DEVICE bool mirrors() const { return reflects && pad == radius && pad > 0 && n > 2 * radius; }

  // Whether the derivative of input i takes part of reflected positions', too.
  SSIM_HOST_DEVICE bool is_folded(Index i) const {
    return reflects && ((i >= 1 && i <= pad) || (i <= n - 2 && i >= n - 1 - pad));
  }

  // The adjoint of padding and window: the derivative at output `output` reaches input i with this weight,
  // the sum of the taps over the extended positions that read i.
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

// Windows that reach beyond both ends of an image, padded by zeros: the weight that the window in the middle
// of the axis gives to pixels of the image; about as much as any window does. One for shorter windows.
template <class Index, class Taps>
double weight_of_image(const BasicAxis<Index>& axis, const Taps& taps) {
  if (axis.reflects || axis.pad != axis.radius || axis.radius < axis.n) return 1;
  double weight = 0;
  for (Index i = 0; i < axis.n; ++i)
    weight += static_cast<double>(taps[static_cast<size_t>(axis.radius - axis.n / 2 + i)]);
  return weight;
}

// Whether windows see zero padding for the most part, by the weight that they give to the image. Moments are
// then taken about zero: about a pivot among the pixels, those of a window would be small differences.
constexpr bool is_mostly_padding(double weight_of_image) { return weight_of_image < 0.5; }

}  // namespace ssim_fused
