// Instantiates the kernels of MS-SSIM's pyramid and the reduction, whose instructions benchmarks/sass.py
// counts.
#include "../../csrc/cuda/kernels/pyramid.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(Storage)                                                                         \
  template __global__ void downsample_kernel<Storage>(const __grid_constant__ DownsampleParams<Storage>); \
  template __global__ void gather_kernel<Storage>(const __grid_constant__ GatherParams<Storage>);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)
template __global__ void product_kernel<float>(const __grid_constant__ ProductParams<float>);
template __global__ void reduce_kernel<float>(const __grid_constant__ ReduceParams<float>);

}  // namespace ssim_fused::cuda
