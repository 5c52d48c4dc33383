"""Loads the compiled operators ``torch.ops.ssim_fused.*`` and tells PyTorch the shapes they return."""

from __future__ import annotations

import functools
import sys
import warnings
from pathlib import Path

import torch

_REINSTALL = (
    "Install the package by pip (`pip install .` in its source folder builds it), and import it from outside the "
    "source folder or after `pip install -e .`."
)
try:
    from ssim_fused import _C
except ImportError as error:
    raise ImportError(
        f"ssim_fused's compiled extension is missing or does not load. {_REINSTALL} The loader said: {error}"
    ) from error


def _library(kind: str) -> Path:
    """The library of that kind which was built with `_C`; never one that another build has left."""
    return Path(_C.__file__).with_name(f"_{kind}_{_C.build_id}.so")


try:
    torch.ops.load_library(str(_library("operators")))
except OSError as error:
    raise ImportError(
        f"ssim_fused's operators, {_library('operators')}, are missing or do not load with torch "
        f"{torch.__version__}. {_REINSTALL} The loader said: {error}"
    ) from error

# The CUDA kernels are a library of their own, so that a torch without CUDA, or with another one, can import the
# package all the same; a CUDA tensor is then told why not.
why_no_cuda = "this ssim_fused was built without CUDA"
_served = {"cpu", "meta"}  # types of devices that the operators serve
if torch.version.cuda is not None and _C.build_info()["cuda"]:
    try:
        torch.ops.load_library(str(_library("cuda")))
        _served.add("cuda")
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

    Example:
        >>> from ssim_fused import build_info
        >>> has_cuda = bool(build_info()["cuda"])

    """
    chosen, best = torch.ops.ssim_fused.instruction_sets()
    return _C.build_info() | {"instruction_set": chosen, "best_instruction_set": best}


def _callers_level() -> int:
    """The `stacklevel` of a warning that points at the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        level, frame = level + 1, frame.f_back
    return level


@functools.cache
def _warn_of_composite(device_type: str) -> None:
    warnings.warn(
        f"ssim_fused has no kernel for device '{device_type}' in this build (see ssim_fused.build_info()): "
        "computing with PyTorch's own operations, slower and with more memory.",
        stacklevel=_callers_level(),
    )


_REBUILD = (
    "Where nvcc is installed, build ssim_fused against the torch in use by `SSIM_FUSED_CUDA=1 pip install "
    "--no-build-isolation --force-reinstall --no-deps .`, or move the images to the CPU by `.cpu()`."
)


def driver_is_too_old() -> str:
    """What to do where torch works with a driver that the CUDA runtime in the library does not take."""
    built = _C.build_info()["cuda"].split(" ")[0]
    return (
        f"ssim_fused has the runtime of CUDA {built} inside, which needs a driver of CUDA {built.split('.')[0]} or "
        f"newer; torch's is of CUDA {torch.version.cuda}. Update the driver. {_REBUILD}"
    )


def serve(preds: torch.Tensor) -> bool:
    """Whether the operators serve the images' device; if not, PyTorch's own operations do, but for CUDA."""
    if preds.is_cpu or preds.device.type in _served:
        return True
    if preds.device.type == "cuda":
        raise RuntimeError(f"`preds` is on {preds.device}, but {why_no_cuda}. {_REBUILD}")
    _warn_of_composite(preds.device.type)
    return False


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic, and of per-image results, for images of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# Types of integers that the operators read, and the largest of each.
LARGEST = {torch.uint8: 255.0, torch.uint16: 65535.0}


def picture_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of results beside images of ``dtype``."""
    return torch.float32 if dtype in LARGEST else dtype


def has_integers_of(preds: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether the operators take ``target`` as it is beside ``preds``: integers that preds' type has, too."""
    if target.dtype in LARGEST and not preds.is_cpu:
        return preds.dtype == torch.float32
    if target.dtype == torch.uint16:
        return preds.dtype in (torch.float32, torch.float64)
    return target.dtype == torch.uint8 and preds.dtype not in LARGEST


# Numbers of `reduction` in the operators, as in PyTorch.
REDUCTIONS: dict[str | None, int] = {"none": 0, None: 0, "elementwise_mean": 1, "sum": 2}
