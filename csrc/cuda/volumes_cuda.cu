// The kernels for volumes, instantiated for the operators of ssim_cuda.cu; a file of its own, so that they
// compile beside those for images.
#include "launcher.cuh"
#include "volumes.cuh"

namespace ssim_fused {

#define SSIM_INSTANTIATE(Storage)                                                                 \
  template void run_volumes(const Problem<Storage>&, const Windows<ComputeOf<Storage>>&, Weights, \
                            const Results<ComputeOf<Storage>>&, CudaLauncher&);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)
SSIM_INSTANTIATE(BFloat16)

}  // namespace ssim_fused
