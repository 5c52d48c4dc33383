// The kernels for masks, instantiated for the operators of device.cu; those for wide windows serve all.
#include "launch/launcher.cuh"
#include "launch/wide.cuh"

namespace ssim_fused::cuda {

#define SSIM_INSTANTIATE(Storage)                                                                \
  template void run_masked(const MaskedProblem<Storage>&, const WindowTaps<ComputeOf<Storage>>&, \
                           const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)
SSIM_INSTANTIATE(BFloat16)
SSIM_INSTANTIATE(AnyPixel)

}  // namespace ssim_fused::cuda
