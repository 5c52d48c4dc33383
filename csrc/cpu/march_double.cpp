// The marches in double.
#include "instances.h"

namespace ssim_fused::cpu {

template MarchFunction<double> select_march(const Problem<double>&, Pass, int);

}  // namespace ssim_fused::cpu
