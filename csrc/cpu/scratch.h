// Memory of one call, uninitialised. Little memory malloc keeps from call to call. The rest is fresh each
// time, and comes in large pages, where the system can: a fault for each small page took a quarter of the
// time of a volume of 128x128x128.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ssim_fused {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(allocate(static_cast<size_t>(count) * sizeof(T))) {
    if (!data_) throw std::bad_alloc();
  }
  T* get() const { return data_.get(); }

 private:
  static T* allocate(size_t bytes) {
#if defined(__linux__)
    constexpr size_t kKept = size_t{1} << 25;  // glibc keeps no more than that
    constexpr size_t kPage = size_t{1} << 21;
    if (bytes > kKept) {
      const size_t whole_pages = (bytes + kPage - 1) / kPage * kPage;
      void* const data = std::aligned_alloc(kPage, whole_pages);
      if (data)
        madvise(data, whole_pages, MADV_HUGEPAGE);  // advice: where it is not taken, small pages serve
      return static_cast<T*>(data);
    }
#endif
    return static_cast<T*>(std::malloc(bytes));
  }

  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace ssim_fused
