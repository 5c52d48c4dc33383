// The launches that the planner (plan.h) chooses for float32 images on a device described by a few numbers.
// Plain C++ without CUDA or Python, so that documentation, tests and users can ask without a GPU.
#pragma once

#include <cstdint>
#include <optional>

namespace ssim_fused::cuda {

// A device: its streaming multiprocessors, and the bytes of shared memory and the threads that each holds.
struct DeviceNumbers {
  int sms, shared_bytes, max_threads;
};

struct PlannedLaunch {
  int columns;            // of a strip, and threads of a block
  int owned, last;        // columns that a strip owns; that the last one may own
  int blocks_per_sm;      // that fit at once
  int64_t strips;         // of a plane
  int64_t blocks, rows;   // of the launch; that a block marches down
  int64_t rows_of_strip;  // counted for a strip
  double cost;            // in turns: instructions that one warp issues in a step
};

// Returns nothing if no kernel fits the device. Throws std::invalid_argument if no march has this radius, or
// if a number is not positive.
std::optional<PlannedLaunch> plan_images(int64_t planes, int64_t height, int64_t width, bool gradient,
                                         int radius, const DeviceNumbers& device);

}  // namespace ssim_fused::cuda
