// Instantiates the kernels for masks, which are those for wide windows, for the operators of device.cu.
#include "launch/launcher.cuh"
#include "launch/wide.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(name, Storage, scalar)                                                  \
  template void run_masked(const MaskedProblem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, \
                           const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)

}  // namespace ssim_fused::cuda
