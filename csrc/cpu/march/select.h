// The CPU kernel as the operators see it: one function for each combination of window, gradients and type.
#pragma once

#include <type_traits>

#include "../../math/pass.h"
#include "../pass_spec.h"
#include "workspace.h"

namespace ssim_fused::cpu {

// An instance of the march, and the lanes of the vectors that it is compiled for.
template <class T>
struct MarchInstance {
  void (*run)(const StripTask<T>&, Workspace<T>&);
  int lanes;
};

// Derivatives kept by a march whose only gradient is that for preds: in double, where instances would only
// cost time to compile, it is computed along with target's.
template <class T>
constexpr GradientsOf kFewestGradients = std::is_same_v<T, double> ? GradientsOf::both : GradientsOf::preds;

// `derivatives`: 0, kFewestGradients or 4 (see march.h).
template <class T, bool Masked>
MarchInstance<T> select_march(Pass pass, GradientsOf gradients);

extern template MarchInstance<float> select_march<float, false>(Pass, GradientsOf);
extern template MarchInstance<float> select_march<float, true>(Pass, GradientsOf);
extern template MarchInstance<double> select_march<double, false>(Pass, GradientsOf);
extern template MarchInstance<double> select_march<double, true>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
