// Instances of the march with a mask, in float32 and float64.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchInstance<float> select_march<float, true>(Pass, GradientsOf);
template MarchInstance<double> select_march<double, true>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
