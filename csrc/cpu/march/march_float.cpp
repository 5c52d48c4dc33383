// Instances of the march in float32, without a mask.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchInstance<float> select_march<float, false>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
