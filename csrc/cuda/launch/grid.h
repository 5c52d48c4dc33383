// Checks the number of blocks of a launch. Independent of CUDA, so that the tests on the host run it.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "plan.h"

namespace ssim_fused::cuda {

// Returns the size of a grid, or throws if `blocks` is outside CUDA's range; a cast to 32 bits would wrap and
// skip blocks.
inline unsigned grid_of(int64_t blocks) {
  STD_TORCH_CHECK(blocks >= 1 && blocks <= kMaxBlocks, "the images need ", blocks,
                  " blocks of threads in one launch, expected 1 to ", kMaxBlocks,
                  ": split the batch into several calls");
  return static_cast<unsigned>(blocks);
}

}  // namespace ssim_fused::cuda
