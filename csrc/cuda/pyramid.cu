// Instantiates the kernels of MS-SSIM's pyramid, for the operators of device.cu.
#include "launch/pyramid.cuh"

namespace ssim_fused::cuda {

template void run_product<float>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
template void run_product<double>(const ProductRequest&, const std::vector<PassSums>&, CudaLauncher&);
#define SSIM_INSTANTIATE(name, Storage, scalar)                                             \
  template void run_downsample<Storage>(const std::vector<HalvingRequest>&, CudaLauncher&); \
  template void run_gather<Storage>(const GatherRequest&, CudaLauncher&);
#define SSIM_INSTANTIATE_MULTIPLY(name, Storage, scalar) \
  template void run_multiply<Storage>(const View&, const Upstream&, const View&, CudaLauncher&);
SSIM_FOR_STORAGE_TYPES(SSIM_INSTANTIATE)
SSIM_FOR_FLOAT_PIXELS(SSIM_INSTANTIATE_MULTIPLY)

}  // namespace ssim_fused::cuda
