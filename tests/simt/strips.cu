// The strip kernels of training and of the plain metric, and nothing else: test_cuda_build.py compiles them
// to see their registers.
#include "../../csrc/cuda/strip.cuh"

namespace ssim_fused {

#define SSIM_INSTANTIATE_FOR(Storage, columns, maps, weights, single)                                 \
  template __global__ void strip_kernel<StripConfig<Storage, columns, maps, weights, false, single>>( \
      const __grid_constant__ StripParams<Storage>);
#define SSIM_INSTANTIATE(Storage, columns, maps, single) \
  SSIM_INSTANTIATE_FOR(Storage, columns, maps, Weights::mean_similarity, single)

SSIM_INSTANTIATE(float, 64, 0, false)
SSIM_INSTANTIATE(float, 128, 0, false)
SSIM_INSTANTIATE(float, 256, 0, false)
SSIM_INSTANTIATE(float, 96, 3, false)
SSIM_INSTANTIATE(float, 128, 3, false)
SSIM_INSTANTIATE(float, 256, 3, false)
SSIM_INSTANTIATE(float, 64, 3, true)
SSIM_INSTANTIATE(float, 128, 3, true)
SSIM_INSTANTIATE(float, 256, 3, true)
SSIM_INSTANTIATE(float, 64, 4, false)
SSIM_INSTANTIATE(float, 128, 4, false)
SSIM_INSTANTIATE(float, 64, 4, true)
SSIM_INSTANTIATE_FOR(float, 96, 3, Weights::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 128, 3, Weights::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 256, 3, Weights::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 64, 3, Weights::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 128, 3, Weights::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 256, 3, Weights::mean_contrast, true)

}  // namespace ssim_fused
