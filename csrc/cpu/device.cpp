// The CPU as a Device of api/operators.h: turns requests into passes, and the sums of passes into results.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../api/operators.h"
#include "bytes/byte_images.h"
#include "parallel.h"
#include "planes.h"
#include "pyramid.h"
#include "rows/mask.h"
#include "rows/pixel_term.h"
#include "rows/read_write.h"
#include "scratch.h"
#include "volumes.h"

namespace ssim_fused::cpu {
namespace {

// Calls f(T{}) with the compute type: double for float64, float for any other type.
template <class F>
void with_compute_type(ScalarType type, F&& f) {
  if (compute_type(type) == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

// Returns each image's weight for the derivatives of the formula.
template <class T>
std::vector<T> weights_of(const Upstream& upstream, int64_t batch) {
  std::vector<T> weights(static_cast<size_t>(batch), static_cast<T>(upstream.scale));
  if (const T* values = static_cast<const T*>(upstream.values)) {
    for (int64_t b = 0; b < batch; ++b)
      weights[static_cast<size_t>(b)] =
          static_cast<T>(static_cast<double>(values[b * upstream.stride]) * upstream.scale);
  }
  // Weights are negated, because those of a request are of distances, and the formula's derivatives are
  // those of similarity and contrast sensitivity.
  for (T& weight : weights) weight = -weight;
  return weights;
}

// Turns a request into the parameters of a pass. `sums` and `pixels` are the sums of the images' masks over
// outputs and pixels; empty if not needed.
template <class T>
PassSpec<T> pass_spec_of(const Request& request, const std::vector<MaskSum>& sums,
                         const std::vector<double>& pixels) {
  PassSpec<T> spec{};
  spec.preds = image_rows<T>(request.preds);
  spec.target = image_rows<T>(request.target);
  spec.map = image_rows<T>(request.map);
  spec.grad_preds = image_rows<T>(request.grad_preds);
  spec.grad_target = image_rows<T>(request.grad_target);
  spec.grad_map = image_rows<T>(request.grad_map);
  spec.rows = request.windows.axes[1];
  spec.columns = request.windows.axes[2];
  spec.sees_padding = request.windows.see_padding();
  for (size_t d = 0; d < 2; ++d) spec.uniform[d] = factor_of_sums(request.windows, 1 + d);
  if (spec.uniform[0] != 0 && spec.uniform[1] != 0) {
    spec.uniform[0] *= spec.uniform[1];
    spec.uniform[1] = 1;
  }
  for (size_t d = 0; d < 2; ++d) {
    spec.taps[d] = request.windows.taps_as<T>(1 + d);
    if (spec.uniform[d] != 0)
      std::fill(spec.taps[d].begin(), spec.taps[d].end(), static_cast<T>(spec.uniform[d]));
    spec.reversed[d].assign(spec.taps[d].rbegin(), spec.taps[d].rend());
  }
  spec.crop_begin = spec.columns.crop_begin();
  spec.crop_end = spec.columns.crop_end();
  const int64_t batch = request.preds.batch();
  spec.grad_similarity = weights_of<T>(request.of_similarity, batch);
  spec.grad_contrast = weights_of<T>(request.of_contrast, batch);
  spec.mask = weight_rows<T>(request.mask.view);
  spec.mask_columns = spec.columns;
  spec.mask_weighs_windows = request.mask.weighs_windows();
  for (size_t b = 0; b < sums.size(); ++b) {
    T &similarity = spec.grad_similarity[b], &contrast = spec.grad_contrast[b];
    similarity = static_cast<T>(sums[b].share(static_cast<double>(similarity), false));
    contrast = static_cast<T>(sums[b].share(static_cast<double>(contrast), true));
  }
  spec.wants_constants = request.wants_constants();
  spec.pixel_term = pixel_term_params<T>(request.pixels, pixels);
  const Constants& constants = request.constants;
  spec.c1.assign(static_cast<size_t>(batch), static_cast<T>(constants.c1));
  spec.c2.assign(static_cast<size_t>(batch), static_cast<T>(constants.c2));
  if (const T* values = static_cast<const T*>(constants.data)) {
    for (int64_t b = 0; b < batch; ++b) {
      spec.c1[static_cast<size_t>(b)] = values[b * constants.image_stride];
      spec.c2[static_cast<size_t>(b)] = values[b * constants.image_stride + constants.stride];
    }
  }
  return spec;
}

// The means of one image, and the derivatives by its constants.
struct Means {
  double similarity_loss, contrast_loss, pixels, by_c1, by_c2;
};

// Turns each image's sums into means. `masked_pixels` are the sums of the images' masks over pixels; empty
// if not needed.
std::vector<Means> means_of(const Request& request, const std::vector<Sums>& sums,
                            const std::vector<double>& masked_pixels) {
  // Returns a mean over outputs. An empty mask compares nothing: its distance is 0. With no outputs at all
  // the mean is 0/0.
  const auto mean = [&](double loss, double count, double weight) {
    if (!request.mask || count == 0) return loss / count;
    return weight > 0 ? loss / weight : 0;
  };
  std::vector<Means> means;
  for (const Sums& of : sums) {
    const double pixels = masked_pixels.empty() ? request.pixels_of_image() : masked_pixels[means.size()];
    means.push_back({mean(of.similarity_loss, request.outputs(), of.weight),
                     mean(of.contrast_loss, request.cropped_outputs(), of.cropped_weight),
                     request.mask && pixels == 0 ? 0 : of.pixels / pixels, of.by_c1, of.by_c2});
  }
  return means;
}

template <class T>
void write_results(const Request& request, const std::vector<Means>& means) {
  const auto result = [&](double loss) { return request.as_distance ? loss : 1 - loss; };
  T* const similarity = static_cast<T*>(request.similarity);
  T* const contrast = static_cast<T*>(request.contrast);
  T* const by_constants = static_cast<T*>(request.grad_constants);
  T* const terms = static_cast<T*>(request.pixels.terms);
  double total = 0;
  for (size_t b = 0; b < means.size(); ++b) {
    const double distance = result(means[b].similarity_loss);
    const double value = request.pixels.value(means[b].pixels, distance);
    if (terms) {
      terms[2 * b] = static_cast<T>(means[b].pixels);
      terms[2 * b + 1] = static_cast<T>(distance);
    }
    total += value;
    if (similarity && request.reduction == Reduction::none) similarity[b] = static_cast<T>(value);
    if (contrast) contrast[b] = static_cast<T>(result(means[b].contrast_loss));
    if (by_constants) {
      by_constants[2 * b] = static_cast<T>(means[b].by_c1);
      by_constants[2 * b + 1] = static_cast<T>(means[b].by_c2);
    }
  }
  if (similarity && request.reduction != Reduction::none)
    *similarity = static_cast<T>(
        request.reduction == Reduction::mean ? total / static_cast<double>(means.size()) : total);
}

struct Cpu {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  // The means of each image, for each level.
  using LevelResults = std::vector<std::vector<Means>>;

  static void similarity(const Request& request, const Tensor&) {
    with_compute_type(request.compute_type(), [&]<class T>(T) {
      write_results<T>(request,
                       pass<T>(request, request.similarity != nullptr || request.pixels.terms != nullptr,
                               request.contrast != nullptr));
    });
  }

  static void level(const Request& request, int number, LevelResults& levels, const Tensor&) {
    with_compute_type(request.preds.type, [&]<class T>(T) {
      const bool is_contrast = request.objective == Objective::mean_contrast;
      levels[static_cast<size_t>(number)] = pass<T>(request, !is_contrast, is_contrast);
    });
  }

  template <class T>
  static std::vector<Means> pass(const Request& request, bool wants_similarity, bool wants_contrast) {
    if (is_of_bytes(request)) return means_of(request, march_byte_images<T>(request, wants_contrast), {});
    const View& mask = request.mask.view;
    const int64_t channels = request.preds.channels();
    std::vector<MaskSum> sums;
    std::vector<double> pixels;
    // Only gradients need the sum of the mask in advance: a value is divided by the weights that the
    // marches sum up.
    if (mask && request.wants_gradients()) sums = mask_sums<T>(mask, channels, request.windows.axes);
    if (mask && request.pixels) pixels = pixel_weights<T>(mask, channels);
    PassSpec<T> spec = pass_spec_of<T>(request, sums, pixels);
    spec.wants_similarity = wants_similarity;
    spec.wants_contrast = wants_contrast;
    const GradientsOf gradients = request.grad_target  ? GradientsOf::both
                                  : request.grad_preds ? kFewestGradients<T>
                                                       : GradientsOf::none;
    const auto march = request.is_volume ? march_volumes<T> : march_images<T>;
    return means_of(request, march(spec, request, gradients), pixels);
  }

  static void downsample(const std::vector<HalvingRequest>& levels, const Tensor&) {
    with_compute_type(levels[0].to[0].type, [&]<class T>(T) {
      for (const HalvingRequest& level : levels) {
        const ImageRows<T> mask = weight_rows<T>(level.mask.view);
        const ImageRows<T> weights = level.mask.weighs_windows() ? mask : ImageRows<T>{};
        for (int i = 0; i < 2; ++i)
          downsample_image(image_rows<T>(level.from[i]), weights, level.from[i], level.to[i]);
        if (mask) downsample_image(mask, ImageRows<T>{}, level.mask.view, level.half_mask);
      }
    });
  }

  static void product(const ProductRequest& request, const LevelResults& levels, const Tensor&) {
    with_compute_type(request.type, [&]<class T>(T) {
      T* const factors = static_cast<T*>(request.factors);
      T* const grad_constants = static_cast<T*>(request.grad_constants);
      T* const values = static_cast<T*>(request.value);
      T* const terms = static_cast<T*>(request.pixels.terms);
      double total = 0;
      for (int64_t b = 0; b < request.batch; ++b) {
        double by_constants[2] = {};
        const auto means = [&](int l) -> const Means& {
          return levels[static_cast<size_t>(l)][static_cast<size_t>(b)];
        };
        const double distance = weighted_distance(
            request.weights,
            [&](int l) {
              return l + 1 == request.weights.levels ? means(l).similarity_loss : means(l).contrast_loss;
            },
            [&](int l, double factor) {
              if (l == 0) factor /= request.finest_scale;
              if (factors) factors[l * request.batch + b] = static_cast<T>(factor * request.gradient_scale);
              by_constants[0] += factor * means(l).by_c1;
              by_constants[1] += factor * means(l).by_c2;
            });
        double value = request.as_distance ? distance : 1 - distance;
        if (request.pixels) {
          value = request.pixels.value(means(0).pixels, distance);
          if (terms) {
            terms[2 * b] = static_cast<T>(means(0).pixels);
            terms[2 * b + 1] = static_cast<T>(distance);
          }
        }
        total += value;
        if (request.reduction == Reduction::none) values[b] = static_cast<T>(value);
        for (int k = 0; grad_constants && k < 2; ++k)
          grad_constants[2 * b + k] = static_cast<T>(by_constants[k] * request.gradient_scale);
      }
      if (request.reduction != Reduction::none)
        *values = static_cast<T>(
            request.reduction == Reduction::mean ? total / static_cast<double>(request.batch) : total);
    });
  }

  static void gather(const GatherRequest& request, const Tensor&) {
    with_compute_type(request.finest.type, [&]<class T>(T) { gather_gradients<T>(request); });
  }

  static void multiply(const View& gradient, const Upstream& factor, const View& result, const Tensor&) {
    with_compute_type(gradient.type, [&]<class T>(T) {
      std::vector<T> factors = weights_of<T>(factor, gradient.batch());
      for (T& f : factors) f = -f;
      if (gradient.data == result.data &&
          std::all_of(factors.begin(), factors.end(), [](T f) { return f == T(1); }))
        return;
      const ImageRows<T> in = image_rows<T>(gradient), out = image_rows<T>(result);
      const int64_t rows = gradient.depth() * gradient.height(), width = gradient.width();
      const int64_t tasks = gradient.batch() * gradient.channels() * rows;
      parallel_for(0, tasks, std::max<int64_t>(1, 32768 / width), [&](int64_t begin, int64_t end) {
        const Scratch<T> row(width);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t image = task / rows, y = task % gradient.height();
          const Plane plane{image / gradient.channels(), image % gradient.channels(),
                            task % rows / gradient.height()};
          in.read_into(row.get(), in.offset(plane), y, 0, width);
          for (int64_t i = 0; i < width; ++i) row.get()[i] *= factors[static_cast<size_t>(plane.batch)];
          out.write_from(row.get(), out.offset(plane), y, 0, width);
        }
      });
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CPU, m) { Operators<Cpu>::add_to(m); }

}  // namespace ssim_fused::cpu
