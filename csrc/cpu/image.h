// Rows of an image of any dtype and stride, read into and written from contiguous rows of the compute type.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../request.h"

namespace ssim_fused::cpu {

template <class T>
using ReadRow = void (*)(const void* base, int64_t offset, int64_t stride, int64_t count, T* out);
template <class T>
using WriteRow = void (*)(void* base, int64_t offset, int64_t stride, int64_t count, const T* in);

template <class Stored, class T>
void read_row(const void* base, int64_t offset, int64_t stride, int64_t count, T* out) {
  const Stored* in = static_cast<const Stored*>(base) + offset;
  if (stride != 1) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(in[i * stride]);
  } else if constexpr (std::is_same_v<Stored, T>) {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(in[i]);
  }
}

template <class Stored, class T>
void write_row(void* base, int64_t offset, int64_t stride, int64_t count, const T* in) {
  Stored* out = static_cast<Stored*>(base) + offset;
  if (stride != 1) {
    for (int64_t i = 0; i < count; ++i) out[i * stride] = static_cast<Stored>(in[i]);
  } else if constexpr (std::is_same_v<Stored, T>) {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Stored>(in[i]);
  }
}

// Where a plane lies in a batch of images or volumes.
struct Plane {
  int64_t batch, channel, slice;
};

// A batch of planes; strides in elements: batch, channel, slice, row, column. No data: the image is not
// wanted.
template <class T>
struct Image {
  void* data = nullptr;
  int64_t element_size = 0;
  std::array<int64_t, 5> stride{};
  ReadRow<T> read = nullptr;
  WriteRow<T> write = nullptr;

  explicit operator bool() const { return data != nullptr; }
  // The same volumes, cut into planes across the rows: row r of slice s becomes row s of slice r.
  Image across_rows() const {
    Image turned = *this;
    std::swap(turned.stride[2], turned.stride[3]);
    return turned;
  }
  int64_t offset(const Plane& plane) const {
    return plane.batch * stride[0] + plane.channel * stride[1] + plane.slice * stride[2];
  }
  void read_into(T* out, int64_t plane, int64_t row, int64_t column, int64_t count) const {
    read(data, plane + row * stride[3] + column * stride[4], stride[4], count, out);
  }
  void write_from(const T* in, int64_t plane, int64_t row, int64_t column, int64_t count) const {
    write(data, plane + row * stride[3] + column * stride[4], stride[4], count, in);
  }
  // Asks for part of a row that is needed soon: rows lie on pages of their own, across which the hardware's
  // prefetchers do not look.
  void prefetch(int64_t plane, int64_t row, int64_t column, int64_t count) const {
#if defined(__GNUC__)
    if (stride[4] != 1) return;
    const char* from = static_cast<const char*>(data) + (plane + row * stride[3] + column) * element_size;
    for (int64_t byte = 0; byte < count * element_size; byte += 64) __builtin_prefetch(from + byte);
#endif
  }
};

// Reader and writer for a stored type; T is float for every type but double.
template <class T>
void select_rows(torch::headeronly::ScalarType type, Image<T>& image) {
  using torch::headeronly::ScalarType;
  image.element_size = type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
  if constexpr (std::is_same_v<T, double>) {
    STD_TORCH_CHECK(type == ScalarType::Double, "expected float64 rows");
    image.read = read_row<double, double>;
    image.write = write_row<double, double>;
  } else if (type == ScalarType::Half) {
    image.read = read_row<torch::headeronly::Half, float>;
    image.write = write_row<torch::headeronly::Half, float>;
  } else if (type == ScalarType::BFloat16) {
    image.read = read_row<torch::headeronly::BFloat16, float>;
    image.write = write_row<torch::headeronly::BFloat16, float>;
  } else {
    STD_TORCH_CHECK(type == ScalarType::Float, "expected float32 rows");
    image.read = read_row<float, float>;
    image.write = write_row<float, float>;
  }
}

// A view as an image.
template <class T>
Image<T> image_of(const View& view) {
  Image<T> image;
  if (!view) return image;
  image.data = view.data;
  image.stride = view.stride;
  select_rows(view.type, image);
  return image;
}

}  // namespace ssim_fused::cpu
