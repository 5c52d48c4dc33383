// The number of blocks of a launch as CUDA takes it, or an error. No CUDA, so that the tests on the host run
// it.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "plan.h"

namespace ssim_fused::cuda {

// `blocks` is computed in 64 bits; a cast to the 32 bits of a grid would wrap, and leave blocks out.
inline unsigned grid_of(int64_t blocks) {
  STD_TORCH_CHECK(blocks >= 1 && blocks <= kMaxBlocks, "the images need ", blocks,
                  " blocks of threads in one launch, expected 1 to ", kMaxBlocks,
                  ": split the batch into several calls");
  return static_cast<unsigned>(blocks);
}

}  // namespace ssim_fused::cuda
