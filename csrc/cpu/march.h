// The CPU kernel as the operators see it: one function for each combination of window, gradients and type.
#pragma once

#include "strip.h"

namespace ssim_fused {

template <class T>
using MarchFunction = void (*)(const Strip<T>&, Workspace<T>&);

// `maps`: derivative maps, 0, 3 or 4 (see strip.h).
template <class T>
MarchFunction<T> select_march(const Problem<T>& problem, Pass pass, int maps);

extern template MarchFunction<float> select_march(const Problem<float>&, Pass, int);
extern template MarchFunction<double> select_march(const Problem<double>&, Pass, int);

}  // namespace ssim_fused
