// The march of 8-bit images in the instruction sets.
#include "../simd/instruction_set.h"
#include "select.h"

namespace ssim_fused::cpu {
namespace {

SSIM_INLINE void pack_row(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = static_cast<uint32_t>(x[i]) | static_cast<uint32_t>(y[i]) << 16;
}
void pack_row_baseline(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
  pack_row(x, y, count, out);
}

#if defined(SSIM_X86_TARGETS)
SSIM_TARGET_AVX2 void pack_row_avx2(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
  pack_row(x, y, count, out);
}
SSIM_TARGET_AVX2 void march_avx2(const ByteTask& task) { ByteMarch<32>(task, pack_row_avx2).run(); }
SSIM_TARGET_AVX512 void march_avx512(const ByteTask& task) { ByteMarch<64>(task, pack_row_avx2).run(); }
#endif

}  // namespace

void march_bytes(const ByteTask& task) {
#if defined(SSIM_X86_TARGETS)
  if (chosen_instruction_set() == InstructionSet::avx512) return march_avx512(task);
  if (chosen_instruction_set() >= InstructionSet::avx2) return march_avx2(task);
#endif
  ByteMarch<16>(task, pack_row_baseline).run();
}

}  // namespace ssim_fused::cpu
