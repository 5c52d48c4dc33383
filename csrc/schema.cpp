// The schemas of all operators: registered when the library of the CPU kernels is loaded.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "cpu/instruction_set.h"

// `taps` holds one window per axis, one after the other, of lengths `sizes`. c1 and c2 are `constants`, a
// tensor [2] on the images' device, where it is given. An output that was not asked for has shape [0].
STABLE_TORCH_LIBRARY(ssim_fused, m) {
  // The gradients are those of each image's mean similarity (or contrast sensitivity: `objective`), times
  // `grad_scale`, which keeps them in the range of float16.
  m.def(
      "similarity(Tensor preds, Tensor target, float[] taps, int[] sizes, int[] pad, str padding_mode, "
      "float c1, float c2, Tensor? constants, str objective, float grad_scale, bool want_map, "
      "bool want_grad_preds, bool want_grad_target, bool want_grad_constants) -> "
      "(Tensor similarity, Tensor contrast_sensitivity, Tensor map, Tensor grad_preds, Tensor grad_target, "
      "Tensor grad_constants)");
  m.def(
      "similarity_backward(Tensor preds, Tensor target, float[] taps, int[] sizes, int[] pad, str "
      "padding_mode, "
      "float c1, float c2, Tensor? constants, Tensor? grad_similarity, Tensor? grad_contrast, Tensor? "
      "grad_map, "
      "bool want_grad_preds, bool want_grad_target, bool want_grad_constants) -> "
      "(Tensor grad_preds, Tensor grad_target, Tensor grad_constants)");
  // The pyramid of MS-SSIM: means of 2x2 pixels or 2x2x2 voxels; the weighted product [B] of the levels'
  // means, with its derivatives [levels, B]; and the levels' gradients, times factors [levels, B], summed up
  // to the finest.
  m.def("downsample(Tensor preds, Tensor target) -> (Tensor preds, Tensor target)");
  m.def("level_product(Tensor[] means, float[] betas, str normalize) -> (Tensor value, Tensor factors)");
  m.def("pyramid_gradient(Tensor[] gradients, Tensor factors) -> Tensor");
  // Of the CPU kernels: the instruction set in use, and the best that this machine has.
  m.def("instruction_sets() -> (str chosen, str best)");
}

namespace {

std::tuple<std::string, std::string> instruction_sets() {
  using ssim_fused::kInstructionSetNames;
  return {kInstructionSetNames[static_cast<int>(ssim_fused::chosen_instruction_set())],
          kInstructionSetNames[static_cast<int>(ssim_fused::best_instruction_set())]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CompositeExplicitAutograd, m) {
  m.impl("instruction_sets", TORCH_BOX(&instruction_sets));
}
