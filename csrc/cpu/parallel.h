// A parallel loop that rethrows a task's exception in the caller. torch's own loop goes through a C
// interface, which would only report that an exception was thrown.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdint>
#include <exception>

namespace ssim_fused::cpu {

inline int64_t thread_count() { return static_cast<int64_t>(torch::stable::get_num_threads()); }

template <class Task>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Task& task) {
  std::atomic<bool> failed = false;
  std::exception_ptr first;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    try {
      task(from, to);
    } catch (...) {
      if (!failed.exchange(true)) first = std::current_exception();
    }
  });
  if (first) std::rethrow_exception(first);
}

}  // namespace ssim_fused::cpu
