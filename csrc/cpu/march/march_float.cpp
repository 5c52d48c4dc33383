// The marches in float.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchInstance<float> select_march<float, false>(Pass, GradientsOf);

}  // namespace ssim_fused::cpu
