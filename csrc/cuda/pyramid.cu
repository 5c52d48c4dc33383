// The kernels of the pyramid, instantiated for the operators of device.cu.
#include "launch/pyramid.cuh"

namespace ssim_fused::cuda {

template void run_product<float>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
template void run_product<double>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
#define SSIM_INSTANTIATE(Storage)                                                           \
  template void run_downsample<Storage>(const std::vector<HalvingRequest>&, CudaLauncher&); \
  template void run_gather<Storage>(const GatherRequest&, CudaLauncher&);
#define SSIM_INSTANTIATE_MULTIPLY(Storage) \
  template void run_multiply<Storage>(const View&, const Upstream&, const View&, CudaLauncher&);
SSIM_INSTANTIATE(float)
SSIM_INSTANTIATE(double)
SSIM_INSTANTIATE(Half)
SSIM_INSTANTIATE(BFloat16)
SSIM_INSTANTIATE(AnyPixel)
SSIM_INSTANTIATE_MULTIPLY(float)
SSIM_INSTANTIATE_MULTIPLY(double)
SSIM_INSTANTIATE_MULTIPLY(Half)
SSIM_INSTANTIATE_MULTIPLY(BFloat16)

}  // namespace ssim_fused::cuda
