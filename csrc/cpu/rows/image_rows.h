// An image of any dtype and strides. Its rows are read into, and written from, contiguous rows of the
// compute type.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "../../math/geometry.h"
#include "../simd/lanes.h"

namespace ssim_fused::cpu {

template <class T>
using ReadRow = void (*)(const void* base, int64_t offset, int64_t stride, int64_t count, T* out);
template <class T>
using WriteRow = void (*)(void* base, int64_t offset, int64_t stride, int64_t count, const T* in);

// The position of a plane in a batch of images or volumes.
struct Plane {
  int64_t batch, channel, slice;
};

// A batch of planes. Strides are in elements: batch, channel, slice, row, column. `data` is null if the
// image is not given or not requested.
template <class T>
struct ImageRows {
  void* data = nullptr;
  int64_t element_size = 0;
  std::array<int64_t, 5> stride{};
  ReadRow<T> read = nullptr;
  WriteRow<T> write = nullptr;
  bool is_plain = false;  // rows are contiguous and of type T, so they can be read in place

  explicit operator bool() const { return data != nullptr; }
  // Returns the same volumes cut into planes across the rows: row r of slice s becomes row s of slice r.
  ImageRows across_rows() const {
    ImageRows turned = *this;
    std::swap(turned.stride[2], turned.stride[3]);
    return turned;
  }
  int64_t offset(const Plane& plane) const {
    return plane.batch * stride[0] + plane.channel * stride[1] + plane.slice * stride[2];
  }
  void read_into(T* out, int64_t plane, int64_t row, int64_t column, int64_t count) const {
    read(data, plane + row * stride[3] + column * stride[4], stride[4], count, out);
  }
  // Returns part of a row: in place if possible, otherwise read into `row`.
  const T* see(T* row, int64_t plane, int64_t y, int64_t column, int64_t count) const {
    if (is_plain) return static_cast<const T*>(data) + plane + y * stride[3] + column;
    read_into(row, plane, y, column, count);
    return row;
  }
  void write_from(const T* in, int64_t plane, int64_t row, int64_t column, int64_t count) const {
    write(data, plane + row * stride[3] + column * stride[4], stride[4], count, in);
  }
  // Prefetches part of a row that is soon read, or `written`. Hardware prefetchers do not look across
  // pages, and the rows of large images lie on different pages.
  template <bool written = false>
  SSIM_INLINE void prefetch(int64_t plane, int64_t row, int64_t column, int64_t count) const {
    if (stride[4] != 1) return;
    const char* from = static_cast<const char*>(data) + (plane + row * stride[3] + column) * element_size;
    for (int64_t byte = 0; byte < count * element_size; byte += 64)
      __builtin_prefetch(from + byte, written ? 1 : 0);
  }
};

// Fills extended columns [from, to) of a row, all of them beyond the same end, with reflected columns or
// `outside`. `out` begins at column `begin` and holds the row's own columns. Not inlined, because compilers
// turn this loop over a few pixels into kilobytes of vector code.
template <class T>
[[gnu::noinline]] void extend(const Axis& axis, int64_t begin, int64_t from, int64_t to, T* out, T outside) {
  if (!axis.reflects) {
    std::fill(out + (from - begin), out + (to - begin), outside);
  } else {
    const int64_t about = from < 0 ? 0 : 2 * (axis.n - 1);
    const T* mirrored = out + (about - from - begin);
    for (T *place = out + (from - begin), *const end = out + (to - begin); place < end;)
      *place++ = *mirrored--;
  }
}

// Reads extended columns [e, e + count) of an input row. Without reflection, columns outside the image are
// set to `outside`.
template <class T>
SSIM_INLINE void read_extended(const ImageRows<T>& image, const Axis& axis, int64_t plane, int64_t row,
                               int64_t e, int64_t count, T* out, T outside = T(0)) {
  const int64_t from = std::max<int64_t>(e, 0), to = std::min(e + count, axis.n);
  image.read_into(out + (from - e), plane, row, from, to - from);
  if (e < from) extend(axis, e, e, from, out, outside);
  if (to < e + count) extend(axis, e, to, e + count, out, outside);
}

}  // namespace ssim_fused::cpu
