// The strip kernels of training and of the plain metric, and nothing else: test_cuda_build.py compiles them
// to see their registers.
#include "../../csrc/cuda/strip.cuh"

namespace ssim_fused {

#define SSIM_INSTANTIATE(Storage, columns, maps)                                            \
  template __global__ void strip_kernel<StripConfig<Storage, columns, maps, false, false>>( \
      const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE(float, 64, 0)
SSIM_INSTANTIATE(float, 96, 0)
SSIM_INSTANTIATE(float, 128, 0)
SSIM_INSTANTIATE(float, 256, 0)
SSIM_INSTANTIATE(float, 64, 3)
SSIM_INSTANTIATE(float, 96, 3)
SSIM_INSTANTIATE(float, 128, 3)
SSIM_INSTANTIATE(float, 256, 3)
SSIM_INSTANTIATE(float, 64, 4)
SSIM_INSTANTIATE(float, 128, 4)

}  // namespace ssim_fused
