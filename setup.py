"""Which extensions are built: ssim_fused._C (CPU) always, ssim_fused._cuda where torch has CUDA and nvcc agrees.

SSIM_FUSED_CUDA=1 makes a missing CUDA an error, SSIM_FUSED_CUDA=0 leaves CUDA out. TORCH_CUDA_ARCH_LIST chooses
the GPUs; without it, those visible, or else DEFAULT_ARCHITECTURES.
"""

import glob
import os
import re
import shutil
import subprocess

import pybind11
import torch
from setuptools import setup

DEFAULT_ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0+PTX"  # newer GPUs compile the PTX when they first run it
ABI = ("TORCH_TARGET_VERSION", "0x020a000000000000")  # LibTorch's stable ABI, since torch 2.10
CXX = ["-std=c++20", "-O3", "-g0", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]


def ask_nvcc(*arguments):
    """What nvcc prints; nothing where there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    if nvcc is None:
        return ""
    done = subprocess.run([nvcc, *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


def find_cuda():
    """The CUDA version to build for, or "", and the reason in words."""
    wish = os.environ.get("SSIM_FUSED_CUDA", "")
    release = re.search(r"release (\d+)\.\d+", ask_nvcc("--version"))
    if wish == "0":
        return "", "SSIM_FUSED_CUDA=0"
    if not torch.version.cuda:
        missing = f"torch {torch.__version__} is a build without CUDA"
    elif release is None:
        missing = "nvcc was not found in CUDA_HOME or on PATH"
    elif release[1] != torch.version.cuda.split(".")[0]:
        missing = f"nvcc is of CUDA {release[1]}, torch of CUDA {torch.version.cuda}"
    else:
        return torch.version.cuda, f"nvcc and torch agree on CUDA {release[1]}"
    if wish == "1":
        raise SystemExit(f"ssim_fused: SSIM_FUSED_CUDA=1 asks for CUDA, but {missing}.")
    return "", missing


cuda, reason = find_cuda()
if cuda:
    # nvcc may be a wrapper script in another folder: the toolkit's own answer, before torch guesses.
    os.environ["CUDA_HOME"] = os.path.dirname(
        re.search(r"_HERE_=(\S+)", ask_nvcc("--dryrun", "-x", "cu", os.devnull))[1]
    )
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
    cuda += f" for {os.environ.get('TORCH_CUDA_ARCH_LIST', 'the visible GPUs')}"
kinds = "CPU and CUDA" if cuda else "CPU"
print(f"ssim_fused: building for {kinds} against torch {torch.__version__}: {reason}", flush=True)

from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

extensions = [
    CppExtension(
        "ssim_fused._C",
        ["csrc/ops.cpp", *sorted(glob.glob("csrc/cpu/*.cpp"))],
        include_dirs=[pybind11.get_include()],
        define_macros=[ABI, ("SSIM_FUSED_CUDA_BUILD", f'"{cuda}"')],
        extra_compile_args=CXX,
    )
]
if cuda:
    extensions.append(
        CUDAExtension(
            "ssim_fused._cuda",
            sorted(glob.glob("csrc/cuda/*.cu")),
            define_macros=[ABI, ("USE_CUDA", None)],
            extra_compile_args={
                "cxx": CXX,
                "nvcc": ["-std=c++20", "-O3", "--threads=2", "-Xcompiler=-fvisibility=hidden"],
            },
        )
    )
for extension in extensions:
    extension.libraries.remove("torch_python")  # only the stable ABI of libtorch is used

setup(ext_modules=extensions, cmdclass={"build_ext": BuildExtension})
