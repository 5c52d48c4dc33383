// The data structures that all kernels share: the images to read and write, and the results to compute.
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

// Pixels whose type is known at run time only: integers, or floats compared with integers. Results are
// floats.
struct AnyPixel {};
enum class PixelType : int { float32, SSIM_FOR_INTEGER_PIXELS(SSIM_PIXEL_NAME) };

// The types that kernels are compiled for: DO(name, Storage, scalar).
#define SSIM_FOR_STORAGE_TYPES(DO) SSIM_FOR_FLOAT_PIXELS(DO) DO(any, AnyPixel, Undefined)

// The type of pixels in shared memory, and of maps and gradients.
template <class Storage>
using KeptAs = std::conditional_t<std::is_same_v<Storage, AnyPixel>, float, Storage>;

// Pixels of a type known at run time, with the operations of a pointer that kernels use.
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

// Positions along an axis fit 32 bits. Offsets into an image may need 64.
using DeviceAxis = BasicAxis<int>;
constexpr int64_t kMaxAxis = int64_t{1} << 27;  // positions in eight rows must fit 32 bits

// A batch of images or volumes. Strides are in elements, in the order batch, channel, row, column; that of
// slices is separate. A plane is one channel of an image, or one slice of a channel of a volume.
template <class Storage>
struct DeviceImage {
  Storage* data = nullptr;  // [B, C, H, W] or [B, C, D, H, W]; null if not requested
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

// Returns the size of a pixel in bytes.
template <class Storage>
SSIM_HOST_DEVICE int pixel_bytes(const DeviceImage<Storage>&) {
  return sizeof(Storage);
}
SSIM_HOST_DEVICE int pixel_bytes(const DeviceImage<const AnyPixel>& array) {
  return AnyPixels::bytes(array.type);
}

// Returns c1 or c2 as the formula uses it. Positive values below the normal range are raised to its bound,
// because the float reciprocal treats denormals as zero.
SSIM_DEVICE float formula_constant(float c) {
  constexpr float kLeastNormal = 1.17549435e-38f;
  return c > 0 && c < kLeastNormal ? kLeastNormal : c;
}
SSIM_DEVICE double formula_constant(double c) { return c; }

template <class T>
struct ImageConstants {
  double c1, c2;
  const T* values;               // [B, 2] or [2], by the strides; null: c1 and c2 apply
  int64_t image_stride, stride;  // from image to image; from c1 to c2

  SSIM_DEVICE T c1_of(int64_t b) const {
    return formula_constant(values ? values[b * image_stride] : static_cast<T>(c1));
  }
  SSIM_DEVICE T c2_of(int64_t b) const {
    return formula_constant(values ? values[b * image_stride + stride] : static_cast<T>(c2));
  }
};

// The upstream gradient of a mean, as a weight for each output of image b.
template <class T>
struct Weight {
  const T* values = nullptr;  // [B]; null: all are one
  int64_t stride = 0;
  double scale = 0;

  SSIM_DEVICE T of(int64_t b) const {
    return static_cast<T>(values ? static_cast<double>(values[b * stride]) * scale : scale);
  }
};

// A per-pixel term combined with SSIM (math/pixel_term.h).
template <class T>
struct PixelTermParams {
  PixelTerm term = PixelTerm::none;
  T eps_squared{};
  T weight{};  // factor of the slopes in the gradients; 0: none are added

  SSIM_HOST_DEVICE bool adds_slopes() const { return term != PixelTerm::none && weight != T(0); }
  SSIM_DEVICE ValueAndSlope<T> of(T x, T y) const { return pixel_term(term, x - y, eps_squared); }
  // Returns value and slope times a mask's weight. Masked pixels have no effect, even if they are NaN.
  SSIM_DEVICE ValueAndSlope<T> masked(T x, T y, T weight) const {
    const auto phi = pixel_term(term, weight > T(0) ? x - y : T(0), eps_squared);
    return {weight * phi.value, weight * phi.slope};
  }
};

// The task of a launch, except for the images.
template <class T>
struct Task {
  DeviceAxis depth, rows, columns;  // images have one slice, and a window of one tap along the depth
  int64_t batch, channels;
  ImageConstants<T> constants;
  Weight<T> of_similarity, of_contrast;  // of each output in the derivatives
  bool wants_constants;                  // also sum the derivatives with respect to c1 and c2
  PixelTermParams<T> pixel_term;
  BlockSums sums;
};

template <class Storage>
struct Problem : Task<ComputeOf<Storage>> {
  DeviceImage<const Storage> preds, target;
  DeviceImage<const KeptAs<Storage>> grad_map;  // added to the weight of each output's similarity
  DeviceImage<KeptAs<Storage>> map;             // outputs, or null
  DeviceImage<KeptAs<Storage>> grad_preds, grad_target;
};

// Sixteen bytes of pixels, the largest unit of a memory access.
template <class Storage>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(Storage);
  Storage value[kSize];
};

}  // namespace ssim_fused::cuda
