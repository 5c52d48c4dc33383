// Instances of the march in float64, without a mask.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchInstance<double> select_march<double, false>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
