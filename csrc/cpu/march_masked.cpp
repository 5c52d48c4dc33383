// The marches with masks. Fewer are compiled than of those without: what a loss with the default window takes
// on machines of today, and one that serves all else.
#include "instances.h"

namespace ssim_fused::cpu {
namespace {

// Doubles, and machines of before 2013, compute both gradients, whatever is wanted.
template <class T>
bool has_few() {
  return std::is_same_v<T, double> ||
         (kBaselineIsRare && chosen_instruction_set() == InstructionSet::baseline);
}

template <class T>
bool has_compiled_radius(const Problem<T>& problem, Pass pass) {
  return !has_few<T>() && pass == Pass::image && problem.rows.radius == kCompiledRadius &&
         problem.columns.radius == kCompiledRadius;
}

// The general one.
template <class T, int Derivatives, Pass pass>
MarchFunction<T> general() {
  if constexpr (std::is_same_v<T, double>) {
    return march_baseline<T, -1, Derivatives, pass, true>;
  } else {
    return for_instruction_set<T, -1, Derivatives, pass, true>();
  }
}

template <class T, Pass pass>
MarchFunction<T> general_of(int derivatives) {
  if constexpr (std::is_same_v<T, float>) {
    if (derivatives == 0) return for_common_set<T, -1, 0, pass, true>();
  }
  return general<T, 4, pass>();
}

}  // namespace

template <class T>
int masked_derivatives(const Problem<T>& problem, Pass pass, int derivatives) {
  if (has_few<T>()) return 4;
  return derivatives == 3 && !has_compiled_radius(problem, pass) ? 4 : derivatives;
}

template <class T>
MarchFunction<T> select_masked_march(const Problem<T>& problem, Pass pass, int derivatives) {
  if constexpr (std::is_same_v<T, float>) {
    if (has_compiled_radius(problem, pass) && derivatives < 4) {
      return derivatives == 0 ? for_common_set<T, kCompiledRadius, 0, Pass::image, true>()
                              : for_common_set<T, kCompiledRadius, 3, Pass::image, true>();
    }
  }
  switch (pass) {
    case Pass::image:
      return general_of<T, Pass::image>(derivatives);
    case Pass::moments:
      return general<T, 0, Pass::moments>();
    case Pass::depth:
      return general_of<T, Pass::depth>(derivatives);
    default:
      return general<T, 4, Pass::gradient>();
  }
}

#define SSIM_INSTANTIATE(T)                                      \
  template int masked_derivatives(const Problem<T>&, Pass, int); \
  template MarchFunction<T> select_masked_march(const Problem<T>&, Pass, int);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)

}  // namespace ssim_fused::cpu
