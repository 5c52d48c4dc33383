// Memory of one task or one call, uninitialised, in whole cache lines. Each thread keeps what its tasks need
// from call to call: freed to malloc by many threads, buffers of many sizes tear the heap apart until it
// grows without bound. What is too large to be kept comes from the system and returns to it, in large pages
// where it can: a fault for each small page took a quarter of the time of a volume of 128x128x128.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "pages.h"

namespace ssim_fused::cpu {

constexpr size_t kLine = 64;  // bytes of a cache line, and of the widest vector

// What a thread keeps, until it ends. Handed out and given back as a stack.
class ThreadMemory {
 public:
  static ThreadMemory& of_this_thread() {
    static thread_local ThreadMemory memory;
    return memory;
  }
  ThreadMemory() = default;
  ThreadMemory(const ThreadMemory&) = delete;
  ThreadMemory& operator=(const ThreadMemory&) = delete;
  ~ThreadMemory() { drop(); }

  // Null where there is no room. Unless it is too large, then there will be from the next time on that
  // nothing is in use.
  void* allocate(size_t bytes) {
    if (bytes > kMostKept) return nullptr;
    wanted_ = std::max(wanted_, used_ + bytes);
    if (used_ == 0 && wanted_ > size_) {
      drop();
      const size_t size = std::bit_ceil(std::max(wanted_, kLeastKept));
      data_ = static_cast<std::byte*>(map_pages(size));
      size_ = size;
    }
    if (used_ + bytes > size_) return nullptr;
    void* const taken = data_ + used_;
    used_ += bytes;
    return taken;
  }
  void give_back(size_t bytes) { used_ -= bytes; }

 private:
  static constexpr size_t kLeastKept = size_t{1} << 16;
  // Of one buffer. Mapping the fields of a volume of 96x96x96, 14 MiB, anew for each call took a third of its
  // time.
  static constexpr size_t kMostKept = size_t{1} << 25;

  void drop() {
    if (data_) unmap_pages(data_, size_);
    data_ = nullptr;
    size_ = 0;
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0, used_ = 0, wanted_ = 0;
};

// Lives on the stack of the thread that uses it.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_((static_cast<size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine),
        data_(ThreadMemory::of_this_thread().allocate(bytes_)),
        is_kept_(data_ != nullptr) {
    if (!is_kept_) data_ = map_pages(std::max(bytes_, kLine));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (is_kept_) {
      ThreadMemory::of_this_thread().give_back(bytes_);
    } else {
      unmap_pages(data_, std::max(bytes_, kLine));
    }
  }
  T* get() const { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_;
  bool is_kept_;
};

}  // namespace ssim_fused::cpu
