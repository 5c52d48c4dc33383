// The strip kernels of training and of the plain metric, and nothing else: test_cuda_build.py compiles them
// to see their registers.
#include "../../csrc/cuda/strip.cuh"

namespace ssim_fused {

#define SSIM_INSTANTIATE_FOR(Storage, columns, maps, weights)                                 \
  template __global__ void strip_kernel<StripConfig<Storage, columns, maps, weights, false>>( \
      const __grid_constant__ StripParams<Storage>);
#define SSIM_INSTANTIATE(Storage, columns, maps) \
  SSIM_INSTANTIATE_FOR(Storage, columns, maps, Weights::mean_similarity)

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
SSIM_INSTANTIATE_FOR(float, 64, 3, Weights::mean_contrast)
SSIM_INSTANTIATE_FOR(float, 96, 3, Weights::mean_contrast)
SSIM_INSTANTIATE_FOR(float, 128, 3, Weights::mean_contrast)
SSIM_INSTANTIATE_FOR(float, 256, 3, Weights::mean_contrast)

}  // namespace ssim_fused
