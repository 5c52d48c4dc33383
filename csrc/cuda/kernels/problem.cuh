// What all kernels share: the images they read and write, and what is asked of them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../math/geometry.h"
#include "../../math/pixel_term.h"
#include "../../math/pixel_types.h"
#include "../../math/ssim.h"
#include "device.cuh"
#include "reduce.cuh"

namespace ssim_fused::cuda {

// Pixels whose type a kernel is told when it runs: integers, or floats compared with integers. Its results
// are floats.
struct AnyPixel {};
enum class PixelType : int { float32, SSIM_FOR_INTEGER_PIXELS(SSIM_PIXEL_NAME) };

// The types that kernels are compiled for: DO(name, Storage, scalar).
#define SSIM_FOR_STORAGE_TYPES(DO) SSIM_FOR_FLOAT_PIXELS(DO) DO(any, AnyPixel, Undefined)

// What is kept of pixels of type Storage in shared memory, and the type of their results.
template <class Storage>
using KeptAs = std::conditional_t<std::is_same_v<Storage, AnyPixel>, float, Storage>;

// Pixels in memory, as a pointer to them is used.
class AnyPixels {
 public:
  SSIM_HOST_DEVICE AnyPixels(const void* data, PixelType type)
      : data_(static_cast<const char*>(data)), type_(type) {}

  static SSIM_HOST_DEVICE int bytes(PixelType type) {
#define SSIM_BYTES(name, Stored, scalar) \
  if (type == PixelType::name) return sizeof(Stored);
    SSIM_FOR_INTEGER_PIXELS(SSIM_BYTES)
#undef SSIM_BYTES
    return sizeof(float);
  }
  SSIM_DEVICE AnyPixels operator+(int64_t pixels) const { return {data_ + pixels * bytes(type_), type_}; }
  SSIM_DEVICE float operator[](int64_t pixel) const {
    const char* const at = data_ + pixel * bytes(type_);
#define SSIM_READ(name, Stored, scalar) \
  if (type_ == PixelType::name) return static_cast<float>(*reinterpret_cast<const Stored*>(at));
    SSIM_FOR_INTEGER_PIXELS(SSIM_READ)
#undef SSIM_READ
    return *reinterpret_cast<const float*>(at);
  }

 private:
  const char* data_;
  PixelType type_;
};

template <class Storage>
using ComputeOf = std::conditional_t<std::is_same_v<Storage, double>, double, float>;

// Positions along an axis fit 32 bits; offsets into an image do not.
using DeviceAxis = BasicAxis<int>;
constexpr int64_t kMaxAxis = int64_t{1} << 27;  // so that positions, and eight rows of them, fit 32 bits

// A batch of images or volumes; strides in elements: batch, channel, row, column; and slice. A plane is one
// channel of one image, or one slice of it.
template <class Storage>
struct DeviceImage {
  Storage* data = nullptr;  // [B, C, H, W] or [B, C, D, H, W], by the strides; null: the image is not wanted
  int64_t stride[4] = {};
  int64_t slice_stride = 0;

  SSIM_DEVICE int64_t plane_offset(int64_t batch, int64_t channel, int64_t slice = 0) const {
    return batch * stride[0] + channel * stride[1] + slice * slice_stride;
  }
  SSIM_DEVICE Storage* plane(int64_t batch, int64_t channel) const {
    return data + plane_offset(batch, channel);
  }
};

template <>
struct DeviceImage<const AnyPixel> {
  const void* data = nullptr;
  int64_t stride[4] = {};
  int64_t slice_stride = 0;
  PixelType type = PixelType::float32;

  SSIM_DEVICE int64_t plane_offset(int64_t batch, int64_t channel, int64_t slice = 0) const {
    return batch * stride[0] + channel * stride[1] + slice * slice_stride;
  }
  SSIM_DEVICE AnyPixels plane(int64_t batch, int64_t channel) const {
    return AnyPixels(data, type) + plane_offset(batch, channel);
  }
};

// Bytes of a pixel.
template <class Storage>
SSIM_HOST_DEVICE int pixel_bytes(const DeviceImage<Storage>&) {
  return sizeof(Storage);
}
SSIM_HOST_DEVICE int pixel_bytes(const DeviceImage<const AnyPixel>& array) {
  return AnyPixels::bytes(array.type);
}

// c1 or c2 as the formula takes it: what is positive stays so in the float reciprocal, which takes denormals
// for zero.
SSIM_DEVICE float formula_constant(float c) {
  constexpr float kLeastNormal = 1.17549435e-38f;
  return c > 0 && c < kLeastNormal ? kLeastNormal : c;
}
SSIM_DEVICE double formula_constant(double c) { return c; }

template <class T>
struct ImageConstants {
  double c1, c2;
  const T* values;               // [B, 2] or [2], by the strides, in place of the numbers where given
  int64_t image_stride, stride;  // from image to image, and from c1 to c2

  SSIM_DEVICE T c1_of(int64_t b) const {
    return formula_constant(values ? values[b * image_stride] : static_cast<T>(c1));
  }
  SSIM_DEVICE T c2_of(int64_t b) const {
    return formula_constant(values ? values[b * image_stride + stride] : static_cast<T>(c2));
  }
};

// Upstream gradient of one mean, as a weight for each output of image b.
template <class T>
struct Weight {
  const T* values = nullptr;  // [B], absent: ones
  int64_t stride = 0;
  double scale = 0;

  SSIM_DEVICE T of(int64_t b) const {
    return static_cast<T>(values ? static_cast<double>(values[b * stride]) * scale : scale);
  }
};

// The term of single pixels beside SSIM (math/pixel_term.h).
template <class T>
struct PixelTermParams {
  PixelTerm term = PixelTerm::none;
  T eps_squared{};
  T weight{};  // of the slopes in the gradients; zero: they are not added

  SSIM_HOST_DEVICE bool adds_slopes() const { return term != PixelTerm::none && weight != T(0); }
  SSIM_DEVICE ValueAndSlope<T> of(T x, T y) const { return pixel_term(term, x - y, eps_squared); }
  // Times a mask's weight; what is masked is selected away, whatever it is.
  SSIM_DEVICE ValueAndSlope<T> masked(T x, T y, T weight) const {
    const auto phi = pixel_term(term, weight > T(0) ? x - y : T(0), eps_squared);
    return {weight * phi.value, weight * phi.slope};
  }
};

// What is asked for, as the kernels see it, but for the images.
template <class T>
struct Task {
  DeviceAxis depth, rows, columns;  // an image is a volume of one slice, with a window of one tap
  int64_t batch, channels;
  ImageConstants<T> constants;
  Weight<T> of_similarity, of_contrast;  // of each output in the derivatives
  bool wants_constants;                  // derivatives by c1 and c2 in the sums
  PixelTermParams<T> pixel_term;
  BlockSums sums;
};

template <class Storage>
struct Problem : Task<ComputeOf<Storage>> {
  DeviceImage<const Storage> preds, target;
  DeviceImage<const KeptAs<Storage>> grad_map;  // added to the weight of the similarity, where given
  DeviceImage<KeptAs<Storage>> map;             // outputs, where wanted
  DeviceImage<KeptAs<Storage>> grad_preds, grad_target;
};

// Sixteen bytes of pixels, the unit of memory transactions.
template <class Storage>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(Storage);
  Storage value[kSize];
};

}  // namespace ssim_fused::cuda
