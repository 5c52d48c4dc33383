// Chooses the instance of the CPU kernel for a problem; included once for each compute type, and once for
// masks, in march_*.cpp, which compile side by side.
#pragma once

#include <type_traits>

#include "instruction_set.h"
#include "march.h"
#include "select.h"

namespace ssim_fused::cpu {
namespace {

template <class T, int Radius, int Derivatives, Pass pass, bool Masked>
void march_baseline(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 16, Radius, Derivatives, pass, Masked>(strip, work).run();
}

#if defined(SSIM_X86_TARGETS)
template <class T, int Radius, int Derivatives, Pass pass, bool Masked>
SSIM_TARGET_AVX2 void march_avx2(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 32, Radius, Derivatives, pass, Masked>(strip, work).run();
}

template <class T, int Radius, int Derivatives, Pass pass, bool Masked>
SSIM_TARGET_AVX512 void march_avx512(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 64, Radius, Derivatives, pass, Masked>(strip, work).run();
}
#endif

// Where a machine has no better instruction set, its marches are compiled in every form; on x86 they serve
// machines of before 2013, and only need to work.
#if defined(SSIM_X86_TARGETS)
constexpr bool kBaselineIsRare = true;
#else
constexpr bool kBaselineIsRare = false;
#endif

// Of the instruction sets but a baseline that is rare.
template <class T, int Radius, int Derivatives, Pass pass, bool Masked>
MarchFunction<T> for_common_set() {
#if defined(SSIM_X86_TARGETS)
  if constexpr (std::is_same_v<T, float>) {  // doubles are for checks
    if (chosen_instruction_set() == InstructionSet::avx512)
      return march_avx512<T, Radius, Derivatives, pass, Masked>;
  }
  return march_avx2<T, Radius, Derivatives, pass, Masked>;
#else
  return march_baseline<T, Radius, Derivatives, pass, Masked>;
#endif
}

template <class T, int Radius, int Derivatives, Pass pass, bool Masked>
MarchFunction<T> for_instruction_set() {
  if (kBaselineIsRare && chosen_instruction_set() == InstructionSet::baseline)
    return march_baseline < T, kBaselineIsRare ? -1 : Radius, Derivatives, pass, Masked > ;
  return for_common_set<T, Radius, Derivatives, pass, Masked>();
}

constexpr int kCompiledRadius = 5;  // the default window, sigma 1.5

// What users wait for has the default window's radius compiled: images and slices in float. Doubles are for
// checks, and the depth pass waits for memory.
template <class T, Pass pass>
constexpr bool kHasCompiledRadius = std::is_same_v<T, float> && pass != Pass::depth;

template <class T, int Derivatives, Pass pass>
MarchFunction<T> for_radius(const Problem<T>& problem) {
  if constexpr (kHasCompiledRadius<T, pass>) {
    if (problem.rows.radius == kCompiledRadius && problem.columns.radius == kCompiledRadius)
      return for_instruction_set<T, kCompiledRadius, Derivatives, pass, false>();
  }
  return for_instruction_set<T, -1, Derivatives, pass, false>();
}

template <class T, Pass pass>
MarchFunction<T> for_derivatives(const Problem<T>& problem, int derivatives) {
  if constexpr (pass != Pass::gradient) {
    if (derivatives == 0) return for_radius<T, 0, pass>(problem);
  }
  if constexpr (kFewestDerivatives<T> == 3) {
    if (derivatives == 3) return for_radius<T, 3, pass>(problem);
  }
  return for_radius<T, 4, pass>(problem);
}

}  // namespace

template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, Pass pass, int derivatives) {
  switch (pass) {
    case Pass::image:
      return for_derivatives<T, Pass::image>(problem, derivatives);
    case Pass::moments:
      return for_radius<T, 0, Pass::moments>(problem);
    case Pass::depth:
      return for_derivatives<T, Pass::depth>(problem, derivatives);
    default:
      return for_derivatives<T, Pass::gradient>(problem, derivatives);
  }
}

}  // namespace ssim_fused::cpu
