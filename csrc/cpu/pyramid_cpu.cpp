// The operators of the pyramid on the CPU: halve both images, weigh the levels' means, gather their
// gradients.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

#include "../args.h"
#include "../pyramid_args.h"
#include "tensor_image.h"

namespace ssim_fused {
namespace {

template <class T>
void downsample_image(const Tensor& from, const Tensor& to) {
  const Image<T> in = image_of<T>(from, false), out = image_of<T>(to, true);
  const Halving halving(from);
  const ImageSize size(to);
  const int64_t wide = 2 * size.width, rows = size.depth * size.height;
  torch::stable::parallel_for(0, from.size(0) * from.size(1) * rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<T> sum(wide), row(wide), mean(size.width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / rows, slice = task % rows / size.height, y = task % size.height;
      const Plane plane{image / from.size(1), image % from.size(1), slice};
      std::fill(sum.begin(), sum.end(), T(0));
      for (int64_t k = 0; k < halving.slices; ++k) {
        const int64_t source = in.offset({plane.batch, plane.channel, halving.slices * slice + k});
        for (int64_t j = 0; j < 2; ++j) {
          in.read_into(row.data(), source, 2 * y + j, 0, wide);
          for (int64_t i = 0; i < wide; ++i) sum[i] += row[i];
        }
      }
      for (int64_t i = 0; i < size.width; ++i) {
        mean[i] = (sum[2 * i] + sum[2 * i + 1]) * static_cast<T>(halving.share);
      }
      out.write_from(mean.data(), out.offset(plane), y, 0, size.width);
    }
  });
}

std::tuple<Tensor, Tensor> downsample(const Tensor& preds, const Tensor& target) {
  check_downsample(preds, target);
  std::tuple<Tensor, Tensor> halves{new_half(preds), new_half(target)};
  const auto run =
      preds.scalar_type() == ScalarType::Double ? downsample_image<double> : downsample_image<float>;
  run(preds, std::get<0>(halves));
  run(target, std::get<1>(halves));
  return halves;
}

template <class T>
void weigh(const std::vector<Tensor>& means, const LevelWeights& weights, const Tensor& value,
           const Tensor& factors) {
  const int64_t batch = means[0].size(0);
  T* const values = static_cast<T*>(value.mutable_data_ptr());
  T* const by_mean = static_cast<T*>(factors.mutable_data_ptr());
  for (int64_t b = 0; b < batch; ++b) {
    values[b] = static_cast<T>(weighted_product(
        weights,
        [&](int l) { return static_cast<const T*>(means[l].const_data_ptr())[b * means[l].stride(0)]; },
        [&](int l, double factor) { by_mean[l * batch + b] = static_cast<T>(factor); }));
  }
}

std::tuple<Tensor, Tensor> level_product(const std::vector<Tensor>& means, const std::vector<double>& betas,
                                         const std::string& normalize) {
  const LevelWeights weights = check_level_product(means, betas, normalize);
  auto [value, factors] = new_product(means);
  (means[0].scalar_type() == ScalarType::Double ? weigh<double> : weigh<float>)(means, weights, value,
                                                                                factors);
  return {value, factors};
}

// A row of level l's part of the gradient, seen from level l: its own gradient times its factor, and the
// share of what comes from the levels below, each of whose pixels stands for several of this one's.
template <class T>
class Gatherer {
 public:
  Gatherer(const std::vector<Image<T>>& levels, const std::vector<ImageSize>& sizes, const Halving& halving)
      : levels_(levels), sizes_(sizes), halving_(halving), rows_(levels.size()), current_(levels.size(), -1) {
    for (size_t l = 0; l < levels.size(); ++l) rows_[l].resize(sizes[l].width);
  }

  void start_image(int64_t batch, int64_t channel, const std::vector<T>& factors) {
    batch_ = batch;
    channel_ = channel;
    factors_ = factors;
    std::fill(current_.begin(), current_.end(), -1);
  }

  const T* row(size_t level, int64_t slice, int64_t y) {
    std::vector<T>& out = rows_[level];
    const ImageSize& size = sizes_[level];
    if (current_[level] == slice * size.height + y) return out.data();
    current_[level] = slice * size.height + y;
    const Image<T>& image = levels_[level];
    image.read_into(out.data(), image.offset({batch_, channel_, slice}), y, 0, size.width);
    for (T& value : out) value *= factors_[level];
    if (level + 1 == levels_.size()) return out.data();
    const ImageSize& half = sizes_[level + 1];
    if (slice / halving_.slices < half.depth && y / 2 < half.height) {
      const T* const below = row(level + 1, slice / halving_.slices, y / 2);
      for (int64_t i = 0; i < half.width; ++i) {
        const T part = below[i] * static_cast<T>(halving_.share);
        out[2 * i] += part;
        out[2 * i + 1] += part;
      }
    }
    return out.data();
  }

 private:
  const std::vector<Image<T>>& levels_;
  const std::vector<ImageSize>& sizes_;
  const Halving& halving_;
  std::vector<std::vector<T>> rows_;
  std::vector<int64_t> current_;
  int64_t batch_ = 0, channel_ = 0;
  std::vector<T> factors_;
};

template <class T>
void gather(const std::vector<Tensor>& gradients, const Tensor& factors, const Tensor& result) {
  const Image<T> out = image_of<T>(result, true);
  const Halving halving(result);
  std::vector<Image<T>> levels;
  std::vector<ImageSize> sizes;
  for (const Tensor& gradient : gradients) {
    levels.push_back(image_of<T>(gradient, false));
    sizes.emplace_back(gradient);
  }
  const T* const all_factors = static_cast<const T*>(factors.const_data_ptr());
  const int64_t channels = result.size(1), height = sizes[0].height, rows = sizes[0].depth * height;
  constexpr int64_t kGrain = 32;  // rows: coarse rows are computed once for most of them
  torch::stable::parallel_for(0, result.size(0) * channels * rows, kGrain, [&](int64_t begin, int64_t end) {
    Gatherer<T> gatherer(levels, sizes, halving);
    std::vector<T> of_image(levels.size());
    int64_t current = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / rows / channels, channel = task / rows % channels;
      const int64_t slice = task % rows / height, y = task % height;
      if (task / rows != current) {
        current = task / rows;
        for (size_t l = 0; l < levels.size(); ++l) {
          of_image[l] = all_factors[static_cast<int64_t>(l) * factors.stride(0) + batch * factors.stride(1)];
        }
        gatherer.start_image(batch, channel, of_image);
      }
      out.write_from(gatherer.row(0, slice, y), out.offset({batch, channel, slice}), y, 0, sizes[0].width);
    }
  });
}

Tensor pyramid_gradient(const std::vector<Tensor>& gradients, const Tensor& factors) {
  check_pyramid_gradient(gradients, factors);
  const Tensor result = torch::stable::empty_like(gradients[0]);
  (gradients[0].scalar_type() == ScalarType::Double ? gather<double> : gather<float>)(gradients, factors,
                                                                                      result);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CPU, m) {
  m.impl("downsample", TORCH_BOX(&downsample));
  m.impl("level_product", TORCH_BOX(&level_product));
  m.impl("pyramid_gradient", TORCH_BOX(&pyramid_gradient));
}

}  // namespace ssim_fused
