// Selects the compiled instance of the march for a pass, its gradients, the compute type and whether there
// is a mask.
#pragma once

#include <type_traits>

#include "../../math/pass.h"
#include "../pass_spec.h"
#include "workspace.h"

namespace ssim_fused::cpu {

// A compiled instance of the march, and the number of lanes of its vectors.
template <class T>
struct MarchInstance {
  void (*run)(const StripTask<T>&, Workspace<T>&);
  int lanes;
};

// The gradients that are computed if only that of preds is requested. In float64 target's is computed along
// with it, because a separate instance would only cost compile time.
template <class T>
constexpr GradientsOf kFewestGradients = std::is_same_v<T, double> ? GradientsOf::both : GradientsOf::preds;

// `gradients` is none, kFewestGradients<T> or both.
template <class T, bool Masked>
MarchInstance<T> select_march(Pass pass, GradientsOf gradients);

extern template MarchInstance<float> select_march<float, false>(Pass, GradientsOf);
extern template MarchInstance<float> select_march<float, true>(Pass, GradientsOf);
extern template MarchInstance<double> select_march<double, false>(Pass, GradientsOf);
extern template MarchInstance<double> select_march<double, true>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
