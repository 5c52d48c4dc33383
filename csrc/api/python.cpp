// The Python module `_C`, which tells what was compiled. It uses the limited API, so that one file serves
// every Python since 3.10. The operators' libraries do not depend on Python; their file names contain the
// build id, by which they are found.
#include <Python.h>
#include <torch/headeronly/version.h>

#define SSIM_STRINGIZE(x) SSIM_STRINGIZE_AGAIN(x)
#define SSIM_STRINGIZE_AGAIN(x) #x

namespace {

constexpr char kTorch[] = SSIM_STRINGIZE(TORCH_VERSION_MAJOR) "." SSIM_STRINGIZE(
    TORCH_VERSION_MINOR) "." SSIM_STRINGIZE(TORCH_VERSION_PATCH);

PyObject* build_info(PyObject*, PyObject*) {
  return Py_BuildValue("{s:s,s:s,s:s}", "torch", kTorch, "compiler", __VERSION__, "cuda",
                       SSIM_FUSED_CUDA_BUILD);
}

int add_build_id(PyObject* module) {
  return PyModule_AddStringConstant(module, "build_id", SSIM_FUSED_BUILD_ID);
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS,
     "Returns torch's version at build time, the compiler, and CUDA's version and architectures ('' if built "
     "for the CPU alone)."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&add_build_id)},
    {0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "_C",
    "How ssim_fused was compiled. The operators are in separate libraries in the same folder.",
    0,
    methods,
    slots,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&definition); }
