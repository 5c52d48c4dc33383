// How the pyramid's kernels divide a batch. A block processes a tile of a plane, and a thread a patch of the
// tile: a few rows of one column or, if rows are whole aligned vectors, of several columns. Finding the plane
// and the tile takes divisions, once per patch. Within a plane, positions have 32 bits and addresses 64.
#pragma once

#include <cstdint>

#include "problem.cuh"

namespace ssim_fused::cuda {

constexpr int kPyramidThreads = 256;
constexpr int kTileWidth = kWarpSize;  // the patches of a row of the tile: one warp
constexpr int kTileHeight = kPyramidThreads / kTileWidth;

// The sides of an image or a volume. An image has one slice.
struct DeviceSize {
  int depth, height, width;
};

// The position of a pixel in a batch.
struct PixelPlace {
  int64_t batch, channel;
  int slice, row, column;

  template <class Storage>
  SSIM_DEVICE decltype(auto) of(const DeviceImage<Storage>& array) const {
    return from(array)[0];
  }
  // Returns a pointer to the pixel.
  template <class Storage>
  SSIM_DEVICE auto from(const DeviceImage<Storage>& array) const {
    return array.plane(batch, channel) +
           (slice * array.slice_stride + row * array.stride[2] + column * array.stride[3]);
  }
};

// Divides `index` by each of the divisors in turn, stores the remainders and returns the last quotient.
// Divisions have 32 bits if all numbers fit, since those of 64 bits take several times as long.
template <class Index, int kCount>
SSIM_DEVICE Index split(Index index, const int64_t (&divisors)[kCount], int64_t (&remainders)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const Index divisor = static_cast<Index>(divisors[i]), quotient = index / divisor;
    remainders[i] = static_cast<int64_t>(index - quotient * divisor);
    index = quotient;
  }
  return index;
}
template <int kCount>
SSIM_DEVICE int64_t split_index(int64_t index, const int64_t (&divisors)[kCount],
                                int64_t (&remainders)[kCount]) {
  bool fits = index <= UINT32_MAX;
  for (int64_t divisor : divisors) fits = fits && divisor <= UINT32_MAX;
  return fits ? static_cast<int64_t>(split(static_cast<uint32_t>(index), divisors, remainders))
              : static_cast<int64_t>(split(static_cast<uint64_t>(index), divisors, remainders));
}

// Returns the position of the pixel with this index, counted along the rows.
SSIM_DEVICE PixelPlace pixel_place(int64_t index, int64_t channels, const DeviceSize& size) {
  int64_t place[4];
  const int64_t batch = split_index(index, {size.width, size.height, size.depth, channels}, place);
  return {batch, place[3], static_cast<int>(place[2]), static_cast<int>(place[1]),
          static_cast<int>(place[0])};
}

struct Tiles {
  int64_t count = 0;  // tiles of the batch
  // Consecutive tiles differ in channel, so that interleaved pixels are read at the same time.
  int64_t channels = 0;
  int depth = 0;                          // slices
  int rows = 0, columns = 0;              // tiles of a plane
  int patch_rows = 0, patch_columns = 0;  // pixels per thread

  // Returns the position of the first pixel of the thread's patch, which may be outside the plane.
  SSIM_DEVICE PixelPlace patch(int64_t tile, int thread) const {
    int64_t place[4];
    const int64_t batch = split_index(tile, {channels, columns, rows, depth}, place);
    const int row = static_cast<int>(place[2]) * kTileHeight + thread / kTileWidth,
              column = static_cast<int>(place[1]) * kTileWidth + thread % kTileWidth;
    return {batch, place[0], static_cast<int>(place[3]), row * patch_rows, column * patch_columns};
  }
};

// Consecutive pixels, which are read and written as whole aligned vectors.
template <class Storage, int kCount>
struct alignas(kCount * sizeof(Storage) < 16 ? kCount * sizeof(Storage) : 16) Pack {
  Storage value[kCount];
};

// Reads one pixel, or a pack of them.
template <int kCount, class Storage>
SSIM_DEVICE void read_pixels(ComputeOf<std::remove_const_t<Storage>> (&out)[kCount], Storage* from) {
  if constexpr (kCount == 1) {
    out[0] = to_compute(from[0]);
  } else {
    const auto pack = *reinterpret_cast<const Pack<std::remove_const_t<Storage>, kCount>*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = to_compute(pack.value[i]);
  }
}
SSIM_DEVICE void read_pixels(float (&out)[1], const AnyPixels& from) { out[0] = from[0]; }

template <int kCount, class Storage, class T>
SSIM_DEVICE void write_pixels(Storage* to, const T (&values)[kCount]) {
  if constexpr (kCount == 1) {
    store_as(to[0], values[0]);
  } else {
    using Whole = Pack<Storage, kCount>;
    Whole pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) store_as(pack.value[i], values[i]);
#pragma unroll
    for (int i = 0; i < kCount; i += static_cast<int>(alignof(Whole) / sizeof(Storage)))
      store_vector<alignof(Whole)>(to + i, pack.value + i);
  }
}

}  // namespace ssim_fused::cuda
