// The arguments of the operators, in groups. Each group states its part of the schema next to the fields that
// hold its values, so each argument is named once. An operator's signature is a list of groups
// (signatures.h). `read` takes a group off the dispatcher's stack without checking it; checks.h checks
// arguments and converts them for a Request.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace ssim_fused {

using torch::stable::Tensor;

// The dispatcher's stack of boxed arguments, in the order of the schema. Reading an argument takes over its
// reference. Read all arguments before any check, because a check may throw and leak those that are left.
class Stack {
 public:
  Stack(StableIValue* values, uint64_t count) : next_(values), end_(values + count) {}
  template <class T>
  T next() {
    STD_TORCH_CHECK(next_ != end_, "the schema has fewer arguments than the operator reads");
    return torch::stable::detail::to<T>(*next_++);
  }
  void check_end() const {
    STD_TORCH_CHECK(next_ == end_, "the schema has more arguments than the operator reads");
  }

 private:
  StableIValue *next_, *end_;
};

// Images are [B, C, H, W] and volumes [B, C, D, H, W]. `constants` holds c1 and c2, as [2] or [B, 2], and
// overrides `data_range`, `k1` and `k2`. `mask` is [B, 1 or C, ...].
struct Images {
  static constexpr char kSchema[] = "Tensor preds, Tensor target, Tensor? constants=None, Tensor? mask=None";
  Tensor preds, target;
  std::optional<Tensor> constants, mask;

  static Images read(Stack& stack) {
    return {stack.next<Tensor>(), stack.next<Tensor>(), stack.next<std::optional<Tensor>>(),
            stack.next<std::optional<Tensor>>()};
  }
};

// The upstream gradients of the value and of the contrast sensitivity, each one element or [B], and of the
// map.
struct UpstreamGradients {
  static constexpr char kSchema[] =
      "Tensor? grad_similarity=None, Tensor? grad_contrast=None, Tensor? grad_map=None";
  std::optional<Tensor> similarity, contrast, map;

  static UpstreamGradients read(Stack& stack) {
    return {stack.next<std::optional<Tensor>>(), stack.next<std::optional<Tensor>>(),
            stack.next<std::optional<Tensor>>()};
  }
};

// `taps` holds custom windows of lengths `kernel_size`, concatenated. Without it, windows are Gaussians of
// `sigma`, or uniform of `kernel_size` if `sigma` is empty. One element applies to all axes. "reflect" and
// "zero" pad by half the window; "valid" does not pad. Exception, as in torchmetrics: the last axis of
// volumes is reflected by half of `kernel_size`, even for a Gaussian of another length.
struct WindowArguments {
  static constexpr char kSchema[] =
      "float[] sigma=[1.5], int[] kernel_size=[11], float[]? taps=None, str padding='reflect', "
      "float data_range=1., float k1=0.01, float k2=0.03, str mask_mode='window'";
  std::vector<double> sigma;
  std::vector<int64_t> kernel_size;
  std::optional<std::vector<double>> taps;
  std::string padding;
  double data_range, k1, k2;
  std::string mask_mode;

  static WindowArguments read(Stack& stack) {
    return {stack.next<std::vector<double>>(),
            stack.next<std::vector<int64_t>>(),
            stack.next<std::optional<std::vector<double>>>(),
            stack.next<std::string>(),
            stack.next<double>(),
            stack.next<double>(),
            stack.next<double>(),
            stack.next<std::string>()};
  }
};

// A pixel term combined with SSIM (math/pixel_term.h): the value is (1 - ssim_weight) * mean phi(preds -
// target) + ssim_weight * distance. `want_terms` also returns mean phi and the distance of each image.
struct PixelArguments {
  static constexpr char kSchema[] =
      "str pixel_term='none', float ssim_weight=1., float pixel_eps=0.001, bool want_terms=False";
  std::string term = "none";
  double ssim_weight = 1, eps = 1e-3;
  bool want_terms = false;

  static PixelArguments read(Stack& stack) {
    return {stack.next<std::string>(), stack.next<double>(), stack.next<double>(), stack.next<bool>()};
  }
};

// The exponents of MS-SSIM, from the finest level to the coarsest, and the name of the normalization.
struct PyramidArguments {
  static constexpr char kSchema[] = "float[] betas=[], str normalize='relu'";
  std::vector<double> betas;
  std::string normalize;

  static PyramidArguments read(Stack& stack) {
    return {stack.next<std::vector<double>>(), stack.next<std::string>()};
  }
};

// `reduction` over the batch is numbered as in PyTorch: 0 none, 1 mean, 2 sum. `distance` returns 1 - SSIM
// and 1 - contrast sensitivity, which are computed without cancellation, instead of SSIM and contrast
// sensitivity.
struct ReductionArguments {
  static constexpr char kSchema[] = "int reduction=1, bool distance=False";
  int64_t reduction;
  bool as_distance;

  static ReductionArguments read(Stack& stack) { return {stack.next<int64_t>(), stack.next<bool>()}; }
};

// Optional results of `similarity` in addition to the value. `want_float64` computes in float64 and returns all
// results in it; the images are then integers on the CPU, without a mask.
struct WantedOutputs {
  static constexpr char kSchema[] = "bool want_contrast=False, bool want_map=False, bool want_float64=False";
  bool contrast = false, map = false, float64 = false;

  static WantedOutputs read(Stack& stack) {
    return {stack.next<bool>(), stack.next<bool>(), stack.next<bool>()};
  }
};

// The inputs whose gradients are requested.
struct WantedGradients {
  static constexpr char kSchema[] =
      "bool want_grad_preds=False, bool want_grad_target=False, bool want_grad_constants=False";
  bool preds = false, target = false, constants = false;

  explicit operator bool() const { return preds || target || constants; }
  static WantedGradients read(Stack& stack) {
    return {stack.next<bool>(), stack.next<bool>(), stack.next<bool>()};
  }
};

// A gradient that the forward stored, and the upstream gradient: one element, or [B].
struct StoredGradient {
  static constexpr char kSchema[] = "Tensor gradient, Tensor upstream";
  Tensor gradient, upstream;

  static StoredGradient read(Stack& stack) { return {stack.next<Tensor>(), stack.next<Tensor>()}; }
};

// A stored gradient that is multiplied in place.
struct StoredGradientInPlace {
  static constexpr char kSchema[] = "Tensor(a!) gradient, Tensor upstream";
  StoredGradient stored;

  static StoredGradientInPlace read(Stack& stack) { return {StoredGradient::read(stack)}; }
};

// A constant factor, in addition to the upstream gradient. The data range and the constants determine the
// scale of stored float16 gradients (`stored_scale` in checks.h).
struct FactorArguments {
  static constexpr char kSchema[] = "float factor=1., float data_range=1., float k1=0.01, float k2=0.03";
  double factor, data_range, k1, k2;

  static FactorArguments read(Stack& stack) {
    return {stack.next<double>(), stack.next<double>(), stack.next<double>(), stack.next<double>()};
  }
};

// The number under which a spec is prepared (prepared.h).
struct SpecNumber {
  static constexpr char kSchema[] = "int number";
  int64_t number;

  static SpecNumber read(Stack& stack) { return {stack.next<int64_t>()}; }
};

// The images of a prepared call. They stand before the number, as in its schema.
struct PreparedImages {
  static constexpr char kSchema[] = "Tensor preds, Tensor target, int number";
  Tensor preds, target;
  int64_t number;

  static PreparedImages read(Stack& stack) {
    return {stack.next<Tensor>(), stack.next<Tensor>(), stack.next<int64_t>()};
  }
};

// The gradients with respect to the images that a prepared call requests.
struct PreparedGradients {
  static constexpr char kSchema[] = "bool want_grad_preds, bool want_grad_target";
  bool preds, target;

  static PreparedGradients read(Stack& stack) { return {stack.next<bool>(), stack.next<bool>()}; }
};

template <class... Groups>
struct Positional {};
template <class... Groups>
struct Keywords {};

// The arguments of an operator: its schema, and a boxed function that reads them and calls the operator.
template <class PositionalGroups, class KeywordGroups>
struct Signature;
template <class... First, class... Others>
struct Signature<Positional<First...>, Keywords<Others...>> {
  static std::string schema(const std::string& name, const std::string& result) {
    std::string text;
    const auto add = [&](const char* part) { text += (text.empty() ? "" : ", ") + std::string(part); };
    (add(First::kSchema), ...);
    if (sizeof...(Others) > 0) add("*");
    (add(Others::kSchema), ...);
    return name + "(" + text + ") -> " + result;
  }

  // The function that the dispatcher calls. `operation` takes the groups in the order of the signature.
  template <auto operation>
  static void boxed(StableIValue* values, uint64_t arguments, uint64_t results) {
    using torch::stable::detail::from;
    Stack stack(values, arguments);
    std::tuple<First..., Others...> groups{First::read(stack)..., Others::read(stack)...};  // in order
    stack.check_end();
    using Result = decltype(std::apply(operation, std::move(groups)));
    constexpr uint64_t kResults = std::is_void_v<Result> ? 0 : 1;
    STD_TORCH_CHECK(results == kResults, "the schema has ", results, " results, the operator ", kResults);
    if constexpr (std::is_void_v<Result>) {
      std::apply(operation, std::move(groups));
    } else {
      values[0] = from<Result>(std::apply(operation, std::move(groups)));
    }
  }
};

}  // namespace ssim_fused
