// Loads the operators' library that its argument names, calls an operator through LibTorch's stable ABI, and
// prints the losses and gradients: images and volumes, float and double. It needs no Python, so that a system
// without one here can be compared with this one (tests/platforms.sh).
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace {

using torch::stable::Tensor;
using torch::stable::detail::from;

bool load(const char* library) {
#if defined(_WIN32)
  return LoadLibraryA(library) != nullptr;
#else
  return dlopen(library, RTLD_NOW) != nullptr;
#endif
}

template <class T>
Tensor image(const std::vector<int64_t>& shape, int64_t factor) {
  const auto type =
      sizeof(T) == 8 ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
  Tensor tensor = torch::stable::empty(shape, type);
  T* const pixels = static_cast<T*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < tensor.numel(); ++i) pixels[i] = static_cast<T>(i * factor % 1009) / 1009;
  return tensor;
}

template <class T>
void run(const std::vector<int64_t>& shape) {
  using Tensors = std::vector<Tensor>;
  const std::optional<Tensor> none;
  // The schema's arguments in their order (csrc/api/signatures.h).
  std::array stack{
      from(image<T>(shape, 619)),                  // preds
      from(image<T>(shape, 733)),                  // target
      from(none),                                  // constants
      from(none),                                  // mask
      from(std::vector<double>{1.5}),              // sigma
      from(std::vector<int64_t>{11}),              // kernel_size
      from(std::optional<std::vector<double>>{}),  // taps
      from(std::string("reflect")),                // padding
      from(1.0),                                   // data_range
      from(0.01),                                  // k1
      from(0.03),                                  // k2
      from(std::string("window")),                 // mask_mode
      from(std::string("none")),                   // pixel_term
      from(1.0),                                   // ssim_weight
      from(0.001),                                 // pixel_eps
      from(false),                                 // want_terms
      from(int64_t{1}),                            // reduction: the mean
      from(true),                                  // distance
      from(false),                                 // want_contrast
      from(true),                                  // want_map
      from(true),                                  // want_grad_preds
      from(true),                                  // want_grad_target
      from(false),                                 // want_grad_constants
  };
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("ssim_fused::similarity", "", stack.data(), TORCH_ABI_VERSION));
  for (const Tensor& result : torch::stable::detail::to<Tensors>(stack[0])) {
    if (!result.defined()) continue;
    const T* const numbers = static_cast<const T*>(result.const_data_ptr());
    for (int64_t i = 0; i < result.numel(); ++i) std::printf("%.9g\n", static_cast<double>(numbers[i]));
  }
}

}  // namespace

int main(int, char** arguments) {
  if (!load(arguments[1])) {
    std::fprintf(stderr, "%s does not load\n", arguments[1]);
    return 1;
  }
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{2, 3, 40, 50}, {1, 1, 70, 700}, {1, 2, 12, 20, 24}}) {
    run<float>(shape);
    run<double>(shape);
  }
}
