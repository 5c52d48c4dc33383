// The kernels of training and of the plain metric, of images and of volumes, and nothing else:
// test_cuda_build.py compiles them to see their registers.
#include "../../csrc/cuda/depth.cuh"
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

#define SSIM_INSTANTIATE_SLICES(Storage, columns, maps, single, part)                                     \
  template __global__ void                                                                                \
  strip_kernel<StripConfig<Storage, columns, maps, Weights::mean_similarity, false, single, Part::part>>( \
      const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE_SLICES(float, 64, 0, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, 0, false, moments)
SSIM_INSTANTIATE_SLICES(float, 256, 0, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, 3, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 256, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 4, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 4, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, 4, true, gradient)

#define SSIM_INSTANTIATE_DEPTH(Storage, maps, weights)                                        \
  template __global__ void depth_kernel<DepthConfig<Storage, maps, Weights::weights, false>>( \
      const __grid_constant__ DepthParams<Storage>);

SSIM_INSTANTIATE_DEPTH(float, 0, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 3, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 4, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 3, mean_contrast)

}  // namespace ssim_fused
