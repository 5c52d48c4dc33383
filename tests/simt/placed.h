// Images for the tests of the pyramid, in the memory layout that a case names.
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cuda/kernels/patch.cuh"
#include "files.h"

using ssim_fused::cuda::DeviceSize;

// Returns the sides of a shape [B, C, H, W] or [B, C, D, H, W].
inline DeviceSize size_of(const std::vector<int64_t>& shape) {
  const size_t last = shape.size() - 1;
  return {shape.size() == 5 ? static_cast<int>(shape[2]) : 1, static_cast<int>(shape[last - 1]),
          static_cast<int>(shape[last])};
}

inline DeviceSize halved(const DeviceSize& size, int slices) {
  return {size.depth / slices, size.height / 2, size.width / 2};
}

// The raw pixels of an image, which checks that nothing around them is written. They are in an allocation of
// exactly their size or, with the layout "far", in rows so far apart that offsets in a plane need more than
// 32 bits.
class Placed {
 public:
  // `values` are contiguous pixels. If empty, every byte of the pixels is 0xff, a NaN, like those between the
  // rows.
  Placed(const std::string& layout, int64_t batch, int64_t channels, const DeviceSize& size,
         size_t pixel_bytes, const std::vector<char>& values)
      : shape_{batch, channels, size.depth, size.height, size.width}, pixel_bytes_(pixel_bytes) {
    const int64_t width = size.width;
    const auto rows_apart = [&](int64_t row) {
      const int64_t slice = row * size.height, plane = slice * size.depth;
      stride_ = {plane * channels, plane, slice, row, 1};
    };
    rows_apart(width);
    if (layout == "channels_last") {
      const int64_t row = width * channels, slice = row * size.height;
      stride_ = {slice * size.depth, 1, slice, row, channels};
    } else if (layout == "shifted") {  // contiguous, from an odd offset on
      offset_ = 1;
    } else if (layout == "padded") {  // each row begins with a vector
      rows_apart((width + 11) / 8 * 8);
    } else if (layout == "far") {
      rows_apart((int64_t{1} << 30) + 8);
    } else if (layout != "contiguous") {
      throw std::runtime_error("unknown layout " + layout);
    }
    int64_t last = offset_;
    for (size_t d = 0; d < 5; ++d) last += (shape_[d] - 1) * stride_[d];
    bytes_ = static_cast<size_t>(last + 1) * pixel_bytes;
    is_far_ = layout == "far";
    void* memory = nullptr;
    if (is_far_) {  // pages are allocated when they are touched
      memory =
          mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) throw std::runtime_error("no memory for an image of layout far");
    } else {
      if (posix_memalign(&memory, 16, bytes_) != 0) throw std::runtime_error("no memory");
      std::memset(memory, 0xff, bytes_);
    }
    memory_ = static_cast<char*>(memory);
    if (is_far_) for_pixels([&](char* at, size_t) { std::memset(at, 0xff, pixel_bytes_); });
    if (!values.empty())
      for_pixels([&](char* at, size_t from) { std::memcpy(at, values.data() + from, pixel_bytes_); });
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  ~Placed() { is_far_ ? static_cast<void>(munmap(memory_, bytes_)) : std::free(memory_); }

  // Returns the pixels, contiguous, and overwrites them. Throws if a byte outside them was written.
  std::vector<char> values() {
    std::vector<char> found(static_cast<size_t>(shape_[0] * shape_[1] * shape_[2] * shape_[3] * shape_[4]) *
                            pixel_bytes_);
    for_pixels([&](char* at, size_t to) {
      std::memcpy(found.data() + to, at, pixel_bytes_);
      std::memset(at, 0xff, pixel_bytes_);
    });
    for (size_t i = 0; !is_far_ && i < bytes_; ++i) {
      if (memory_[i] != char(0xff))
        throw std::runtime_error("memory outside the pixels of an image was written");
    }
    return found;
  }

  template <class Storage>
  ssim_fused::cuda::DeviceImage<Storage> device_image() const {
    return {reinterpret_cast<Storage*>(data()), {stride_[0], stride_[1], stride_[3], stride_[4]}, stride_[2]};
  }
  char* data() const { return memory_ + offset_ * static_cast<int64_t>(pixel_bytes_); }
  const std::array<int64_t, 5>& stride() const { return stride_; }

 private:
  // Calls f(pixel, its offset in bytes in contiguous order).
  template <class F>
  void for_pixels(F&& f) {
    size_t next = 0;
    std::array<int64_t, 5> at{};
    for (at[0] = 0; at[0] < shape_[0]; ++at[0])
      for (at[1] = 0; at[1] < shape_[1]; ++at[1])
        for (at[2] = 0; at[2] < shape_[2]; ++at[2])
          for (at[3] = 0; at[3] < shape_[3]; ++at[3])
            for (at[4] = 0; at[4] < shape_[4]; ++at[4], next += pixel_bytes_) {
              int64_t place = 0;
              for (size_t d = 0; d < 5; ++d) place += at[d] * stride_[d];
              f(data() + place * static_cast<int64_t>(pixel_bytes_), next);
            }
  }

  std::array<int64_t, 5> shape_, stride_{};
  int64_t offset_ = 0;
  size_t pixel_bytes_, bytes_ = 0;
  bool is_far_ = false;
  char* memory_ = nullptr;
};

struct BlockLauncher {
  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    simt::launch(blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
                 [&] { kernel(params); });
  }
};

// Launches one block fewer than there are tiles, so that a block processes several.
struct TileLauncher {
  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    BlockLauncher().launch<kernel>(std::max<int64_t>(1, blocks - 1), threads, shared_bytes, params);
  }
};

// Returns the image of a case, with its type if Storage is AnyPixel.
template <class Storage>
ssim_fused::cuda::DeviceImage<const Storage> image_of(const Case& c, const std::string& name,
                                                      const Placed& placed) {
  if constexpr (std::is_same_v<Storage, ssim_fused::cuda::AnyPixel>) {
    const auto& stride = placed.stride();
    return {placed.data(),
            {stride[0], stride[1], stride[3], stride[4]},
            stride[2],
            pixel_type(c, name + "_type")};
  } else {
    return placed.device_image<const Storage>();
  }
}
template <class Storage>
size_t image_bytes(const Case& c, const std::string& name) {
  using namespace ssim_fused::cuda;
  if constexpr (std::is_same_v<Storage, AnyPixel>) {
    return static_cast<size_t>(AnyPixels::bytes(pixel_type(c, name + "_type")));
  } else {
    return sizeof(Storage);
  }
}
