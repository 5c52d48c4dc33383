// The kernels of MS-SSIM's pyramid, and nothing else: benchmarks/sass.py counts their instructions.
#include "../../csrc/cuda/kernels/pyramid.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(Storage)                                                                         \
  template __global__ void downsample_kernel<Storage>(const __grid_constant__ DownsampleParams<Storage>); \
  template __global__ void gather_kernel<Storage>(const __grid_constant__ GatherParams<Storage>);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)

}  // namespace ssim_fused::cuda
