// Maps zeroed pages from the operating system, for buffers that malloc should not manage (scratch.h). Large
// blocks use large pages if the system provides them without special privileges.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cstddef>

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX  // <windows.h> must not define the macros min and max
#endif
#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace ssim_fused::cpu {

// Returns at least `bytes` bytes, aligned to a page. Throws if the system is out of memory.
inline void* map_pages(size_t bytes) {
#if defined(_WIN32)
  void* const data = VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  const bool is_mapped = data != nullptr;
#else
  void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool is_mapped = data != MAP_FAILED;
#endif
  STD_TORCH_CHECK(is_mapped, "out of memory: the system has no ", bytes, " bytes of scratch left");
#if defined(MADV_HUGEPAGE)
  constexpr size_t kLargePage = size_t{1} << 21;
  if (bytes >= kLargePage)
    madvise(data, bytes, MADV_HUGEPAGE);  // only a hint: otherwise the system uses small pages
#endif
  return data;
}

// Unmaps the pages that map_pages(bytes) returned.
inline void unmap_pages(void* data, [[maybe_unused]] size_t bytes) {
#if defined(_WIN32)
  VirtualFree(data, 0, MEM_RELEASE);  // 0: the whole allocation
#else
  munmap(data, bytes);
#endif
}

}  // namespace ssim_fused::cpu
