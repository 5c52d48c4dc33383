// The kernels for volumes, instantiated for the operators of device.cu; a file of its own, so that they
// compile beside those for images.
#include "launch/launcher.cuh"
#include "launch/volumes.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(Storage)                                                                      \
  template void run_volumes(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                            const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)
SSIM_INSTANTIATE(BFloat16)
SSIM_INSTANTIATE(AnyPixel)

}  // namespace ssim_fused::cuda
