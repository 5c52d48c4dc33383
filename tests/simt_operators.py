"""Runs the cases of simt_cases.py through torch.ops: on the CPU, and on a GPU if present."""

from __future__ import annotations

import torch
from simt_cases import C1, C2, Case, K, check, pictures, upstream, windows
from simt_host import storage
from torch import Tensor

import ssim_fused  # noqa: F401  (registers the operators)


def is_operators(case: Case) -> bool:
    """Return whether the operators can run the case with the same outputs: padded by half the window, or not at all.

    Pixel terms are tested in test_losses.py, integers in test_integers.py.
    """
    return (case.pad is None or not any(case.pad)) and not case.pixels and not case.types


def by_operators(case: Case, preds: Tensor, target: Tensor, device: str) -> dict[str, Tensor]:
    """Run a case through the operators, with the planner's own choices."""

    def place(picture: Tensor, shape: tuple[int, ...]) -> Tensor:
        strides, offset, count = storage(case, shape)
        elements = torch.full((count,), torch.nan, dtype=case.dtype, device=device)
        return elements.as_strided(shape, strides, offset).copy_(picture)

    batch = case.shape[0]
    compute = torch.float64 if case.dtype == torch.float64 else torch.float32
    constants = None
    if case.constants:
        constants = torch.tensor([C1, C2], dtype=compute, device=device)
        constants = constants if case.constants == 1 else constants.repeat(batch, 1)
    images = place(preds, case.shape), place(target, case.shape), constants, None
    shared = {
        "sigma": [],
        "kernel_size": list(case.sizes),
        "taps": [tap for window in windows(case) for tap in window.tolist()],
        "padding": case.padding_mode if case.pad is None else "valid",
        "k1": K[0],
        "k2": K[1],
    }
    names = [f"grad_{name}" for name in ("preds", "target", "constants") if name in case.gradients]
    wanted = {f"want_{name}": True for name in names}
    # The forward computes the gradients of the summed similarity. Others need a separate pass.
    is_backward = bool(case.upstream) or case.objective != "similarity"
    forward = torch.ops.ssim_fused.similarity(
        *images, **shared, reduction=0, distance=case.as_distance, want_contrast=True, want_map=case.want_map,
        **({} if is_backward else wanted),
    )  # fmt: skip
    results = dict(zip(("similarity", "contrast_sensitivity"), forward, strict=False))
    if case.want_map:
        results["map"] = forward[2]
    (mean,) = torch.ops.ssim_fused.similarity(*images, **shared, distance=case.as_distance)
    results["batch_similarity"] = mean.view(1)
    if is_backward:
        given = upstream(case) or {"grad_contrast": torch.ones(batch, dtype=torch.float64)}
        scalars = [
            given[name].to(device, compute) if name in given else None for name in ("grad_similarity", "grad_contrast")
        ]
        picture = place(given["grad_map"], case.output_shape) if "grad_map" in given else None
        gradients = torch.ops.ssim_fused.similarity_backward(
            *images, *scalars, picture, **shared, reduction=0, **wanted
        )
        results |= zip(names, gradients, strict=True)
    else:  # the forward stores gradients of the distance
        ones = torch.ones(batch, dtype=compute, device=device)
        for name, gradient in zip(names, forward[3 if case.want_map else 2 :], strict=True):
            if name == "grad_constants":
                results[name] = -gradient
            else:
                results[name] = torch.ops.ssim_fused.multiply_gradient(gradient, ones, factor=-1.0, k1=K[0], k2=K[1])
    return {name: result.double().cpu() for name, result in results.items()}


def check_operators(case: Case, device: str) -> None:
    preds, target = pictures(case)
    results = by_operators(case, preds, target, device)
    check(case, results, preds, target)
    again = by_operators(case, preds, target, device)
    for name, result in results.items():
        assert torch.equal(result.nan_to_num(7.0), again[name].nan_to_num(7.0)), f"{name} differs from run to run"
