// Checks and outputs of the pyramid's operators, for both devices.
#pragma once

#include <tuple>
#include <vector>

#include "args.h"
#include "math/pyramid.h"

namespace ssim_fused {

// Lengths of an image's or a volume's axes.
struct ImageSize {
  int64_t depth, height, width;

  explicit ImageSize(const Tensor& image)
      : depth(image.dim() == 5 ? image.size(2) : 1),
        height(image.size(image.dim() - 2)),
        width(image.size(image.dim() - 1)) {}
};

// From a level of the pyramid to the next: 2x2 pixels or 2x2x2 voxels become one.
struct Halving {
  int64_t slices;
  double share;  // of each of them in the mean

  explicit Halving(const Tensor& image)
      : slices(image.dim() == 5 ? 2 : 1), share(image.dim() == 5 ? 0.125 : 0.25) {}
};

inline void check_downsample(const Tensor& preds, const Tensor& target) {
  check_images(preds, target);
  for (int64_t d = 2; d < preds.dim(); ++d) {
    STD_TORCH_CHECK(preds.size(d) >= 2, "preds has shape ", to_text(preds.sizes()),
                    ", expected at least two pixels along each axis to halve");
  }
}

// Each axis halved and rounded down, in the compute type: 16-bit pixels are not rounded again at each level.
inline Tensor new_half(const Tensor& image) {
  std::vector<int64_t> shape(image.sizes().begin(), image.sizes().end());
  for (size_t d = 2; d < shape.size(); ++d) shape[d] /= 2;
  return torch::stable::new_empty(image, torch::headeronly::IntHeaderOnlyArrayRef(shape.data(), shape.size()),
                                  compute_type(image.scalar_type()));
}

inline LevelWeights check_level_product(const std::vector<Tensor>& means, const std::vector<double>& betas,
                                        const std::string& normalize) {
  STD_TORCH_CHECK(!means.empty() && means.size() <= kMaxLevels, "means has ", means.size(),
                  " elements, expected 1 to ", kMaxLevels);
  STD_TORCH_CHECK(means.size() == betas.size(), "betas has ", betas.size(),
                  " elements, expected one for each of the means, ", means.size());
  STD_TORCH_CHECK(normalize == "none" || normalize == "relu" || normalize == "simple", "normalize is '",
                  normalize, "', expected 'none', 'relu' or 'simple'");
  const ScalarType type = means[0].scalar_type();
  STD_TORCH_CHECK(type == compute_type(type), "means has dtype ", torch::headeronly::toString(type),
                  ", expected float32 or float64");
  for (const Tensor& mean : means) {
    STD_TORCH_CHECK(mean.dim() == 1 && mean.size(0) == means[0].size(0) && mean.scalar_type() == type &&
                        mean.device() == means[0].device(),
                    "means has an element of shape ", to_text(mean.sizes()), " and dtype ",
                    torch::headeronly::toString(mean.scalar_type()), ", expected ", to_text(means[0].sizes()),
                    " and ", torch::headeronly::toString(type), " on one device");
  }
  LevelWeights weights{};
  weights.levels = static_cast<int>(means.size());
  weights.normalization = normalize == "relu"     ? Normalization::relu
                          : normalize == "simple" ? Normalization::simple
                                                  : Normalization::none;
  std::copy(betas.begin(), betas.end(), weights.betas);
  return weights;
}

// The product [B] and its derivatives [levels, B].
inline std::tuple<Tensor, Tensor> new_product(const std::vector<Tensor>& means) {
  const int64_t shape[] = {static_cast<int64_t>(means.size()), means[0].size(0)};
  using Shape = torch::headeronly::IntHeaderOnlyArrayRef;
  return {torch::stable::new_empty(means[0], Shape(shape + 1, 1)),
          torch::stable::new_empty(means[0], Shape(shape, 2))};
}

inline void check_pyramid_gradient(const std::vector<Tensor>& gradients, const Tensor& factors) {
  STD_TORCH_CHECK(!gradients.empty() && gradients.size() <= kMaxLevels, "gradients has ", gradients.size(),
                  " elements, expected 1 to ", kMaxLevels);
  const Tensor& first = gradients[0];
  STD_TORCH_CHECK(is_supported(first.scalar_type()), "gradients has dtype ",
                  torch::headeronly::toString(first.scalar_type()),
                  ", expected float32, float64, float16 or bfloat16");
  const ScalarType type = compute_type(first.scalar_type());
  for (size_t l = 0; l < gradients.size(); ++l) {
    const Tensor& gradient = gradients[l];
    STD_TORCH_CHECK((gradient.dim() == 4 || gradient.dim() == 5) && gradient.dim() == first.dim(),
                    "gradients has an element of shape ", to_text(gradient.sizes()),
                    ", expected [B, C, H, W], or [B, C, D, H, W] for all");
    bool fits = gradient.size(0) == first.size(0) && gradient.size(1) == first.size(1);
    if (l > 0) {
      for (int64_t d = 2; d < first.dim(); ++d)
        fits = fits && gradient.size(d) == gradients[l - 1].size(d) / 2;
    }
    STD_TORCH_CHECK(fits, "gradients has an element of shape ", to_text(gradient.sizes()), " for level ", l,
                    ", expected half the level above, rounded down");
    STD_TORCH_CHECK(l == 0 || gradient.scalar_type() == type, "gradients has an element of dtype ",
                    torch::headeronly::toString(gradient.scalar_type()), " for level ", l, ", expected ",
                    torch::headeronly::toString(type));
    STD_TORCH_CHECK(gradient.device() == factors.device(), "gradients and factors are on different devices");
  }
  STD_TORCH_CHECK(factors.dim() == 2 && factors.size(0) == static_cast<int64_t>(gradients.size()) &&
                      factors.size(1) == first.size(0),
                  "factors has shape ", to_text(factors.sizes()), ", expected [levels, B]");
  STD_TORCH_CHECK(factors.scalar_type() == type, "factors has dtype ",
                  torch::headeronly::toString(factors.scalar_type()), ", expected ",
                  torch::headeronly::toString(type));
}

}  // namespace ssim_fused
