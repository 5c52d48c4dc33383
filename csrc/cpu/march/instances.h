// Selects the instance of the march for a pass, by gradients and instruction set. Included by march_*.cpp,
// one source each for float, double and masks, so that the instances compile in parallel.
#pragma once

#include <type_traits>

#include "../simd/instruction_set.h"
#include "march.h"
#include "select.h"

namespace ssim_fused::cpu {
namespace {

template <class T, GradientsOf gradients, Pass pass, bool Masked>
void march_baseline(const StripTask<T>& strip, Workspace<T>& work) {
  March<T, 16, gradients, pass, Masked>(strip, work).run();
}

#if defined(SSIM_X86_TARGETS)
template <class T, GradientsOf gradients, Pass pass, bool Masked>
SSIM_TARGET_AVX2 void march_avx2(const StripTask<T>& strip, Workspace<T>& work) {
  March<T, 32, gradients, pass, Masked>(strip, work).run();
}

template <class T, GradientsOf gradients, Pass pass, bool Masked>
SSIM_TARGET_AVX512 void march_avx512(const StripTask<T>& strip, Workspace<T>& work) {
  March<T, 64, gradients, pass, Masked>(strip, work).run();
}
#endif

template <class T, GradientsOf gradients, Pass pass, bool Masked>
MarchInstance<T> for_instruction_set() {
#if defined(SSIM_X86_TARGETS)
  if constexpr (std::is_same_v<T, float>) {  // float64 serves checks and has no AVX-512 instances
    if (chosen_instruction_set() == InstructionSet::avx512)
      return {march_avx512<T, gradients, pass, Masked>, 64 / sizeof(T)};
  }
  if (chosen_instruction_set() >= InstructionSet::avx2)
    return {march_avx2<T, gradients, pass, Masked>, 32 / sizeof(T)};
#endif
  return {march_baseline<T, gradients, pass, Masked>, 16 / sizeof(T)};
}

template <class T, Pass pass, bool Masked>
MarchInstance<T> for_gradients(GradientsOf gradients) {
  if constexpr (pass != Pass::gradient) {
    if (gradients == GradientsOf::none) return for_instruction_set<T, GradientsOf::none, pass, Masked>();
  }
  if constexpr (kFewestGradients<T> == GradientsOf::preds) {
    if (gradients == GradientsOf::preds) return for_instruction_set<T, GradientsOf::preds, pass, Masked>();
  }
  return for_instruction_set<T, GradientsOf::both, pass, Masked>();
}

}  // namespace

template <class T, bool Masked>
MarchInstance<T> select_march(Pass pass, GradientsOf gradients) {
  switch (pass) {
    case Pass::image:
      return for_gradients<T, Pass::image, Masked>(gradients);
    case Pass::moments:
      return for_instruction_set<T, GradientsOf::none, Pass::moments, Masked>();
    case Pass::depth:
      return for_gradients<T, Pass::depth, Masked>(gradients);
    default:
      return for_gradients<T, Pass::gradient, Masked>(gradients);
  }
}

}  // namespace ssim_fused::cpu
