// Runs the kernels of the pyramid on the host: `pyramid CASE_DIRECTORY`. Each result lies in an allocation of
// exactly its size and is NaN before the kernels run.
#define SSIM_SIMT

#include "../../csrc/cuda/pyramid.cuh"

#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "files.h"

namespace {

using namespace ssim_fused;

template <class Element>
Picture<Element> contiguous(Element* data, int64_t channels, int64_t height, int64_t width) {
  return {data, {channels * height * width, height * width, width, 1}};
}

template <auto kernel, class Params>
void launch(int64_t blocks, const Params& params) {
  simt::launch(blocks, kPyramidThreads, 0, [&] { kernel(params); });
}

template <class Storage>
void run_downsample(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  const int64_t planes = shape[0] * shape[1], height = shape[2] / 2, width = shape[3] / 2;
  DownsampleParams<Storage> params{};
  std::vector<std::vector<Storage>> from;
  std::vector<std::vector<T>> to;
  for (const char* name : {"preds", "target"}) {
    from.push_back(read<Storage>(c, name));
    to.emplace_back(planes * height * width, T(NAN));
  }
  for (size_t i = 0; i < 2; ++i) {
    params.from[i] = contiguous<const Storage>(from[i].data(), shape[1], shape[2], shape[3]);
    params.to[i] = contiguous(to[i].data(), shape[1], height, width);
  }
  params.channels = shape[1];
  params.pixels = planes * height * width;
  params.height = static_cast<int>(height);
  params.width = static_cast<int>(width);
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
  params.finest = contiguous<const Storage>(finest.data(), shape[1], shape[2], shape[3]);
  for (int l = 0; l < params.count; ++l) {
    params.height[l] = static_cast<int>(shape[2] >> l);
    params.width[l] = static_cast<int>(shape[3] >> l);
    if (l == 0) continue;
    levels.push_back(read<T>(c, "level" + std::to_string(l)));
    params.levels[l] = contiguous<const T>(levels.back().data(), shape[1], params.height[l], params.width[l]);
  }
  std::vector<Storage> result(finest.size());
  std::memset(result.data(), 0xff, result.size() * sizeof(Storage));
  params.result = contiguous(result.data(), shape[1], shape[2], shape[3]);
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
  params.weights.levels = static_cast<int>(betas.size());
  params.weights.normalization = static_cast<Normalization>(c.one("normalization", 0));
  params.batch = static_cast<int64_t>(means.size() / betas.size());
  for (size_t l = 0; l < betas.size(); ++l) {
    params.weights.betas[l] = betas[l];
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
