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

// Images as the case has them, kept in `bytes`.
template <class Storage>
Picture<const Storage> image_of(const Case& c, const std::string& name, std::vector<char>& bytes,
                                int64_t channels, const DeviceSize& size) {
  bytes = read<char>(c, name);
  const int64_t slice = int64_t{size.height} * size.width, plane = size.depth * slice;
  if constexpr (std::is_same_v<Storage, AnyPixel>) {
    return {bytes.data(),
            {channels * plane, plane, size.width, 1},
            slice,
            static_cast<PixelType>(c.one(name + "_type", 0))};
  } else {
    return {reinterpret_cast<const Storage*>(bytes.data()), {channels * plane, plane, size.width, 1}, slice};
  }
}

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
void launch(int64_t blocks, const Params& params, size_t shared_bytes = 0) {
  simt::launch(blocks, kPyramidThreads, shared_bytes, [&] { kernel(params); });
}

template <class Storage>
void run_downsample(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  DownsampleParams<Storage> params{};
  params.channels = shape[1];
  params.slices = shape.size() == 5 ? 2 : 1;
  params.size = halved(size_of(shape), params.slices);
  params.pixels = shape[0] * shape[1] * params.size.depth * params.size.height * params.size.width;
  std::vector<char> from[2];
  std::vector<std::vector<T>> to;
  for (const char* name : {"preds", "target"}) {
    params.from[to.size()] = image_of<Storage>(c, name, from[to.size()], shape[1], size_of(shape));
    to.emplace_back(params.pixels, T(NAN));
  }
  for (size_t i = 0; i < 2; ++i) params.to[i] = contiguous(to[i].data(), shape[1], params.size);
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
  std::vector<KeptAs<Storage>> finest = read<KeptAs<Storage>>(c, "level0");
  std::vector<std::vector<T>> levels(1);
  const int slices = shape.size() == 5 ? 2 : 1;
  params.share = T(0.25) / slices;
  params.finest = contiguous(finest.data(), shape[1], size_of(shape));
  for (int l = 0; l < params.count; ++l) {
    params.size[l] = l == 0 ? size_of(shape) : halved(params.size[l - 1], slices);
    if (l == 0) continue;
    levels.push_back(read<T>(c, "level" + std::to_string(l)));
    params.levels[l] = contiguous<const T>(levels.back().data(), shape[1], params.size[l]);
  }
  const std::vector<T> factors = read<T>(c, "factors");
  params.factors = factors.data();
  params.batch = shape[0];
  params.channels = shape[1];
  params.pixels = static_cast<int64_t>(finest.size());
  std::vector<char> image, other;
  params.image = image_of<Storage>(c, "preds", image, shape[1], size_of(shape));
  params.other = image_of<Storage>(c, "target", other, shape[1], size_of(shape));
  params.term = {static_cast<ssim_fused::PixelTerm>(c.one("pixels", 0)), T(0.01), T(c.one("slope", 0.0))};
  launch<gather_kernel<Storage>>(std::max<int64_t>(1, pyramid_blocks(params.pixels) - 1), params);
  write(c, "gradient", finest);
}

// For each image, and the mean over the batch.
template <class T>
void run_product(const Case& c) {
  ProductParams<T> params{};
  const std::vector<T> losses = read<T>(c, "losses"), level_constants = read<T>(c, "level_constants");
  const auto betas = c.list<double>("betas");
  params.level_weights.levels = static_cast<int>(betas.size());
  params.level_weights.normalization = static_cast<ssim_fused::Normalization>(c.one("normalization", 0));
  std::copy(betas.begin(), betas.end(), params.level_weights.betas);
  params.batch = static_cast<int64_t>(losses.size() / betas.size());
  params.losses = losses.data();
  params.level_constants = level_constants.data();
  params.as_distance = c.one("as_distance", 0) != 0;
  params.gradient_scale = c.one("gradient_scale", 1.0);
  params.finest_scale = c.one("finest_scale", 1.0);
  const auto images = static_cast<size_t>(params.batch);
  std::vector<T> value(images, T(NAN)), factors(losses.size(), T(NAN)), by_constants(2 * images, T(NAN)),
      batch_value(1, T(NAN));
  std::vector<T> pixel_means, terms(2 * images, T(NAN));
  if (c.one("pixels", 0) != 0) {
    pixel_means = read<T>(c, "pixel_means");
    params.pixels.means = pixel_means.data();
    params.pixels.mean_weight = 0.75;
    params.pixels.ssim_weight = 0.25;
    params.pixels.terms = terms.data();
  }
  params.value = value.data();
  params.factors = factors.data();
  params.grad_constants = by_constants.data();
  launch<product_kernel<T>>(2, params, kProductShared);
  write(c, "value", value);
  if (c.one("pixels", 0) != 0) write(c, "terms", terms);
  write(c, "product_factors", factors);
  write(c, "grad_constants", by_constants);
  params.value = params.factors = params.grad_constants = nullptr;
  params.batch_value = batch_value.data();
  params.scale = 1 / static_cast<double>(params.batch);
  launch<product_kernel<T>>(1, params, kProductShared);
  write(c, "batch_value", batch_value);
}

// Into another picture by way of strides, then where it lies, as whole vectors where it is those.
template <class Storage>
void run_multiply(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  std::vector<Storage> gradient = read<Storage>(c, "preds"), result(gradient.size());
  std::memset(result.data(), 0xff, result.size() * sizeof(Storage));
  const std::vector<T> factors = read<T>(c, "image_factors");
  MultiplyParams<Storage> params{};
  params.size = size_of(shape);
  params.gradient = contiguous<const Storage>(gradient.data(), shape[1], params.size);
  params.result = contiguous(result.data(), shape[1], params.size);
  params.factor = {factors.data(), 1, 0.5};
  params.channels = shape[1];
  params.batch = shape[0];
  params.elements = static_cast<int64_t>(gradient.size()) / shape[0];
  params.blocks = 2;
  launch<multiply_kernel<Storage>>(params.batch * params.blocks, params);
  write(c, "multiplied", result);
  params.result = contiguous(gradient.data(), shape[1], params.size);
  params.in_place = params.is_dense = true;
  params.vectors = params.elements % Vector<Storage>::kSize == 0;
  launch<multiply_kernel<Storage>>(params.batch * params.blocks, params);
  write(c, "multiplied_in_place", gradient);
}

template <class Storage>
void run_case(const Case& c) {
  const auto shape = c.list<int64_t>("shape");
  run_downsample<Storage>(c, shape);
  run_gather<Storage>(c, shape);
  run_product<ComputeOf<Storage>>(c);
  if constexpr (!std::is_same_v<Storage, AnyPixel>) run_multiply<Storage>(c, shape);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     [](const Case& c, auto storage) { run_case<typename decltype(storage)::type>(c); });
}
