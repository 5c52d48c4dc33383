"""Builds the extension ssim_fused._C; everything static is in pyproject.toml."""

import torch  # noqa: F401  (a build requirement: its headers and build tools)
from pybind11 import get_include
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

print(f"ssim_fused: building for CPU against torch {torch.__version__}")
extension = CppExtension(
    "ssim_fused._C",
    ["csrc/ops.cpp", "csrc/cpu/ssim_cpu.cpp"],
    include_dirs=[get_include()],
    define_macros=[("TORCH_TARGET_VERSION", "0x020a000000000000"), ("SSIM_FUSED_CUDA_BUILD", '""'), ("SSIM_FUSED_COMPILER", '__VERSION__')],
    extra_compile_args=["-std=c++20", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wno-psabi"],
)
extension.libraries.remove("torch_python")
setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
