// The operators of the pyramid on CUDA: check, allocate, launch on the current stream.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "../pyramid_args.h"
#include "launcher.cuh"
#include "pyramid.cuh"

namespace ssim_fused {
namespace {

using torch::stable::accelerator::DeviceGuard;

DeviceSize device_size(const Tensor& image) {
  const ImageSize size(image);
  return {axis_length(size.depth), axis_length(size.height), axis_length(size.width)};
}

std::tuple<Tensor, Tensor> downsample(const Tensor& preds, const Tensor& target) {
  check_downsample(preds, target);
  const DeviceGuard guard(preds.get_device_index());
  std::tuple<Tensor, Tensor> halves{new_half(preds), new_half(target)};
  const Tensor& like = std::get<0>(halves);
  if (like.numel() == 0) return halves;
  with_storage(preds.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    DownsampleParams<Storage> params{
        {input_picture<Storage>(preds), input_picture<Storage>(target)},
        {output_picture<T>(std::get<0>(halves)), output_picture<T>(std::get<1>(halves))},
        like.size(1),
        like.numel(),
        device_size(like),
        static_cast<int>(Halving(preds).slices)};
    CudaLauncher(preds).launch<downsample_kernel<Storage>>(pyramid_blocks(params.pixels), kPyramidThreads, 0,
                                                           params);
  });
  return halves;
}

template <class T>
void weigh(const std::vector<Tensor>& means, const LevelWeights& weights, const Tensor& value,
           const Tensor& factors) {
  ProductParams<T> params{};
  for (size_t l = 0; l < means.size(); ++l) {
    params.means[l] = static_cast<const T*>(means[l].const_data_ptr());
    params.stride[l] = means[l].stride(0);
  }
  params.weights = weights;
  params.batch = means[0].size(0);
  params.value = static_cast<T*>(value.mutable_data_ptr());
  params.factors = static_cast<T*>(factors.mutable_data_ptr());
  const int64_t blocks = (params.batch + kPyramidThreads - 1) / kPyramidThreads;
  CudaLauncher(value).launch<product_kernel<T>>(blocks, kPyramidThreads, 0, params);
}

std::tuple<Tensor, Tensor> level_product(const std::vector<Tensor>& means, const std::vector<double>& betas,
                                         const std::string& normalize) {
  const LevelWeights weights = check_level_product(means, betas, normalize);
  const DeviceGuard guard(means[0].get_device_index());
  auto [value, factors] = new_product(means);
  if (value.numel() > 0) {
    (means[0].scalar_type() == ScalarType::Double ? weigh<double> : weigh<float>)(means, weights, value,
                                                                                  factors);
  }
  return {value, factors};
}

Tensor pyramid_gradient(const std::vector<Tensor>& gradients, const Tensor& factors) {
  check_pyramid_gradient(gradients, factors);
  const Tensor& finest = gradients[0];
  const DeviceGuard guard(finest.get_device_index());
  const Tensor result = torch::stable::empty_like(finest);
  if (result.numel() == 0) return result;
  with_storage(finest.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    GatherParams<Storage> params{};
    params.finest = input_picture<Storage>(finest);
    params.count = static_cast<int>(gradients.size());
    for (size_t l = 0; l < gradients.size(); ++l) {
      if (l > 0) params.levels[l] = input_picture<T>(gradients[l]);
      params.size[l] = device_size(gradients[l]);
    }
    params.share = static_cast<T>(Halving(finest).share);
    params.result = output_picture<Storage>(result);
    params.factors = static_cast<const T*>(factors.const_data_ptr());
    params.factor_stride[0] = factors.stride(0);
    params.factor_stride[1] = factors.stride(1);
    params.channels = finest.size(1);
    params.pixels = finest.numel();
    CudaLauncher(finest).launch<gather_kernel<Storage>>(pyramid_blocks(params.pixels), kPyramidThreads, 0,
                                                        params);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CUDA, m) {
  m.impl("downsample", TORCH_BOX(&downsample));
  m.impl("level_product", TORCH_BOX(&level_product));
  m.impl("pyramid_gradient", TORCH_BOX(&pyramid_gradient));
}

}  // namespace ssim_fused
