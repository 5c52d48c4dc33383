// The kernels for images, instantiated for the operators of device.cu; a file of its own, so that they
// compile beside those for volumes.
#include "launch/images.cuh"
#include "launch/launcher.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                                       \
  template void run_images(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                           const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
