#include "march_impl.h"

template ssim_fused::MarchFunction<float> ssim_fused::select_march(const Problem<float>&, Pass, int);
