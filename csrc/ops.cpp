// The operators' schemas, and the module `_C`, whose import registers them.
#include <pybind11/pybind11.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/version.h>

#include "cpu/instruction_set.h"

#define SSIM_STRINGIZE(x) SSIM_STRINGIZE_AGAIN(x)
#define SSIM_STRINGIZE_AGAIN(x) #x

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
}

namespace {

pybind11::dict build_info() {
  using ssim_fused::kInstructionSetNames;
  pybind11::dict info;
  info["torch"] = SSIM_STRINGIZE(TORCH_VERSION_MAJOR) "." SSIM_STRINGIZE(
      TORCH_VERSION_MINOR) "." SSIM_STRINGIZE(TORCH_VERSION_PATCH);
  info["compiler"] = __VERSION__;
  info["instruction_set"] = kInstructionSetNames[static_cast<int>(ssim_fused::chosen_instruction_set())];
  info["best_instruction_set"] = kInstructionSetNames[static_cast<int>(ssim_fused::best_instruction_set())];
  info["cuda"] = SSIM_FUSED_CUDA_BUILD;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Registers the operators torch.ops.ssim_fused.*";
  m.def("build_info", &build_info,
        "What was compiled: torch's version at build time, the compiler, the CPU instruction set in use and "
        "the "
        "best this machine has, and CUDA's version and architectures ('' for a CPU build).");
}
