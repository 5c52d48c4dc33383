"""Loads the compiled operators ``torch.ops.ssim_fused.*`` and tells PyTorch the shapes they return."""

from __future__ import annotations

from pathlib import Path

import torch

try:
    from ssim_fused import _C
except ImportError as error:
    raise ImportError(
        "ssim_fused's compiled extension is missing or does not load. Install the package by pip "
        "(`pip install .` in its source folder builds it), and import it from outside the source folder or "
        f"after `pip install -e .`. The loader said: {error}"
    ) from error

# The CUDA kernels are a library of their own, so that a torch without CUDA, or with another one, can import the
# package all the same; a CUDA tensor is then told why not.
why_no_cuda = "this ssim_fused was built without CUDA"
if torch.version.cuda is not None:
    for library in Path(__file__).parent.glob("_cuda*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError as error:
            why_no_cuda = f"its CUDA kernels, built for {_C.build_info()['cuda']}, do not load: {error}"

similarity = torch.ops.ssim_fused.similarity.default
similarity_backward = torch.ops.ssim_fused.similarity_backward.default
multiscale = torch.ops.ssim_fused.multiscale.default
multiply_gradient = torch.ops.ssim_fused.multiply_gradient.default
multiply_gradient_ = torch.ops.ssim_fused.multiply_gradient_.default


def build_info() -> dict[str, str]:
    """What was compiled, and the CPU instruction set in use.

    Returns:
        Strings by the keys ``torch`` (version at build time), ``compiler``, ``instruction_set``,
        ``best_instruction_set`` (of this machine) and ``cuda`` (empty for a CPU build).

    """
    return _C.build_info()


# Types of devices that a compiled kernel serves.
_SERVED = {
    device
    for device, key in (("cpu", "CPU"), ("cuda", "CUDA"))
    if torch._C._dispatch_has_kernel_for_dispatch_key("ssim_fused::similarity", key)
}


def has_kernel(device: torch.device) -> bool:
    """Whether tensors on ``device`` are served by a compiled kernel."""
    return device.type in _SERVED


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic, and of per-image results, for images of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# Numbers of `reduction` in the operators, as in PyTorch.
REDUCTIONS: dict[str | None, int] = {"none": 0, None: 0, "elementwise_mean": 1, "sum": 2}
