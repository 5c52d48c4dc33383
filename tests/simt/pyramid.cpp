// Runs the kernels of the pyramid on the host: `pyramid CASE_DIRECTORY`. Each result lies in an allocation of
// exactly its size and is NaN before the kernels run.
#define SSIM_SIMT

#include "../../csrc/cuda/kernels/pyramid.cuh"

#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "files.h"

namespace {

using namespace ssim_fused::cuda;

template <class Element>
Picture<Element> contiguous(Element* data, int64_t channels, const DeviceSize& size) {
  const int64_t slice = int64_t{size.height} * size.width, plane = size.depth * slice;
  return {data, {channels * plane, plane, size.width, 1}, slice};
}

// [B, C, H, W] or [B, C, D, H, W].
DeviceSize size_of(const std::vector<int64_t>& shape) {
  const size_t last = shape.size() - 1;
  return {shape.size() == 5 ? static_cast<int>(shape[2]) : 1, static_cast<int>(shape[last - 1]),
          static_cast<int>(shape[last])};
}

DeviceSize halved(DeviceSize size, int slices) {
  return {size.depth / slices, size.height / 2, size.width / 2};
}

template <auto kernel, class Params>
void launch(int64_t blocks, const Params& params) {
  simt::launch(blocks, kPyramidThreads, 0, [&] { kernel(params); });
}

template <class Storage>
void run_downsample(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  DownsampleParams<Storage> params{};
  params.channels = shape[1];
  params.slices = shape.size() == 5 ? 2 : 1;
  params.size = halved(size_of(shape), params.slices);
  params.pixels = shape[0] * shape[1] * params.size.depth * params.size.height * params.size.width;
  std::vector<std::vector<Storage>> from;
  std::vector<std::vector<T>> to;
  for (const char* name : {"preds", "target"}) {
    from.push_back(read<Storage>(c, name));
    to.emplace_back(params.pixels, T(NAN));
  }
  for (size_t i = 0; i < 2; ++i) {
    params.from[i] = contiguous<const Storage>(from[i].data(), shape[1], size_of(shape));
    params.to[i] = contiguous(to[i].data(), shape[1], params.size);
  }
  // One block fewer than pixels ask for, so that threads have to take several.
  launch<downsample_kernel<Storage>>(std::max<int64_t>(1, pyramid_blocks(params.pixels) - 1), params);
  write(c, "half_preds", to[0]);
  write(c, "half_target", to[1]);
}

template <class Storage>
void run_gather(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  GatherParams<Storage> params{};
  params.count = c.one("levels", 1);
  const std::vector<Storage> finest = read<Storage>(c, "level0");
  std::vector<std::vector<T>> levels(1);
  const int slices = shape.size() == 5 ? 2 : 1;
  params.share = T(0.25) / slices;
  params.finest = contiguous<const Storage>(finest.data(), shape[1], size_of(shape));
  for (int l = 0; l < params.count; ++l) {
    params.size[l] = l == 0 ? size_of(shape) : halved(params.size[l - 1], slices);
    if (l == 0) continue;
    levels.push_back(read<T>(c, "level" + std::to_string(l)));
    params.levels[l] = contiguous<const T>(levels.back().data(), shape[1], params.size[l]);
  }
  std::vector<Storage> result(finest.size());
  std::memset(result.data(), 0xff, result.size() * sizeof(Storage));
  params.result = contiguous(result.data(), shape[1], params.size[0]);
  const std::vector<T> factors = read<T>(c, "factors");
  params.factors = factors.data();
  params.factor_stride[0] = shape[0];
  params.factor_stride[1] = 1;
  params.channels = shape[1];
  params.pixels = static_cast<int64_t>(finest.size());
  launch<gather_kernel<Storage>>(std::max<int64_t>(1, pyramid_blocks(params.pixels) - 1), params);
  write(c, "gradient", result);
}

template <class T>
void run_product(const Case& c) {
  ProductParams<T> params{};
  const std::vector<T> means = read<T>(c, "means");
  const auto betas = c.list<double>("betas");
  params.level_weights.levels = static_cast<int>(betas.size());
  params.level_weights.normalization = static_cast<ssim_fused::Normalization>(c.one("normalization", 0));
  params.batch = static_cast<int64_t>(means.size() / betas.size());
  for (size_t l = 0; l < betas.size(); ++l) {
    params.level_weights.betas[l] = betas[l];
    params.means[l] = means.data() + static_cast<int64_t>(l) * params.batch;
    params.stride[l] = 1;
  }
  std::vector<T> value(params.batch, T(NAN)), factors(means.size(), T(NAN));
  params.value = value.data();
  params.factors = factors.data();
  launch<product_kernel<T>>(1, params);
  write(c, "value", value);
  write(c, "product_factors", factors);
}

template <class Storage>
void run_case(const Case& c) {
  const auto shape = c.list<int64_t>("shape");
  run_downsample<Storage>(c, shape);
  run_gather<Storage>(c, shape);
  run_product<ComputeOf<Storage>>(c);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     [](const Case& c, auto storage) { run_case<typename decltype(storage)::type>(c); });
}
