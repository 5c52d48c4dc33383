// Runs a step of MS-SSIM on the host with the launches that csrc/api/multiscale.h requests: `multiscale
// CASE_DIRECTORY`. Images are contiguous and the window is custom. The levels listed in `wide` run the
// kernels for wide windows. Prints the number of launches.
#define SSIM_SIMT

#include <cmath>
#include <cstdint>
#include <deque>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "../../csrc/cuda/launch/tiles.cuh"
#include "driver.h"

namespace {

struct CountingLauncher : HostLauncher {
  CountingLauncher(const Case& c, Memory& kept, int& launches) : HostLauncher(c, &kept), launches(launches) {}
  int& launches;

  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    ++launches;
    HostLauncher::launch<kernel>(blocks, threads, shared_bytes, params);
  }
};

template <class Storage>
DeviceImage<Storage> contiguous(Storage* data, int64_t channels, const DeviceSize& size) {
  const int64_t plane = int64_t{size.height} * size.width;
  return {data, {channels * plane, plane, size.width, 1}, plane};
}

template <class Storage>
class Step {
  using T = ComputeOf<Storage>;

 public:
  explicit Step(const Case& c)
      : c_(c),
        shape_(c.list<int64_t>("shape")),
        betas_(c.list<double>("betas")),
        taps_(c.list<double>("taps")),
        preds_(read<Storage>(c, "preds")),
        target_(read<Storage>(c, "target")),
        gradient_(preds_.size()) {
    std::memset(gradient_.data(), 0xff, gradient_.size() * sizeof(Storage));
  }

  void run() {
    CountingLauncher launcher(c_, kept_, launches_);
    const size_t count = betas_.size();
    const DeviceSize size{1, static_cast<int>(shape_[2]), static_cast<int>(shape_[3])};
    const Level<const Storage> finest{{contiguous<const Storage>(preds_.data(), shape_[1], size),
                                       contiguous<const Storage>(target_.data(), shape_[1], size)},
                                      size};
    std::vector<Level<T>> halves;
    std::vector<DeviceImage<T>> gradients;
    for (size_t l = 1; l < count; ++l) {
      const DeviceSize& above = l == 1 ? size : halves.back().size;
      const DeviceSize half{1, above.height / 2, above.width / 2};
      halves.push_back({{new_image(half), new_image(half)}, half});
      gradients.push_back(new_image(half));
    }
    if (count > 1)
      launch_halvings(finest, std::span<const Level<T>>(halves), 1, shape_[0], shape_[1], launcher);
    ProductParams<T> product{};
    for (size_t l = count - 1; l > 0; --l)
      run_level(readable(halves[l - 1]), gradients[l - 1], l, product.levels[l]);
    const auto gradient = contiguous(gradient_.data(), shape_[1], size);
    run_level(finest, gradient, 0, product.levels[0]);
    const std::vector<T> factors = run_product(product, launcher);
    gather(finest, gradient, halves, gradients, factors, launcher);
    std::cout << "launches " << launches_ << "\n";
    write(c_, "gradient", gradient_);
  }

 private:
  DeviceImage<T> new_image(const DeviceSize& size) {
    memory_.emplace_back(static_cast<size_t>(shape_[0] * shape_[1] * size.height * size.width), T(NAN));
    return contiguous(memory_.back().data(), shape_[1], size);
  }

  // Runs the pass over one level with a separate launcher, as the operator does: memory that is not kept ends
  // with the level.
  template <class Of>
  void run_level(const Level<const Of>& level, const DeviceImage<Of>& gradient, size_t number,
                 PassSums& sums_to) {
    CountingLauncher launcher(c_, kept_, launches_);
    const int radius = static_cast<int>(taps_.size()) / 2;
    Problem<Of> problem{};
    problem.batch = shape_[0];
    problem.channels = shape_[1];
    problem.depth = {1, 0, 0, true};
    problem.rows = {level.size.height, radius, radius, true};
    problem.columns = {level.size.width, radius, radius, true};
    const std::vector<T> taps(taps_.begin(), taps_.end());
    problem.preds = level.images[0];
    problem.target = level.images[1];
    problem.grad_preds = gradient;
    problem.constants.c1 = 1e-4;
    problem.constants.c2 = 9e-4;
    problem.wants_constants = c_.one("want_grad_constants", 0) != 0;
    Results<T> results;
    const auto pixels = static_cast<double>(shape_[1]) * level.size.height * level.size.width;
    results.outputs = pixels;
    results.cropped =
        static_cast<double>(shape_[1]) * (level.size.height - 2 * radius) * (level.size.width - 2 * radius);
    results.sums_to = &sums_to;
    const bool is_last = number + 1 == betas_.size();
    (is_last ? problem.of_similarity : problem.of_contrast).scale =
        -1 / (is_last ? results.outputs : results.cropped);
    if (number == 0) problem.pixel_term.term = pixel_term(c_);
    results.pixel_term_sums.pixels = pixels;
    const WindowTaps<T> windows{{T(1)}, taps, taps};
    for (const size_t wide : c_.list<size_t>("wide"))
      if (wide == number) return run_wide(problem, windows, results, launcher);
    run_images(problem, windows, is_last ? Objective::mean_similarity : Objective::mean_contrast, results,
               launcher);
  }

  // Computes the product, reduced to the mean over the batch, and returns the factors.
  std::vector<T> run_product(ProductParams<T>& params, CountingLauncher& launcher) {
    const auto images = static_cast<size_t>(shape_[0]);
    T value = T(NAN);
    std::vector<T> factors(betas_.size() * images, T(NAN)), by_constants(2 * images, T(NAN));
    params.level_weights.levels = static_cast<int>(betas_.size());
    params.level_weights.normalization = ssim_fused::Normalization::relu;
    std::copy(betas_.begin(), betas_.end(), params.level_weights.betas);
    params.as_distance = true;
    params.scale = 1 / static_cast<double>(images);
    params.finest_scale = 1;
    params.pixel_term.mean_weight = 1 - kSsimWeight;
    params.pixel_term.ssim_weight = kSsimWeight;
    params.gradient_scale = params.scale * (pixel_term(c_) != ssim_fused::PixelTerm::none ? kSsimWeight : 1);
    params.batch_value = &value;
    params.factors = factors.data();
    if (c_.one("want_grad_constants", 0) != 0) params.grad_constants = by_constants.data();
    launch_product(params, launcher);
    write(c_, "value", std::vector<T>{value});
    if (params.grad_constants) write(c_, "grad_constants", by_constants);
    return factors;
  }

  void gather(const Level<const Storage>& finest, const DeviceImage<Storage>& gradient,
              const std::vector<Level<T>>& halves, const std::vector<DeviceImage<T>>& gradients,
              const std::vector<T>& factors, CountingLauncher& launcher) {
    GatherParams<Storage> params{};
    params.finest = gradient;
    params.size[0] = finest.size;
    params.count = static_cast<int>(betas_.size());
    for (size_t l = 1; l < betas_.size(); ++l) {
      params.levels[l] = readable(Level<T>{{gradients[l - 1], {}}, {}}).images[0];
      params.size[l] = halves[l - 1].size;
    }
    params.share = T(0.25);
    params.factors = factors.data();
    params.batch = shape_[0];
    params.image = finest.images[0];
    params.other = finest.images[1];
    params.term.term = pixel_term(c_);
    params.term.weight = static_cast<T>((1 - kSsimWeight) / static_cast<double>(preds_.size()));
    params.tiles = tiles_of(shape_[0], shape_[1], params);
    launch_tiles<gather_kernel<Storage>>(params, launcher);
  }

  static constexpr double kSsimWeight = 0.3;
  const Case& c_;
  std::vector<int64_t> shape_;
  std::vector<double> betas_, taps_;
  std::vector<Storage> preds_, target_, gradient_;
  std::deque<std::vector<T>> memory_;
  HostLauncher::Memory kept_;
  int launches_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](const Case& c, auto storage) {
    using Storage = typename decltype(storage)::type;
    if constexpr (std::is_same_v<Storage, float> || std::is_same_v<Storage, double>) Step<Storage>(c).run();
  });
}
