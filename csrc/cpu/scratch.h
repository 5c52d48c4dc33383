// Scratch memory of one task or one call: uninitialized, in whole cache lines. Each thread keeps the buffers
// of its tasks from call to call, because buffers of many sizes that many threads return to malloc fragment
// the heap until it grows without bound. Buffers that are too large to be kept are mapped from the system and
// unmapped after use, in large pages if possible: with small pages, page faults took a quarter of the time of
// a volume of 128x128x128.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "pages.h"

namespace ssim_fused::cpu {

constexpr size_t kLine = 64;  // bytes of a cache line, and of the widest vector

// The scratch memory that a thread keeps until it ends. It is a stack: the last allocation is freed first.
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

  // Returns null if the memory is full. A request of at most kMostKept bytes enlarges the memory the next
  // time that none of it is in use.
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
  // The largest buffer that is kept. Mapping the fields of a volume of 96x96x96, 14 MiB, for each call took a
  // third of the call's time.
  static constexpr size_t kMostKept = size_t{1} << 25;

  void drop() {
    if (data_) unmap_pages(data_, size_);
    data_ = nullptr;
    size_ = 0;
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0, used_ = 0, wanted_ = 0;
};

// An array in scratch memory, freed by its destructor. It must be a local variable of the thread that uses
// it, because the thread's memory is a stack.
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
