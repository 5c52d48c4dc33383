// The marches with masks.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchInstance<float> select_march<float, true>(Pass, int);
template MarchInstance<double> select_march<double, true>(Pass, int);

}  // namespace ssim_fused::cpu
