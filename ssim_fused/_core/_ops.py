"""Loads the compiled operators ``torch.ops.ssim_fused.*`` and gives them Python names.

The module also stores prepared specs in the libraries (:func:`prepare`), reports how they were built
(:func:`build_info`), and tells which devices and dtypes they support.
"""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

_REINSTALL = (
    "Install the package with pip (`pip install .` in its source folder builds it), then import it from another "
    "folder; to import it from the source folder, use `pip install -e .`."
)
try:
    from ssim_fused import _C
except ImportError as error:
    raise ImportError(
        f"The compiled extension of ssim_fused is missing or does not load. {_REINSTALL} The loader reports: {error}"
    ) from error


def _library(kind: str) -> Path:
    """Returns the path of the library that was built together with `_C`, never one left by another build."""
    suffix = ".dll" if sys.platform == "win32" else ".so"
    return Path(_C.__file__).with_name(f"_{kind}_{_C.build_id}{suffix}")


try:
    torch.ops.load_library(str(_library("operators")))
except OSError as error:
    raise ImportError(
        f"The operators of ssim_fused, {_library('operators')}, are missing or do not load with torch "
        f"{torch.__version__}. {_REINSTALL} The loader reports: {error}"
    ) from error


# The CUDA kernels are a separate library, so that the package can be imported with a torch without CUDA or with another
# CUDA version. A call with a CUDA tensor then raises an error with this reason.
def _fits_torch(kernels: str) -> bool:
    """Whether kernels of `build_info()["cuda"]` run on the devices that this torch calls "cuda": NVIDIA's or AMD's."""
    of_torch = torch.version.hip if kernels.startswith("ROCm") else torch.version.cuda
    return kernels != "" and of_torch is not None


why_no_cuda = f"this ssim_fused was built without CUDA: {_C.build_info()['why_no_cuda']}"
_served = {"cpu", "meta"}  # device types for which kernels are loaded
if _fits_torch(_C.build_info()["cuda"]):
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
# Operators on prepared specs (csrc/api/prepared.h). Each library has its own table of specs, so `_prepare` lists one
# operator per library.
prepared_value = torch.ops.ssim_fused.prepared_value.default
prepared = torch.ops.ssim_fused.prepared.default
prepared_multiply_ = torch.ops.ssim_fused.prepared_multiply_.default
_prepare = [torch.ops.ssim_fused.prepare.default]
if "cuda" in _served:
    _prepare.append(torch.ops.ssim_fused.prepare_cuda.default)
MOST_PREPARED = 4096  # equals `kCapacity` in csrc/api/prepared.h
_numbers = itertools.count()


def prepare(**keywords: Any) -> int | None:
    """Stores a spec in the table of each library and returns its number, or None if the tables are full.

    A number stays valid for the lifetime of the process, in all its threads and in forked children.
    """
    number = next(_numbers)
    if number >= MOST_PREPARED:
        return None
    for add in _prepare:
        add(number, **keywords)
    return number


def build_info() -> dict[str, str]:
    """Reports how the libraries were built and which CPU instruction set is in use.

    Returns:
        A dictionary of strings with the keys ``torch`` (version at build time), ``compiler``, ``instruction_set`` (in
        use), ``best_instruction_set`` (the best that this machine supports), ``cuda`` (version and architectures, empty
        for a CPU build) and ``why_no_cuda`` (empty for a build with CUDA).

    Example:
        >>> from ssim_fused import build_info
        >>> has_cuda = bool(build_info()["cuda"])

    """
    chosen, best = torch.ops.ssim_fused.instruction_sets()
    return _C.build_info() | {"instruction_set": chosen, "best_instruction_set": best}


def _callers_level() -> int:
    """Returns the `stacklevel` with which a warning points at the first line outside this package."""
    level, frame, package = 0, sys._getframe(1), Path(__file__).parents[1]
    while frame is not None:
        name = frame.f_code.co_filename
        if not ("importlib" in name and "_bootstrap" in name):  # `warnings` does not count these either
            level += 1
            if not Path(name).is_relative_to(package):
                break
        frame = frame.f_back
    return level


def _warn_of_missing_cuda() -> None:
    """Warns if the build left CUDA out by accident.

    That is so if nvcc did not agree with torch; or if there is a GPU, and nobody asked to leave CUDA out. Machines
    without a GPU, on which torch's default build has CUDA, too, are not warned. Counting GPUs does not initialize CUDA.
    """
    if torch.version.cuda is None or _C.cuda_state in ("built", "left out"):
        return
    if _C.cuda_state == "nvcc disagrees" or torch.cuda.device_count() > 0:
        warnings.warn(
            f"ssim_fused was built without CUDA, so it cannot compute on GPUs: {_C.build_info()['why_no_cuda']}. To "
            "build it for them, set CUDA_HOME to a toolkit of torch's CUDA version, and reinstall ssim_fused with "
            "SSIM_FUSED_CUDA=1. A build with SSIM_FUSED_CUDA=0 does not warn.",
            stacklevel=_callers_level(),
        )


_warn_of_missing_cuda()


@functools.cache
def _warn_of_composite(device_type: str) -> None:
    if device_type == "cuda" and torch.version.hip is not None:
        device = f"AMD GPUs, which torch for ROCm calls 'cuda' ({why_no_cuda})"
    else:
        device = f"device '{device_type}' in this build (see ssim_fused.build_info())"
    warnings.warn(
        f"ssim_fused has no kernel for {device}: it computes with PyTorch operations, which are slower and use more "
        "memory.",
        stacklevel=_callers_level(),
    )


_REBUILD = (
    "If nvcc is installed, build ssim_fused against the torch in use: `SSIM_FUSED_CUDA=1 pip install "
    "--no-build-isolation --force-reinstall --no-deps .`. Otherwise move the images to the CPU by `.cpu()`."
)


def driver_is_too_old() -> str:
    """Returns what to do if torch accepts the installed driver, but the CUDA runtime in our library does not."""
    built = _C.build_info()["cuda"].split(" ")[0]
    return (
        f"ssim_fused contains the runtime of CUDA {built}, which needs a driver of CUDA {built.split('.')[0]} or "
        f"newer; torch contains that of CUDA {torch.version.cuda}. Update the driver. {_REBUILD}"
    )


def has_kernels(preds: torch.Tensor) -> bool:
    """Returns whether the operators have kernels for the device of ``preds``.

    If not, it warns once per device type, and the caller falls back to the composite implementation.

    Raises:
        RuntimeError: The images are on an NVIDIA GPU, but the CUDA kernels were not built or do not load.

    """
    if preds.is_cpu or preds.device.type in _served:
        return True
    if preds.device.type == "cuda" and torch.version.hip is None:  # in torch for ROCm, AMD GPUs are "cuda" devices
        raise RuntimeError(f"`preds` is on {preds.device}, but {why_no_cuda}. {_REBUILD}")
    _warn_of_composite(preds.device.type)
    return False


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of the arithmetic and of per-image results for images of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# The integer dtypes that the operators read, and the range of each: its largest minus its least value.
TYPE_RANGES = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.int8: 255.0, torch.int16: 65535.0}


def map_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of maps and of the values that users get, for images of ``dtype``."""
    return torch.float32 if dtype in TYPE_RANGES else dtype


def holds_integers_of(preds: torch.Tensor, target: torch.Tensor) -> bool:
    """Returns whether the operators read an integer ``target`` without a cast next to floating-point ``preds``.

    On the CPU they do if the dtype of ``preds`` represents every value of the integer dtype exactly; on other devices
    only if ``preds`` is float32.
    """
    if target.dtype not in TYPE_RANGES or not preds.is_floating_point():
        return False
    if not preds.is_cpu:
        return preds.dtype == torch.float32
    return target.dtype.itemsize == 1 or preds.dtype in (torch.float32, torch.float64)
