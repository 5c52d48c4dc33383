// The march of 8-bit images under a uniform window. bytes.cpp compiles it for each instruction set, and
// march_bytes runs the one of chosen_instruction_set.
#pragma once

#include "byte_march.h"

namespace ssim_fused::cpu {

void march_bytes(const ByteTask& task);

}  // namespace ssim_fused::cpu
