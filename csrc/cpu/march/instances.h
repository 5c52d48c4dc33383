// Chooses the instance of the CPU kernel for a pass; included once for each compute type, with and without
// masks, in march_*.cpp, which compile side by side.
#pragma once

#include <type_traits>

#include "../simd/instruction_set.h"
#include "march.h"
#include "select.h"

namespace ssim_fused::cpu {
namespace {

template <class T, int Derivatives, Pass pass, bool Masked>
void march_baseline(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 16, Derivatives, pass, Masked>(strip, work).run();
}

#if defined(SSIM_X86_TARGETS)
template <class T, int Derivatives, Pass pass, bool Masked>
SSIM_TARGET_AVX2 void march_avx2(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 32, Derivatives, pass, Masked>(strip, work).run();
}

template <class T, int Derivatives, Pass pass, bool Masked>
SSIM_TARGET_AVX512 void march_avx512(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 64, Derivatives, pass, Masked>(strip, work).run();
}
#endif

template <class T, int Derivatives, Pass pass, bool Masked>
MarchInstance<T> for_instruction_set() {
#if defined(SSIM_X86_TARGETS)
  if constexpr (std::is_same_v<T, float>) {  // doubles are for checks
    if (chosen_instruction_set() == InstructionSet::avx512)
      return {march_avx512<T, Derivatives, pass, Masked>, 64 / sizeof(T)};
  }
  if (chosen_instruction_set() >= InstructionSet::avx2)
    return {march_avx2<T, Derivatives, pass, Masked>, 32 / sizeof(T)};
#endif
  return {march_baseline<T, Derivatives, pass, Masked>, 16 / sizeof(T)};
}

template <class T, Pass pass, bool Masked>
MarchInstance<T> for_derivatives(int derivatives) {
  if constexpr (pass != Pass::gradient) {
    if (derivatives == 0) return for_instruction_set<T, 0, pass, Masked>();
  }
  if constexpr (kFewestDerivatives<T> == 3) {
    if (derivatives == 3) return for_instruction_set<T, 3, pass, Masked>();
  }
  return for_instruction_set<T, 4, pass, Masked>();
}

}  // namespace

template <class T, bool Masked>
MarchInstance<T> select_march(Pass pass, int derivatives) {
  switch (pass) {
    case Pass::image:
      return for_derivatives<T, Pass::image, Masked>(derivatives);
    case Pass::moments:
      return for_instruction_set<T, 0, Pass::moments, Masked>();
    case Pass::depth:
      return for_derivatives<T, Pass::depth, Masked>(derivatives);
    default:
      return for_derivatives<T, Pass::gradient, Masked>(derivatives);
  }
}

}  // namespace ssim_fused::cpu
