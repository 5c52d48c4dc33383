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

// out[i] = mean of the 2x2 pixels at columns 2i and 2i + 1 of two rows, whose sum is `rows`.
template <class T>
void halve_row(const T* rows, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = (rows[2 * i] + rows[2 * i + 1]) * T(0.25);
}

template <class T>
void downsample_image(const Tensor& from, const Tensor& to) {
  const Image<T> in = image_of<T>(from, false), out = image_of<T>(to, true);
  const int64_t channels = from.size(1), height = to.size(2), width = to.size(3);
  torch::stable::parallel_for(0, from.size(0) * channels * height, 16, [&](int64_t begin, int64_t end) {
    std::vector<T> upper(2 * width), lower(2 * width), mean(width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / height / channels, channel = task / height % channels, row = task % height;
      const int64_t plane = in.plane_offset(batch, channel);
      in.read_into(upper.data(), plane, 2 * row, 0, 2 * width);
      in.read_into(lower.data(), plane, 2 * row + 1, 0, 2 * width);
      for (int64_t i = 0; i < 2 * width; ++i) upper[i] += lower[i];
      halve_row(upper.data(), width, mean.data());
      out.write_from(mean.data(), out.plane_offset(batch, channel), row, 0, width);
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

// A row of level l's part of the gradient, seen from level l: its own gradient times its factor, and a
// quarter of what comes from the levels below, each of whose pixels stands for four of this one's.
template <class T>
class Gatherer {
 public:
  Gatherer(const std::vector<Image<T>>& levels, const std::vector<std::array<int64_t, 2>>& sizes)
      : levels_(levels), sizes_(sizes), rows_(levels.size()), current_(levels.size(), -1) {
    for (size_t l = 0; l < levels.size(); ++l) rows_[l].resize(sizes[l][1]);
  }

  void start_plane(int64_t batch, int64_t channel, const std::vector<T>& factors) {
    batch_ = batch;
    channel_ = channel;
    factors_ = factors;
    std::fill(current_.begin(), current_.end(), -1);
  }

  const T* row(size_t level, int64_t y) {
    std::vector<T>& out = rows_[level];
    if (current_[level] == y) return out.data();
    current_[level] = y;
    const int64_t width = sizes_[level][1];
    const Image<T>& image = levels_[level];
    image.read_into(out.data(), image.plane_offset(batch_, channel_), y, 0, width);
    for (T& value : out) value *= factors_[level];
    if (level + 1 < levels_.size() && y / 2 < sizes_[level + 1][0]) {
      const T* const below = row(level + 1, y / 2);
      const int64_t halves = sizes_[level + 1][1];
      for (int64_t i = 0; i < halves; ++i) {
        const T part = below[i] * T(0.25);
        out[2 * i] += part;
        out[2 * i + 1] += part;
      }
    }
    return out.data();
  }

 private:
  const std::vector<Image<T>>& levels_;
  const std::vector<std::array<int64_t, 2>>& sizes_;
  std::vector<std::vector<T>> rows_;
  std::vector<int64_t> current_;
  int64_t batch_ = 0, channel_ = 0;
  std::vector<T> factors_;
};

template <class T>
void gather(const std::vector<Tensor>& gradients, const Tensor& factors, const Tensor& result) {
  const Image<T> out = image_of<T>(result, true);
  std::vector<Image<T>> levels;
  std::vector<std::array<int64_t, 2>> sizes;
  for (const Tensor& gradient : gradients) {
    levels.push_back(image_of<T>(gradient, false));
    sizes.push_back({gradient.size(2), gradient.size(3)});
  }
  const T* const all_factors = static_cast<const T*>(factors.const_data_ptr());
  const int64_t channels = result.size(1), height = result.size(2);
  constexpr int64_t kGrain = 32;  // rows: coarse rows are computed once for most of them
  torch::stable::parallel_for(0, result.size(0) * channels * height, kGrain, [&](int64_t begin, int64_t end) {
    Gatherer<T> gatherer(levels, sizes);
    std::vector<T> of_image(levels.size());
    int64_t current = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / height / channels, channel = task / height % channels, y = task % height;
      if (task / height != current) {
        current = task / height;
        for (size_t l = 0; l < levels.size(); ++l) {
          of_image[l] = all_factors[static_cast<int64_t>(l) * factors.stride(0) + batch * factors.stride(1)];
        }
        gatherer.start_plane(batch, channel, of_image);
      }
      out.write_from(gatherer.row(0, y), out.plane_offset(batch, channel), y, 0, sizes[0][1]);
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
