// The marches in float.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchFunction<float> select_march(const Problem<float>&, Pass, int);

}  // namespace ssim_fused::cpu
