// The layout of scratch memory between the passes over volumes (launch/volumes.cuh). It holds four fields per
// slice: moments first, later derivatives in place. Pixels are stored in groups, [volumes, D, groups, 4,
// kGroup], so that a warp reads whole cache lines, a thread needs one address for all four fields, and a
// slice is a whole number of depth.cuh's blocks.
#pragma once

#include <cstdint>

#include "device.cuh"
#include "problem.cuh"

namespace ssim_fused::cuda {

constexpr int kGroup = kWarpSize;
constexpr int kDepthThreads = 64;  // threads of a block of depth.cuh
static_assert(kDepthThreads % kGroup == 0);

struct SliceLayout {
  int64_t pixels;  // of one field of a slice

  SSIM_HOST_DEVICE explicit SliceLayout(const DeviceAxis& rows, const DeviceAxis& columns)
      : pixels(static_cast<int64_t>(rows.output_length()) * columns.output_length()) {}

  SSIM_HOST_DEVICE int64_t blocks() const { return (pixels + kDepthThreads - 1) / kDepthThreads; }
  SSIM_HOST_DEVICE int64_t slice_size() const { return blocks() * kDepthThreads * kPlainMoments; }
  // Returns the offset of a pixel's field 0 in its slice. Field f is kGroup * f further on.
  static SSIM_HOST_DEVICE int64_t place(int64_t pixel) {
    return pixel + (kPlainMoments - 1) * (pixel & ~int64_t{kGroup - 1});
  }
};

// Addresses of the pixels of one column, for the rows from a first row on.
template <class T>
class SliceColumn {
 public:
  SSIM_DEVICE SliceColumn(T* slice, int64_t pixel)
      : group_(slice + SliceLayout::place(pixel & ~int64_t{kGroup - 1})),
        rest_(static_cast<unsigned>(pixel & (kGroup - 1))) {}

  // Returns the address of the pixel that is `pixels` further on, at most those of eight rows.
  SSIM_DEVICE T* on(int pixels) const {
    const unsigned to = rest_ + static_cast<unsigned>(pixels);
    return group_ + (to + (kPlainMoments - 1) * (to & ~unsigned{kGroup - 1}));
  }

 private:
  T* group_;
  unsigned rest_;
};

}  // namespace ssim_fused::cuda
