// Registers the operators' schemas, and the operators that need no device. This library does not depend on
// Python. operators.h has the other operators, cpu/ and cuda/ the kernels.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "../cpu/simd/instruction_set.h"
#include "operators.h"

namespace ssim_fused {
namespace {

std::tuple<std::string, std::string> instruction_sets() {
  return {cpu::kInstructionSetNames[static_cast<int>(cpu::chosen_instruction_set())],
          cpu::kInstructionSetNames[static_cast<int>(cpu::best_instruction_set())]};
}

}  // namespace
}  // namespace ssim_fused

STABLE_TORCH_LIBRARY(ssim_fused, m) {
  namespace signatures = ssim_fused::signatures;
  const auto define = [&]<class Signature>(Signature, const char* name, const char* result) {
    m.def(Signature::schema(name, result).c_str());
  };
  // Returns the value, in the compute type, followed by the requested results: terms [B, 2], contrast
  // sensitivity [B], map, grad_preds, grad_target and grad_constants [B, 2]. Gradients are those of the
  // distance after the reduction. Those of float16 are stored times a power of two that keeps them in range
  // (stored_scale). multiply_gradient turns stored gradients into those for an upstream gradient.
  define(signatures::Similarity{}, "similarity", "Tensor[]");
  // Returns the gradients of the outputs' sum, weighted by upstream gradients, from a separate pass.
  define(signatures::SimilarityBackward{}, "similarity_backward", "Tensor[]");
  // MS-SSIM. Returns the value, then terms and gradients as `similarity` does. The pixel term is that of the
  // finest level.
  define(signatures::Multiscale{}, "multiscale", "Tensor[]");
  // Return or store a gradient times a factor and an upstream gradient.
  define(signatures::MultiplyGradient{}, "multiply_gradient", "Tensor");
  define(signatures::MultiplyGradientInPlace{}, "multiply_gradient_", "()");
  // Eager code prepares what its calls have in common under a number (prepared.h): for SSIM, or for MS-SSIM
  // if there are betas. A prepared call returns what `similarity` or `multiscale` would. It has no derivative
  // formula, because an autograd.Function calls it.
  define(signatures::Prepare{}, "prepare", "()");
  define(signatures::PreparedValue{}, "prepared_value", "Tensor");
  define(signatures::Prepared{}, "prepared", "Tensor[]");
  define(signatures::PreparedMultiply{}, "prepared_multiply_", "()");
  // Returns the instruction set of the CPU kernels in use, and the best one that this machine supports.
  m.def("instruction_sets() -> (str chosen, str best)");
}

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CompositeExplicitAutograd, m) {
  m.impl("prepare", &ssim_fused::signatures::Prepare::boxed<&ssim_fused::prepare>);
  m.impl("instruction_sets", TORCH_BOX(&ssim_fused::instruction_sets));
}
