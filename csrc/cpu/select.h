// The CPU kernel as the operators see it: one function for each combination of window, gradients and type.
#pragma once

#include <type_traits>

#include "../math/pass.h"
#include "problem.h"
#include "workspace.h"

namespace ssim_fused::cpu {

template <class T>
using MarchFunction = void (*)(const Strip<T>&, Workspace<T>&);

// Derivatives kept by a march whose only gradient is that for preds: in double, where instances would only
// cost time to compile, it is computed along with target's.
template <class T>
constexpr int kFewestDerivatives = std::is_same_v<T, double> ? 4 : 3;

// `derivatives`: 0, kFewestDerivatives or 4 (see march.h).
template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, Pass pass, int derivatives);

// The same of a problem with a mask; and how many derivatives its marches keep where so many are wanted.
template <class T>
int masked_derivatives(const Problem<T>& problem, Pass pass, int derivatives);
template <class T>
MarchFunction<T> select_masked_march(const Problem<T>& problem, Pass pass, int derivatives);

extern template MarchFunction<float> select_march(const Problem<float>&, Pass, int);
extern template MarchFunction<double> select_march(const Problem<double>&, Pass, int);
extern template int masked_derivatives(const Problem<float>&, Pass, int);
extern template int masked_derivatives(const Problem<double>&, Pass, int);
extern template MarchFunction<float> select_masked_march(const Problem<float>&, Pass, int);
extern template MarchFunction<double> select_masked_march(const Problem<double>&, Pass, int);

}  // namespace ssim_fused::cpu
