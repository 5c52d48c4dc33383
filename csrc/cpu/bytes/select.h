// The march of 8-bit images, compiled for each instruction set (bytes.cpp).
#pragma once

#include "byte_march.h"

namespace ssim_fused::cpu {

void march_bytes(const ByteTask& task);

}  // namespace ssim_fused::cpu
