"""Loads the compiled operators ``torch.ops.ssim_fused.*`` and tells PyTorch the shapes they return."""

from __future__ import annotations

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
if torch.version.cuda is not None and _C.build_info()["cuda"]:
    try:
        torch.ops.load_library(str(_library("cuda")))
    except OSError as error:
        why_no_cuda = f"its CUDA kernels, built for {_C.build_info()['cuda']}, do not load: {error}"

Tensors3 = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

similarity = torch.ops.ssim_fused.similarity.default
similarity_backward = torch.ops.ssim_fused.similarity_backward.default
downsample = torch.ops.ssim_fused.downsample.default
level_product = torch.ops.ssim_fused.level_product.default
pyramid_gradient = torch.ops.ssim_fused.pyramid_gradient.default


def build_info() -> dict[str, str]:
    """What was compiled, and the CPU instruction set in use.

    Returns:
        Strings by the keys ``torch`` (version at build time), ``compiler``, ``instruction_set``,
        ``best_instruction_set`` (of this machine) and ``cuda`` (empty for a CPU build).

    """
    chosen, best = torch.ops.ssim_fused.instruction_sets()
    return _C.build_info() | {"instruction_set": chosen, "best_instruction_set": best}


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


def _gradients(
    preds: torch.Tensor,
    target: torch.Tensor,
    want_grad_preds: bool,
    want_grad_target: bool,
    want_grad_constants: bool,
) -> Tensors3:
    nothing = preds.new_empty(0)
    constants = preds.new_empty((preds.shape[0], 2), dtype=compute_dtype(preds.dtype))
    return (
        torch.empty_like(preds) if want_grad_preds else nothing,
        torch.empty_like(target) if want_grad_target else nothing.clone(),
        constants if want_grad_constants else nothing.clone(),
    )


@torch.library.register_fake("ssim_fused::similarity")
def _(preds, target, taps, sizes, pad, padding_mode, c1, c2, constants, objective, grad_scale, want_map, *want_grad):
    per_image = preds.new_empty(preds.shape[0], dtype=compute_dtype(preds.dtype))
    spatial = [n + 2 * p - size + 1 for n, p, size in zip(preds.shape[2:], pad, sizes, strict=True)]
    image = preds.new_empty([*preds.shape[:2], *spatial] if want_map else 0)
    return per_image, torch.empty_like(per_image), image, *_gradients(preds, target, *want_grad)


@torch.library.register_fake("ssim_fused::similarity_backward")
def _(
    preds, target, taps, sizes, pad, padding_mode, c1, c2, constants,
    grad_similarity, grad_contrast, grad_map, *want_grad,
):  # fmt: skip
    return _gradients(preds, target, *want_grad)


@torch.library.register_fake("ssim_fused::downsample")
def _(preds, target):
    shape = [*preds.shape[:2], *(n // 2 for n in preds.shape[2:])]
    half = preds.new_empty(shape, dtype=compute_dtype(preds.dtype))
    return half, torch.empty_like(half)


@torch.library.register_fake("ssim_fused::level_product")
def _(means, betas, normalize):
    return torch.empty_like(means[0]), means[0].new_empty((len(means), *means[0].shape))


@torch.library.register_fake("ssim_fused::pyramid_gradient")
def _(gradients, factors):
    return torch.empty_like(gradients[0])
