// The pybind11 module `_C`: reports how the libraries were built, and asks the CUDA launch planner for plans.
// It is a small file, compiled for each Python version. The operators' libraries do not depend on Python;
// Python finds them by the build id in their names. The module has no state, so it does not need the global
// interpreter lock.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <optional>
#include <tuple>

#include "../cuda/launch/planned.h"

#define SSIM_STRINGIZE(x) SSIM_STRINGIZE_AGAIN(x)
#define SSIM_STRINGIZE_AGAIN(x) #x

namespace py = pybind11;

namespace {

constexpr char kTorch[] = SSIM_STRINGIZE(TORCH_VERSION_MAJOR) "." SSIM_STRINGIZE(
    TORCH_VERSION_MINOR) "." SSIM_STRINGIZE(TORCH_VERSION_PATCH);

py::dict build_info() {
  using py::literals::operator""_a;
  return py::dict("torch"_a = kTorch, "compiler"_a = __VERSION__, "cuda"_a = SSIM_FUSED_CUDA_BUILD,
                  "why_no_cuda"_a = SSIM_FUSED_WHY_NO_CUDA);
}

std::optional<py::dict> plan(std::tuple<int64_t, int64_t, int64_t> shape, bool gradient, int radius, int sms,
                             int shared_bytes, int max_threads) {
  using py::literals::operator""_a;
  const auto [planes, height, width] = shape;
  const auto planned = ssim_fused::cuda::plan_images(planes, height, width, gradient, radius,
                                                     {sms, shared_bytes, max_threads});
  if (!planned) return std::nullopt;
  return py::dict("columns"_a = planned->columns, "owned"_a = planned->owned, "last"_a = planned->last,
                  "blocks_per_sm"_a = planned->blocks_per_sm, "strips"_a = planned->strips,
                  "blocks"_a = planned->blocks, "rows"_a = planned->rows,
                  "rows_of_strip"_a = planned->rows_of_strip, "cost"_a = planned->cost);
}

}  // namespace

PYBIND11_MODULE(_C, module, py::mod_gil_not_used()) {
  module.doc() = "What was compiled; the operators are in libraries next to this module.";
  module.attr("build_id") = SSIM_FUSED_BUILD_ID;
  module.attr("cuda_state") = SSIM_FUSED_CUDA_STATE;
  module.def(
      "build_info", &build_info,
      "Returns torch's version at build time, the compiler, CUDA's version and architectures ('' for a "
      "CPU build), and why CUDA was left out.");
  module.def(
      "plan", &plan, py::arg("shape"), py::kw_only(), py::arg("gradient"), py::arg("radius") = 5,
      py::arg("sms"), py::arg("shared_bytes"), py::arg("max_threads"),
      "Returns the launch that the CUDA planner chooses for float32 images of shape (planes, height, "
      "width) on a GPU with this number of SMs, and bytes of shared memory and threads of each; None if "
      "no kernel fits. No GPU is needed.\n\nRaises ValueError if a number is not positive, or `radius` is "
      "not that of a strip kernel.");
}
