// The CPU kernel as the operators see it: one function for each combination of window, gradients and type.
#pragma once

#include "strip.h"

namespace ssim_fused {

template <class T>
using MarchFunction = void (*)(const Strip<T>&, Workspace<T>&);

// Derivative maps of a march whose only gradient is that for preds: in double, where instances would only cost time to
// compile, it is computed along with target's.
template <class T>
constexpr int kFewestMaps = std::is_same_v<T, double> ? 4 : 3;

// `maps`: derivative maps, 0, kFewestMaps or 4 (see strip.h).
template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, Pass pass, int maps);

extern template MarchFunction<float> select_march(const Problem<float>&, Pass, int);
extern template MarchFunction<double> select_march(const Problem<double>&, Pass, int);

}  // namespace ssim_fused
