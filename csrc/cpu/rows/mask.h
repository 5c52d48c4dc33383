// Reads masks as images of weights, and sums their weights over the outputs of each image.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../../api/request.h"
#include "../../math/pixel_types.h"
#include "../scratch.h"
#include "../simd/instruction_set.h"
#include "image_rows.h"
#include "read_write.h"

namespace ssim_fused::cpu {

// Converts mask values to weights. Booleans become 0 or 1; negative values and NaN become 0.
template <class Stored, class T>
SSIM_INLINE void convert_weights(const Stored* in, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<Stored, uint8_t>) {
      out[i] = static_cast<T>(int{in[i] != 0});
    } else {
      const T weight = static_cast<T>(in[i]);
      out[i] = weight > 0 ? weight : T(0);
    }
  }
}

template <class Stored, class T>
struct Weights {
  static void convert(const Stored* in, int64_t count, T* out) { convert_weights(in, count, out); }
};

#if defined(SSIM_X86_TARGETS)
template <class Stored, class T>
struct WeightsAvx2 {
  SSIM_TARGET_AVX2 static void convert(const Stored* in, int64_t count, T* out) {
    convert_weights(in, count, out);
  }
};

template <>
struct WeightsAvx2<Half, float> {
  SSIM_TARGET_AVX2 static void convert(const Half* in, int64_t count, float* out) {
    HalfRowsAvx2::widen(reinterpret_cast<const uint16_t*>(in), count, out);
    convert_weights(out, count, out);
  }
};
#endif

template <class Rows, class Stored, class T>
void read_weights(const void* base, int64_t offset, int64_t stride, int64_t count, T* out) {
  const Stored* const in = static_cast<const Stored*>(base) + offset;
  if (stride == 1) return Rows::convert(in, count, out);
  for (int64_t i = 0; i < count; ++i) convert_weights(in + i * stride, 1, out + i);
}

template <class Stored, class T>
ReadRow<T> weight_reader() {
#if defined(SSIM_X86_TARGETS)
  if (chosen_instruction_set() >= InstructionSet::avx2)
    return read_weights<WeightsAvx2<Stored, T>, Stored, T>;
#endif
  return read_weights<Weights<Stored, T>, Stored, T>;
}

// Wraps a view of a mask as an image of weights.
template <class T>
ImageRows<T> weight_rows(const View& mask) {
  ImageRows<T> image;
  if (!mask) return image;
  image.data = mask.data;
  image.stride = mask.stride;
  image.element_size = bytes_of(mask.type);
  if (mask.type == ScalarType::Bool) image.read = weight_reader<uint8_t, T>();
#define SSIM_READER(name, Stored, scalar) \
  if (mask.type == ScalarType::scalar) image.read = weight_reader<Stored, T>();
  SSIM_FOR_FLOAT_PIXELS(SSIM_READER)
#undef SSIM_READER
  return image;
}

// The sums that the means of one image are divided by: the weights of all its outputs, and of those in the
// crop.
struct MaskSum {
  double all = 0, cropped = 0;

  // Returns `weight`, an upstream weight of the outputs in a mean, divided by the sum of their mask
  // weights. Returns zero for an empty mask.
  double share(double weight, bool is_cropped) const {
    const double sum = is_cropped ? cropped : all;
    return sum > 0 ? weight / sum : 0;
  }
};

// Returns the sums of each image's mask. `channels` is the number of channels of the images; a mask with a
// single channel counts once for each of them.
template <class T>
std::vector<MaskSum> mask_sums(const View& mask, int64_t channels, const std::array<Axis, 3>& axes) {
  const ImageRows<T> weights = weight_rows<T>(mask);
  const auto& [depth, rows, columns] = axes;
  const int64_t slices = depth.output_length(), height = rows.output_length(),
                width = columns.output_length();
  const int64_t of_plane = slices * height, of_image = mask.channels() * of_plane;
  std::vector<MaskSum> of_rows(static_cast<size_t>(mask.batch() * of_image));
  parallel_for(0, static_cast<int64_t>(of_rows.size()), std::max<int64_t>(1, 32768 / width),
               [&, &depth = depth, &rows = rows, &columns = columns](int64_t begin, int64_t end) {
                 const Scratch<T> row(width);
                 const auto sum = [&](int64_t from, int64_t to) {
                   constexpr int64_t kLanes = 16;
                   T lanes[kLanes] = {};
                   for (; from + kLanes <= to; from += kLanes)
                     for (int64_t k = 0; k < kLanes; ++k) lanes[k] += row.get()[from + k];
                   double total = 0;
                   for (; from < to; ++from) total += static_cast<double>(row.get()[from]);
                   for (T lane : lanes) total += static_cast<double>(lane);
                   return total;
                 };
                 for (int64_t task = begin; task < end; ++task) {
                   const int64_t z = task % of_plane / height, y = task % height;
                   const int64_t plane =
                       weights.offset({task / of_image, task % of_image / of_plane, depth.centre(z)});
                   read_extended(weights, columns, plane, rows.centre(y), columns.centre(0), width, row.get(),
                                 T(1));
                   MaskSum& result = of_rows[static_cast<size_t>(task)];
                   const int64_t crop_begin = std::min(columns.crop_begin(), width),
                                 crop_end = std::max(columns.crop_end(), crop_begin);
                   const double cropped = sum(crop_begin, crop_end);
                   result.all = sum(0, crop_begin) + cropped + sum(crop_end, width);
                   if (depth.is_in_crop(z) && rows.is_in_crop(y)) result.cropped = cropped;
                 }
               });
  std::vector<MaskSum> sums(static_cast<size_t>(mask.batch()));
  const double shared = static_cast<double>(channels / mask.channels());
  for (size_t i = 0; i < of_rows.size(); ++i) {
    MaskSum& image = sums[i / static_cast<size_t>(of_image)];
    image.all += shared * of_rows[i].all;
    image.cropped += shared * of_rows[i].cropped;
  }
  return sums;
}

// Returns the sum of the mask's weights over each image's pixels.
template <class T>
std::vector<double> pixel_weights(const View& mask, int64_t channels) {
  std::array<Axis, 3> axes{};
  for (size_t d = 0; d < 3; ++d) axes[d] = {mask.shape[2 + d], 0, 0, false};
  std::vector<double> weights;
  for (const MaskSum& sum : mask_sums<T>(mask, channels, axes)) weights.push_back(sum.all);
  return weights;
}

}  // namespace ssim_fused::cpu
