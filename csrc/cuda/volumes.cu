// The kernels for volumes, instantiated for the operators of device.cu; a file of its own, so that they
// compile beside those for images.
#include "launch/launcher.cuh"
#include "launch/volumes.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                                        \
  template void run_volumes(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                            const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
