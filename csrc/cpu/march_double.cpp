#include "march_impl.h"

template ssim_fused::MarchFunction<double> ssim_fused::select_march(const Problem<double>&, Pass, int);
