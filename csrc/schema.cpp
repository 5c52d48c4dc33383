// The operators' schemas. This library knows no Python; operators.h has the operators, cpu/ and cuda/ the
// kernels.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "cpu/simd/instruction_set.h"

// Images are [B, C, H, W], volumes [B, C, D, H, W]. Windows, ranges and constants: request.h. `reduction`
// over the batch is numbered as in PyTorch: 0 none, 1 mean, 2 sum. `distance`: return one minus SSIM (and
// contrast sensitivity), which is computed, not subtracted.
#define SSIM_IMAGES                                                                                   \
  "Tensor preds, Tensor target, float[] sigma, int[] kernel_size, float[]? taps, str padding, float " \
  "data_range, "                                                                                      \
  "float k1, float k2, Tensor? constants, Tensor? mask, str mask_mode, "

// A term of single pixels beside it, by its name in math/pixel_term.h, and its constant `pixel_eps`. The
// value is then (1 - ssim_weight) * mean phi(preds - target) + ssim_weight * distance; `want_terms`: return
// mean phi and the distance of each image, too.
#define SSIM_PIXELS "str pixel_term, float ssim_weight, float pixel_eps, bool want_terms, "

STABLE_TORCH_LIBRARY(ssim_fused, m) {
  // The value, in the compute type; then of terms [B, 2], contrast sensitivity [B], map, grad_preds,
  // grad_target and grad_constants [B, 2] those that are wanted. The gradients are those of the distance
  // after the reduction, float16's times a power of two that keeps them in range (stored_scale):
  // multiply_gradient turns them into an upstream gradient's.
  m.def("similarity(" SSIM_IMAGES SSIM_PIXELS
        "int reduction, bool distance, bool want_contrast, bool want_map, bool want_grad_preds, "
        "bool want_grad_target, bool want_grad_constants) -> Tensor[]");
  // Those gradients of a sum weighed by upstream gradients, in a pass of its own.
  m.def("similarity_backward(" SSIM_IMAGES
        "int reduction, bool distance, Tensor? grad_similarity, Tensor? grad_contrast, Tensor? grad_map, "
        "bool want_grad_preds, bool want_grad_target, bool want_grad_constants) -> Tensor[]");
  // The same as `similarity` of MS-SSIM: value, then terms and the gradients that are wanted. The pixels are
  // those of the finest level.
  m.def("multiscale(" SSIM_IMAGES SSIM_PIXELS
        "float[] betas, str normalize, int reduction, bool distance, bool want_grad_preds, bool "
        "want_grad_target, "
        "bool want_grad_constants) -> Tensor[]");
  // A stored gradient times factor and upstream gradient, which has one element or one for each image.
  m.def(
      "multiply_gradient(Tensor gradient, Tensor upstream, float factor, float data_range, float k1, float "
      "k2) -> "
      "Tensor");
  m.def(
      "multiply_gradient_(Tensor(a!) gradient, Tensor upstream, float factor, float data_range, float k1, "
      "float k2) "
      "-> ()");
  // Of the CPU kernels: the instruction set in use, and the best that this machine has.
  m.def("instruction_sets() -> (str chosen, str best)");
}

namespace {

std::tuple<std::string, std::string> instruction_sets() {
  using ssim_fused::cpu::kInstructionSetNames;
  return {kInstructionSetNames[static_cast<int>(ssim_fused::cpu::chosen_instruction_set())],
          kInstructionSetNames[static_cast<int>(ssim_fused::cpu::best_instruction_set())]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CompositeExplicitAutograd, m) {
  m.impl("instruction_sets", TORCH_BOX(&instruction_sets));
}
