// Memory of one call, uninitialised. Where the system can, in large pages: a fresh page costs a fault, which
// for maps of whole volumes takes as long as the arithmetic.
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
  explicit Scratch(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kPage - 1) / kPage * kPage;
#if defined(__linux__)
    data_.reset(static_cast<T*>(std::aligned_alloc(kPage, bytes)));
    if (data_)
      madvise(data_.get(), bytes, MADV_HUGEPAGE);  // advice: where it is not taken, small pages serve
#else
    data_.reset(static_cast<T*>(std::malloc(bytes)));
#endif
    if (!data_) throw std::bad_alloc();
  }
  T* get() const { return data_.get(); }

 private:
  static constexpr size_t kPage = size_t{1} << 21;
  static constexpr size_t kKeptBytes = size_t{1}
                                       << 25;  // glibc's largest threshold for memory of its own heap
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace ssim_fused
