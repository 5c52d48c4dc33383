// The instruction sets that the CPU kernels are compiled for, and the choice of one at run time.
//
// One build runs on any machine of an architecture: each kernel is compiled for several instruction sets, and
// the best one that the machine supports is used. SSIM_FUSED_INSTRUCTION_SET=baseline|avx2|avx512 selects a
// lower one.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#if defined(_WIN32)
#include <cpuid.h>
#endif

// SSIM_ONLY_BASELINE compiles all code for the instruction set of the compiler's flags, with vectors of any
// width (tests/march.cpp).
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(SSIM_ONLY_BASELINE)
#define SSIM_X86_TARGETS 1
#define SSIM_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define SSIM_AVX512 "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"
#if defined(__clang__)  // Clang ignores the whole attribute if it contains an unknown word
#define SSIM_TARGET_AVX512 __attribute__((target(SSIM_AVX512), min_vector_width(512)))
#else
#define SSIM_TARGET_AVX512 __attribute__((target(SSIM_AVX512 ",prefer-vector-width=512")))
#endif
#endif

namespace ssim_fused::cpu {

enum class InstructionSet { baseline, avx2, avx512 };  // each includes those before it

constexpr const char* kInstructionSetNames[] = {"baseline", "avx2", "avx512"};

#if defined(SSIM_X86_TARGETS) && defined(_WIN32)
// The CPU features that __builtin_cpu_supports reports on other systems. On Windows the builtin needs Clang's
// runtime library, which the MSVC linker does not find by itself.
struct CpuFeatures {
  bool avx2 = false, avx512 = false;
};
inline CpuFeatures cpu_features() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return {};
  const bool saves_registers = (ecx & bit_OSXSAVE) != 0;
  const bool has_fma = (ecx & bit_FMA) != 0 && (ecx & bit_F16C) != 0;
  if (!saves_registers || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return {};
  unsigned saved = 0, high = 0;  // the registers that the system saves at a context switch
  asm volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  constexpr unsigned kYmm = 0x06, kZmm = 0xe6;  // bits of XCR0: XMM and YMM; these, opmask and ZMM
  constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512VL | bit_AVX512BW | bit_AVX512DQ;
  const bool avx2 = has_fma && (ebx & bit_AVX2) != 0 && (saved & kYmm) == kYmm;
  return {avx2, avx2 && (ebx & kAvx512) == kAvx512 && (saved & kZmm) == kZmm};
}
#endif

inline InstructionSet best_instruction_set() {
#if defined(SSIM_X86_TARGETS) && defined(_WIN32)
  const CpuFeatures features = cpu_features();
  if (features.avx512) return InstructionSet::avx512;
  if (features.avx2) return InstructionSet::avx2;
#elif defined(SSIM_X86_TARGETS)
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
