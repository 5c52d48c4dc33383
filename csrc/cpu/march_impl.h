// Chooses the instance of the CPU kernel for a problem; included once for each compute type, in march_*.cpp,
// which compile side by side.
#pragma once

#include "instruction_set.h"
#include "march.h"

namespace ssim_fused {
namespace {

template <class T, int Radius, int Maps>
void march_baseline(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 16, Radius, Maps>(strip, work).run();
}

#if defined(SSIM_X86_TARGETS)
template <class T, int Radius, int Maps>
SSIM_TARGET_AVX2 void march_avx2(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 32, Radius, Maps>(strip, work).run();
}

template <class T, int Radius, int Maps>
SSIM_TARGET_AVX512 void march_avx512(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 64, Radius, Maps>(strip, work).run();
}
#endif

template <class T, int Radius, int Maps>
MarchFunction<T> for_instruction_set() {
#if defined(SSIM_X86_TARGETS)
  switch (chosen_instruction_set()) {
    case InstructionSet::avx512:
      return march_avx512<T, Radius, Maps>;
    case InstructionSet::avx2:
      return march_avx2<T, Radius, Maps>;
    case InstructionSet::baseline:
      break;
  }
#endif
  return march_baseline<T, Radius, Maps>;
}

constexpr int kCompiledRadius = 5;  // the default window, sigma 1.5

template <class T, int Maps>
MarchFunction<T> for_radius(const Problem<T>& problem) {
  const bool compiled = problem.rows.radius == kCompiledRadius && problem.columns.radius == kCompiledRadius;
  return compiled ? for_instruction_set<T, kCompiledRadius, Maps>() : for_instruction_set<T, -1, Maps>();
}

}  // namespace

template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, int maps) {
  switch (maps) {
    case 0:
      return for_radius<T, 0>(problem);
    case 3:
      return for_radius<T, 3>(problem);
    default:
      return for_radius<T, 4>(problem);
  }
}

}  // namespace ssim_fused
