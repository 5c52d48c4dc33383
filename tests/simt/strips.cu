// Instantiates the kernels of training and of the plain metric, for images and volumes, with a pixel term,
// and with windows of radius 3 and 11. test_cuda_build.py compiles them to check their registers.
#include "../../csrc/cuda/kernels/depth.cuh"
#include "../../csrc/cuda/kernels/strip/march.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE_FOR(Storage, columns, gradients, objective, single)                     \
  template __global__ void                                                                       \
  strip_kernel<StripConfig<Storage, columns, GradientsOf::gradients, objective, false, single>>( \
      const __grid_constant__ StripParams<Storage>);
#define SSIM_INSTANTIATE(Storage, columns, gradients, single) \
  SSIM_INSTANTIATE_FOR(Storage, columns, gradients, Objective::mean_similarity, single)

SSIM_INSTANTIATE(float, 64, none, false)
SSIM_INSTANTIATE(float, 128, none, false)
SSIM_INSTANTIATE(float, 96, preds, false)
SSIM_INSTANTIATE(float, 128, preds, false)
SSIM_INSTANTIATE(float, 256, preds, false)
SSIM_INSTANTIATE(float, 64, preds, true)
SSIM_INSTANTIATE(float, 128, preds, true)
SSIM_INSTANTIATE(float, 256, preds, true)
SSIM_INSTANTIATE(float, 64, both, false)
SSIM_INSTANTIATE(float, 128, both, false)
SSIM_INSTANTIATE(float, 64, both, true)
SSIM_INSTANTIATE_FOR(float, 96, preds, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 128, preds, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 256, preds, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 64, preds, Objective::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 128, preds, Objective::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 256, preds, Objective::mean_contrast, true)

#define SSIM_INSTANTIATE_PIXELS(Storage, columns, gradients, single)                                    \
  template __global__ void                                                                              \
  strip_kernel<StripConfig<Storage, columns, GradientsOf::gradients, Objective::mean_similarity, false, \
                           single, Pass::image, true>>(const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE_PIXELS(float, 128, preds, false)
SSIM_INSTANTIATE_PIXELS(float, 256, preds, false)
SSIM_INSTANTIATE_PIXELS(float, 64, preds, true)
SSIM_INSTANTIATE_PIXELS(float, 256, preds, true)
SSIM_INSTANTIATE_PIXELS(float, 128, both, false)

#define SSIM_INSTANTIATE_SLICES(Storage, columns, gradients, single, pass)                                   \
  template __global__ void strip_kernel<StripConfig<Storage, columns, GradientsOf::gradients,                \
                                                    Objective::mean_similarity, false, single, Pass::pass>>( \
      const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE_SLICES(float, 64, none, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, none, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, preds, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, preds, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, preds, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 256, preds, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, both, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, both, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, both, true, gradient)

#define SSIM_INSTANTIATE_EXACT(Storage, columns, gradients, single, radius)                             \
  template __global__ void                                                                              \
  strip_kernel<StripConfig<Storage, columns, GradientsOf::gradients, Objective::mean_similarity, false, \
                           single, Pass::image, false, radius>>(                                        \
      const __grid_constant__ StripParams<Storage, radius>);

SSIM_INSTANTIATE_EXACT(float, 64, none, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 128, none, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 128, preds, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 256, preds, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 64, preds, true, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 256, preds, true, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 64, none, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, none, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, preds, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 256, preds, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 64, preds, true, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, preds, true, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 256, preds, true, kLongRadius)

#define SSIM_INSTANTIATE_DEPTH(Storage, gradients, objective)                              \
  template __global__ void                                                                 \
  depth_kernel<DepthConfig<Storage, GradientsOf::gradients, Objective::objective, false>>( \
      const __grid_constant__ DepthParams<Storage>);

SSIM_INSTANTIATE_DEPTH(float, none, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, preds, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, both, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, preds, mean_contrast)

}  // namespace ssim_fused::cuda
