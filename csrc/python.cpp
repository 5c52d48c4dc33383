// The module `_C`: what was compiled. It belongs to one Python; the operators' libraries serve any, and are
// found by the build id that they carry in their names.
#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#define SSIM_STRINGIZE(x) SSIM_STRINGIZE_AGAIN(x)
#define SSIM_STRINGIZE_AGAIN(x) #x

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["torch"] = SSIM_STRINGIZE(TORCH_VERSION_MAJOR) "." SSIM_STRINGIZE(
      TORCH_VERSION_MINOR) "." SSIM_STRINGIZE(TORCH_VERSION_PATCH);
  info["compiler"] = __VERSION__;
  info["cuda"] = SSIM_FUSED_CUDA_BUILD;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "What was compiled; the operators are in libraries beside this module.";
  m.attr("build_id") = SSIM_FUSED_BUILD_ID;
  m.def("build_info", &build_info,
        "Torch's version at build time, the compiler, and CUDA's version and architectures ('' for a CPU "
        "build).");
}
