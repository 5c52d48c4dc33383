// Runs the kernels of the pyramid on the host: `pyramid CASE_DIRECTORY`. Each result is in an allocation of
// exactly its size and is NaN before the kernels run.
#define SSIM_SIMT

#include "../../csrc/cuda/kernels/pyramid.cuh"

#include <cmath>
#include <cstdint>
#include <deque>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "../../csrc/cuda/launch/tiles.cuh"
#include "files.h"
#include "placed.h"

namespace {

using namespace ssim_fused::cuda;

template <class Element>
DeviceImage<Element> contiguous(Element* data, int64_t channels, const DeviceSize& size) {
  const int64_t slice = int64_t{size.height} * size.width, plane = size.depth * slice;
  return {data, {channels * plane, plane, size.width, 1}, slice};
}

// Prints the columns per thread and the number of levels of each launch.
struct HalvingLauncher {
  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    std::cout << " " << params.tiles.patch_columns << "x" << (params.after[0].data ? 2 : 1);
    TileLauncher().launch<kernel>(blocks, threads, shared_bytes, params);
  }
};

// Halves all levels twice: with the launches of the library, and with one launch per level.
template <class Storage>
void run_downsample(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  const auto layout = c.one<std::string>("layout", "contiguous");
  const auto placed = [&](const char* name) {
    return Placed(layout, shape[0], shape[1], size_of(shape), image_bytes<Storage>(c, name),
                  read<char>(c, name));
  };
  const Placed preds = placed("preds"), target = placed("target");
  const Level<const Storage> finest{
      {image_of<Storage>(c, "preds", preds), image_of<Storage>(c, "target", target)}, size_of(shape)};
  const int slices = shape.size() == 5 ? 2 : 1;
  // Results are contiguous, except in the layout "far".
  const std::string of_results = layout == "far" ? layout : "contiguous";
  for (const std::string name : {"halved", "single"}) {
    std::deque<Placed> results;
    std::vector<Level<T>> levels;
    for (int l = 0; l < c.one("halvings", 1); ++l) {
      levels.push_back({{}, halved(l == 0 ? finest.size : levels.back().size, slices)});
      for (int image = 0; image < 2; ++image) {
        results.emplace_back(of_results, shape[0], shape[1], levels.back().size, sizeof(T),
                             std::vector<char>{});
        levels.back().images[image] = results.back().template device_image<T>();
      }
    }
    const std::span<const Level<T>> all(levels);
    HalvingLauncher launcher;
    std::cout << name;
    if (name == "halved") {
      launch_halvings(finest, all, slices, shape[0], shape[1], launcher);
    } else {
      launch_halving(finest, all.first(1), slices, shape[0], shape[1], launcher);
      for (size_t l = 1; l < all.size(); ++l)
        launch_halving(readable(all[l - 1]), all.subspan(l, 1), slices, shape[0], shape[1], launcher);
    }
    std::cout << "\n";
    for (size_t i = 0; i < results.size(); ++i)
      write(c, name + std::to_string(i / 2 + 1) + (i % 2 == 0 ? "_preds" : "_target"), results[i].values());
  }
}

template <class Storage>
void run_gather(const Case& c, const std::vector<int64_t>& shape) {
  using T = ComputeOf<Storage>;
  const auto layout = c.one<std::string>("layout", "contiguous");
  const DeviceSize size = size_of(shape);
  GatherParams<Storage> params{};
  params.count = c.one("levels", 1);
  Placed finest(layout, shape[0], shape[1], size, sizeof(KeptAs<Storage>), read<char>(c, "level0"));
  params.finest = finest.device_image<KeptAs<Storage>>();
  std::vector<std::vector<T>> levels(1);
  const int slices = shape.size() == 5 ? 2 : 1;
  params.share = T(0.25) / slices;
  for (int l = 0; l < params.count; ++l) {
    params.size[l] = l == 0 ? size : halved(params.size[l - 1], slices);
    if (l == 0) continue;
    levels.push_back(read<T>(c, "level" + std::to_string(l)));
    params.levels[l] = contiguous<const T>(levels.back().data(), shape[1], params.size[l]);
  }
  const std::vector<T> factors = read<T>(c, "factors");
  params.factors = factors.data();
  params.batch = shape[0];
  const auto placed = [&](const char* name) {
    return Placed(layout, shape[0], shape[1], size, image_bytes<Storage>(c, name), read<char>(c, name));
  };
  const Placed image = placed("preds"), other = placed("target");
  params.image = image_of<Storage>(c, "preds", image);
  params.other = image_of<Storage>(c, "target", other);
  params.term = {pixel_term(c), T(0.01), T(c.one("slope", 0.0))};
  params.tiles = tiles_of(shape[0], shape[1], params);
  TileLauncher launcher;
  launch_tiles<gather_kernel<Storage>>(params, launcher);
  std::cout << "gathering " << params.tiles.patch_columns << "\n";
  write(c, "gradient", finest.values());
}

// Computes the product from the sums of the levels' passes: the value of each image, then their mean and
// their sum.
template <class T>
void run_product(const Case& c) {
  ProductParams<T> params{};
  const auto betas = c.list<double>("betas"), outputs = c.list<double>("outputs"),
             cropped = c.list<double>("cropped");
  const auto blocks = c.list<int64_t>("blocks"), batch = c.list<int64_t>("shape");
  const auto counts = c.list<int>("counts"), masked = c.list<int>("masked");
  params.level_weights.levels = static_cast<int>(betas.size());
  params.level_weights.normalization = static_cast<ssim_fused::Normalization>(c.one("normalization", 0));
  std::copy(betas.begin(), betas.end(), params.level_weights.betas);
  params.as_distance = c.one("as_distance", 0) != 0;
  params.gradient_scale = c.one("gradient_scale", 1.0);
  params.finest_scale = c.one("finest_scale", 1.0);
  const auto images = static_cast<size_t>(batch.at(0));
  std::deque<std::vector<double>> memory;  // allocations of exactly their sizes
  for (size_t l = 0; l < betas.size(); ++l) {
    PassSums& level = params.levels[l];
    const std::vector<double> sums = read<double>(c, "sums" + std::to_string(l));
    std::vector<double>& scratch = memory.emplace_back(images + 1, NAN);
    scratch.insert(scratch.end(), sums.begin(), sums.end());
    level.sums.scratch = scratch.data();
    level.batch = batch[0];
    level.blocks = blocks.at(l);
    level.count = counts.at(l);
    level.outputs = outputs.at(l);
    level.cropped = cropped.at(l);
    if (masked.at(l))
      level.mask_sums = memory.emplace_back(read<double>(c, "mask_sums" + std::to_string(l))).data();
  }
  std::vector<T> value(images, T(NAN)), factors(images * betas.size(), T(NAN)),
      by_constants(2 * images, T(NAN)), batch_value(1, T(NAN)), terms(2 * images, T(NAN));
  if (pixel_term(c) != ssim_fused::PixelTerm::none) {
    params.levels[0].pixel_term = {memory.emplace_back(read<double>(c, "pixel_sums")).data(),
                                   c.one<int64_t>("pixel_blocks", 1), 1, c.one("pixels_of_image", 1.0)};
    params.pixel_term.mean_weight = 0.75;
    params.pixel_term.ssim_weight = 0.25;
    params.pixel_term.terms = terms.data();
  }
  const auto launch_it = [&] {
    *params.levels[0].sums.ticket() = 0;  // as the preceding march does
    BlockLauncher launcher;
    launch_product(params, launcher);
  };
  params.value = value.data();
  params.factors = factors.data();
  params.grad_constants = by_constants.data();
  launch_it();
  write(c, "value", value);
  if (pixel_term(c) != ssim_fused::PixelTerm::none) write(c, "terms", terms);
  write(c, "product_factors", factors);
  write(c, "grad_constants", by_constants);
  params.value = params.factors = params.grad_constants = nullptr;
  params.batch_value = batch_value.data();
  for (const bool is_mean : {true, false}) {
    params.scale = is_mean ? 1 / static_cast<double>(images) : 1.0;
    launch_it();
    write(c, is_mean ? "batch_mean" : "batch_sum", batch_value);
  }
}

// Multiplies a gradient into another image, pixel by pixel, and then in place, as vectors if possible.
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
  BlockLauncher launcher;
  launcher.launch<multiply_kernel<Storage>>(params.batch * params.blocks, kPyramidThreads, 0, params);
  write(c, "multiplied", result);
  params.result = contiguous(gradient.data(), shape[1], params.size);
  params.in_place = params.is_dense = true;
  params.vectors = params.elements % Vector<Storage>::kSize == 0;
  launcher.launch<multiply_kernel<Storage>>(params.batch * params.blocks, kPyramidThreads, 0, params);
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
