// Instantiates the kernels for wide windows, for the operators of device.cu. A separate file, because images
// and volumes share them.
#include "launch/launcher.cuh"
#include "launch/wide.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                          \
  template void run_wide(const Problem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, \
                         const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
