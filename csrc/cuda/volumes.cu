// Instantiates the kernels for volumes, for the operators of device.cu. A separate file, so that images and
// volumes compile in parallel.
#include "launch/launcher.cuh"
#include "launch/volumes.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                                        \
  template void run_volumes(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, Objective, \
                            const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
