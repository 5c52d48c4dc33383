// Scratch memory between the passes over volumes (launch/volumes.cuh): four fields of every slice, moments
// first, then derivatives in their place. The fields' pixels lie in groups, [volumes, D, groups, 4, kGroup]:
// a warp reads whole lines of memory, a thread has one address for all four fields, and slices are whole
// blocks of depth.cuh.
#pragma once

#include <cstdint>

#include "device.cuh"
#include "problem.cuh"

namespace ssim_fused::cuda {

constexpr int kGroup = kWarpSize;
constexpr int kDepthThreads = 64;  // of a block of depth.cuh
static_assert(kDepthThreads % kGroup == 0);

struct SliceLayout {
  int64_t pixels;  // of one field

  SSIM_HOST_DEVICE explicit SliceLayout(const DeviceAxis& rows, const DeviceAxis& columns)
      : pixels(static_cast<int64_t>(rows.output_length()) * columns.output_length()) {}

  SSIM_HOST_DEVICE int64_t blocks() const { return (pixels + kDepthThreads - 1) / kDepthThreads; }
  SSIM_HOST_DEVICE int64_t slice_size() const { return blocks() * kDepthThreads * kPlainMoments; }
  // Of a pixel in its slice; field f's is kGroup * f further on.
  static SSIM_HOST_DEVICE int64_t place(int64_t pixel) {
    return pixel + (kPlainMoments - 1) * (pixel & ~int64_t{kGroup - 1});
  }
};

// A column's pixels in the rows from some row on.
template <class T>
class SliceColumn {
 public:
  SSIM_DEVICE SliceColumn(T* slice, int64_t pixel)
      : group_(slice + SliceLayout::place(pixel & ~int64_t{kGroup - 1})),
        rest_(static_cast<unsigned>(pixel & (kGroup - 1))) {}

  // So many pixels on, eight rows' at most.
  SSIM_DEVICE T* on(int pixels) const {
    const unsigned to = rest_ + static_cast<unsigned>(pixels);
    return group_ + (to + (kPlainMoments - 1) * (to & ~unsigned{kGroup - 1}));
  }

 private:
  T* group_;
  unsigned rest_;
};

}  // namespace ssim_fused::cuda
