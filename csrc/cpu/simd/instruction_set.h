// The instruction sets the CPU kernel is compiled for, and the one that this machine runs.
//
// One build serves any machine: each kernel is compiled once for each set that the architecture has, and the
// best one present is chosen at run time; SSIM_FUSED_INSTRUCTION_SET=baseline|avx2|avx512 asks for another.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <string>

// SSIM_ONLY_BASELINE: everything in the instruction set of the compiler's flags, vectors of any width
// (tests/march.cpp).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(SSIM_ONLY_BASELINE)
#define SSIM_X86_TARGETS 1
#define SSIM_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define SSIM_AVX512 "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"
#if defined(__clang__)  // which ignores an attribute altogether where it does not know one of its words
#define SSIM_TARGET_AVX512 __attribute__((target(SSIM_AVX512), min_vector_width(512)))
#else
#define SSIM_TARGET_AVX512 __attribute__((target(SSIM_AVX512 ",prefer-vector-width=512")))
#endif
#endif

namespace ssim_fused::cpu {

enum class InstructionSet { baseline, avx2, avx512 };  // each includes those before it

constexpr const char* kInstructionSetNames[] = {"baseline", "avx2", "avx512"};

inline InstructionSet best_instruction_set() {
#if defined(SSIM_X86_TARGETS)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    return InstructionSet::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return InstructionSet::avx2;  // and F16C
#endif
  return InstructionSet::baseline;
}

inline InstructionSet chosen_instruction_set() {
  static const InstructionSet chosen = [] {
    const InstructionSet best = best_instruction_set();
    const char* wish = std::getenv("SSIM_FUSED_INSTRUCTION_SET");
    if (wish == nullptr || *wish == '\0') return best;
    for (int i = 0; i <= static_cast<int>(best); ++i) {
      if (std::string(wish) == kInstructionSetNames[i]) return static_cast<InstructionSet>(i);
    }
    STD_TORCH_CHECK(false, "SSIM_FUSED_INSTRUCTION_SET is '", wish,
                    "', expected 'baseline', 'avx2' or 'avx512', and one this machine has; its best is '",
                    kInstructionSetNames[static_cast<int>(best)], "'");
    return best;
  }();
  return chosen;
}

}  // namespace ssim_fused::cpu
