// The kernels of training and of the plain metric, of images and of volumes, also with a pixel term and with
// windows of radius 3 and 11, and nothing else: test_cuda_build.py compiles them to see their registers.
#include "../../csrc/cuda/kernels/depth.cuh"
#include "../../csrc/cuda/kernels/strip/march.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE_FOR(Storage, columns, derivatives, objective, single)        \
  template __global__ void                                                            \
  strip_kernel<StripConfig<Storage, columns, derivatives, objective, false, single>>( \
      const __grid_constant__ StripParams<Storage>);
#define SSIM_INSTANTIATE(Storage, columns, derivatives, single) \
  SSIM_INSTANTIATE_FOR(Storage, columns, derivatives, Objective::mean_similarity, single)

SSIM_INSTANTIATE(float, 64, 0, false)
SSIM_INSTANTIATE(float, 128, 0, false)
SSIM_INSTANTIATE(float, 96, 3, false)
SSIM_INSTANTIATE(float, 128, 3, false)
SSIM_INSTANTIATE(float, 256, 3, false)
SSIM_INSTANTIATE(float, 64, 3, true)
SSIM_INSTANTIATE(float, 128, 3, true)
SSIM_INSTANTIATE(float, 256, 3, true)
SSIM_INSTANTIATE(float, 64, 4, false)
SSIM_INSTANTIATE(float, 128, 4, false)
SSIM_INSTANTIATE(float, 64, 4, true)
SSIM_INSTANTIATE_FOR(float, 96, 3, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 128, 3, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 256, 3, Objective::mean_contrast, false)
SSIM_INSTANTIATE_FOR(float, 64, 3, Objective::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 128, 3, Objective::mean_contrast, true)
SSIM_INSTANTIATE_FOR(float, 256, 3, Objective::mean_contrast, true)

#define SSIM_INSTANTIATE_PIXELS(Storage, columns, derivatives, single)                               \
  template __global__ void strip_kernel<StripConfig<                                                 \
      Storage, columns, derivatives, Objective::mean_similarity, false, single, Pass::image, true>>( \
      const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE_PIXELS(float, 128, 3, false)
SSIM_INSTANTIATE_PIXELS(float, 256, 3, false)
SSIM_INSTANTIATE_PIXELS(float, 64, 3, true)
SSIM_INSTANTIATE_PIXELS(float, 256, 3, true)
SSIM_INSTANTIATE_PIXELS(float, 128, 4, false)

#define SSIM_INSTANTIATE_SLICES(Storage, columns, derivatives, single, pass)                              \
  template __global__ void strip_kernel<                                                                  \
      StripConfig<Storage, columns, derivatives, Objective::mean_similarity, false, single, Pass::pass>>( \
      const __grid_constant__ StripParams<Storage>);

SSIM_INSTANTIATE_SLICES(float, 64, 0, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, 0, false, moments)
SSIM_INSTANTIATE_SLICES(float, 128, 3, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 256, 3, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 4, false, gradient)
SSIM_INSTANTIATE_SLICES(float, 64, 4, true, gradient)
SSIM_INSTANTIATE_SLICES(float, 128, 4, true, gradient)

#define SSIM_INSTANTIATE_EXACT(Storage, columns, derivatives, single, radius)                        \
  template __global__ void                                                                           \
  strip_kernel<StripConfig<Storage, columns, derivatives, Objective::mean_similarity, false, single, \
                           Pass::image, false, radius>>(                                             \
      const __grid_constant__ StripParams<Storage, radius>);

SSIM_INSTANTIATE_EXACT(float, 64, 0, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 128, 0, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 128, 3, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 256, 3, false, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 64, 3, true, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 256, 3, true, kShortRadius)
SSIM_INSTANTIATE_EXACT(float, 64, 0, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, 0, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, 3, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 256, 3, false, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 64, 3, true, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 128, 3, true, kLongRadius)
SSIM_INSTANTIATE_EXACT(float, 256, 3, true, kLongRadius)

#define SSIM_INSTANTIATE_DEPTH(Storage, derivatives, objective)                                          \
  template __global__ void depth_kernel<DepthConfig<Storage, derivatives, Objective::objective, false>>( \
      const __grid_constant__ DepthParams<Storage>);

SSIM_INSTANTIATE_DEPTH(float, 0, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 3, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 4, mean_similarity)
SSIM_INSTANTIATE_DEPTH(float, 3, mean_contrast)

}  // namespace ssim_fused::cuda
