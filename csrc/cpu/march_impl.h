// Chooses the instance of the CPU kernel for a problem; included once for each compute type, in march_*.cpp,
// which compile side by side.
#pragma once

#include <type_traits>

#include "instruction_set.h"
#include "march.h"

namespace ssim_fused {
namespace {

template <class T, int Radius, int Maps, Pass pass>
void march_baseline(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 16, Radius, Maps, pass>(strip, work).run();
}

#if defined(SSIM_X86_TARGETS)
template <class T, int Radius, int Maps, Pass pass>
SSIM_TARGET_AVX2 void march_avx2(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 32, Radius, Maps, pass>(strip, work).run();
}

template <class T, int Radius, int Maps, Pass pass>
SSIM_TARGET_AVX512 void march_avx512(const Strip<T>& strip, Workspace<T>& work) {
  March<T, 64, Radius, Maps, pass>(strip, work).run();
}
#endif

// Where a machine has no better instruction set, its marches are compiled in every form; on x86 they serve machines
// of before 2013, and only need to work.
#if defined(SSIM_X86_TARGETS)
constexpr bool kBaselineIsRare = true;
#else
constexpr bool kBaselineIsRare = false;
#endif

template <class T, int Radius, int Maps, Pass pass>
MarchFunction<T> for_instruction_set() {
#if defined(SSIM_X86_TARGETS)
  switch (chosen_instruction_set()) {
    case InstructionSet::avx512:
      return march_avx512<T, Radius, Maps, pass>;
    case InstructionSet::avx2:
      return march_avx2<T, Radius, Maps, pass>;
    case InstructionSet::baseline:
      break;
  }
#endif
  return march_baseline<T, kBaselineIsRare ? -1 : Radius, Maps, pass>;
}

constexpr int kCompiledRadius = 5;  // the default window, sigma 1.5

// What users wait for has the default window's radius compiled: images and slices in float. Doubles are for checks,
// and the depth pass waits for memory.
template <class T, Pass pass>
constexpr bool kHasCompiledRadius = std::is_same_v<T, float> && pass != Pass::depth;

template <class T, int Maps, Pass pass>
MarchFunction<T> for_radius(const Problem<T>& problem) {
  if constexpr (kHasCompiledRadius<T, pass>) {
    if (problem.rows.radius == kCompiledRadius && problem.columns.radius == kCompiledRadius)
      return for_instruction_set<T, kCompiledRadius, Maps, pass>();
  }
  return for_instruction_set<T, -1, Maps, pass>();
}

template <class T, Pass pass>
MarchFunction<T> for_maps(const Problem<T>& problem, int maps) {
  if constexpr (pass != Pass::gradient) {
    if (maps == 0) return for_radius<T, 0, pass>(problem);
  }
  if constexpr (kFewestMaps<T> == 3) {
    if (maps == 3) return for_radius<T, 3, pass>(problem);
  }
  return for_radius<T, 4, pass>(problem);
}

}  // namespace

template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, Pass pass, int maps) {
  switch (pass) {
    case Pass::image:
      return for_maps<T, Pass::image>(problem, maps);
    case Pass::moments:
      return for_radius<T, 0, Pass::moments>(problem);
    case Pass::depth:
      return for_maps<T, Pass::depth>(problem, maps);
    default:
      return for_maps<T, Pass::gradient>(problem, maps);
  }
}

}  // namespace ssim_fused
