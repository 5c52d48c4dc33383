// Instantiates the kernels for images, for the operators of device.cu. A separate file, so that images and
// volumes compile in parallel.
#include "launch/images.cuh"
#include "launch/launcher.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                                       \
  template void run_images(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                           const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
