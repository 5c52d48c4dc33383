"""torch.func's transforms and autograd's batched gradients, against loops over plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from ssim_fused import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

Function = Callable[..., Tensor]
MEASURES: dict[str, Function] = {
    "image": lambda x, y, r=1.0: ssim(x, y, data_range=r),
    "each": lambda x, y, r=1.0: ssim(x, y, data_range=r, reduction="none"),
    "map": lambda x, y, r=1.0: ssim(x, y, data_range=r, return_full_image=True)[1],
    "contrast": lambda x, y, r=1.0: ssim(x, y, data_range=r, return_contrast_sensitivity=True)[1],
    "pyramid": lambda x, y, r=1.0: msssim(x, y, data_range=r, betas=(0.4, 0.6), kernel_size=3, sigma=0.5),
}
SCALARS = ["image", "pyramid"]
# A range for each mapped pair, and volumes: mapped over, and differentiated inside and outside of vmap.
MAPPED: dict[str, Function] = MEASURES | {
    "range of its own": lambda x, y: ssim(x, y),
    "bounds": lambda x, y: ssim(x, y, data_range=(0.2, 0.8)),
    "pyramid, range of its own": lambda x, y: msssim(x, y, betas=(0.4, 0.6), kernel_size=3, sigma=0.5),
    "volume": lambda x, y: ssim(x.unflatten(-2, (3, 4)), y.unflatten(-2, (3, 4)), sigma=0.5, kernel_size=5),
}


def pictures(device: str, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    preds = target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return preds.to(device), target.to(device)


def gradient(function: Function, x: Tensor, *others: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x, *others).sum(), x)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", MAPPED)
def test_vmap(device: str, name: str) -> None:
    function = MAPPED[name]
    xs, ys = pictures(device, 3, 2, 1, 12, 13)
    close(vmap(function)(xs, ys), torch.stack([function(x, y) for x, y in zip(xs, ys, strict=True)]))
    close(vmap(function, (0, None))(xs, ys[0]), torch.stack([function(x, ys[0]) for x in xs]))
    close(vmap(function, (None, 0))(xs[0], ys), torch.stack([function(xs[0], y) for y in ys]))
    moved = vmap(function, (2, 0), out_dims=-1)(xs.movedim(0, 2), ys)
    close(moved.movedim(-1, 0), vmap(function)(xs, ys))
    nested = vmap(vmap(function, (0, None)))(xs.unsqueeze(1).expand(3, 2, -1, -1, -1, -1), ys)
    close(nested[:, 1], vmap(function)(xs, ys))


@pytest.mark.parametrize("name", MEASURES)
def test_vmap_with_a_range_for_each(device: str, name: str) -> None:
    function = MEASURES[name]
    xs, ys = pictures(device, 3, 2, 1, 12, 13)
    ranges = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, device=device)
    close(vmap(function)(xs, ys, ranges), torch.stack([function(*each) for each in zip(xs, ys, ranges, strict=True)]))
    by_range = vmap(grad(lambda r, x, y: function(x, y, r).sum()))(ranges, xs, ys)
    expected = [gradient(lambda r, x, y: function(x, y, r), r, x, y) for r, x, y in zip(ranges, xs, ys, strict=True)]
    close(by_range, torch.stack(expected))


@pytest.mark.parametrize("name", MAPPED)
def test_gradients_inside_and_outside_of_vmap(device: str, name: str) -> None:
    function = MAPPED[name]
    xs, ys = pictures(device, 3, 2, 1, 12, 13)
    expected = torch.stack([gradient(function, x, y) for x, y in zip(xs, ys, strict=True)])
    close(grad(lambda x, y: function(x, y).sum())(xs[0], ys[0]), expected[0])
    close(vmap(grad(lambda x, y: function(x, y).sum()))(xs, ys), expected)
    close(gradient(lambda x: vmap(function)(x, ys), xs), expected)
    _, pull = vjp(function, xs[0], ys[0])
    close(pull(torch.ones_like(function(xs[0], ys[0])))[0], expected[0])


@pytest.mark.parametrize("name", MEASURES)
def test_jacobians(device: str, name: str) -> None:
    function = MEASURES[name]
    x, y = (image[0] for image in pictures(device, 1, 2, 1, 11, 12))
    if name == "map":
        whole, function = function, lambda x, y: whole(x, y)[..., 4, 4:6]
    expected = torch.autograd.functional.jacobian(lambda x: function(x, y), x)
    close(jacrev(function)(x, y), expected)
    close(jacfwd(function)(x, y), expected)
    close(torch.autograd.functional.jacobian(lambda x: function(x, y), x, vectorize=True), expected)
    tangent = torch.rand_like(x)
    value, derivative = jvp(lambda x: function(x, y), (x,), (tangent,))
    close(value, function(x, y))
    close(derivative, (expected * tangent).flatten(value.ndim).sum(-1))


@pytest.mark.parametrize("name", SCALARS)
def test_second_derivatives(device: str, name: str) -> None:
    function = MEASURES[name]
    x, y = (image[0] for image in pictures(device, 1, 1, 1, 8, 8))
    variable = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(variable, y), variable, create_graph=True)
    rows = [torch.autograd.grad(g, variable, retain_graph=True)[0].flatten() for g in first.flatten()]
    expected = torch.stack(rows)
    vector = torch.rand_like(x)
    product = (expected @ vector.flatten()).view_as(x)
    close(jvp(grad(lambda x: function(x, y)), (x,), (vector,))[1], product)
    close(grad(lambda x: (grad(lambda x: function(x, y))(x) * vector).sum())(x), product)
    close(vjp(grad(lambda x: function(x, y)), x)[1](vector)[0], product)
    close(hessian(lambda x: function(x, y))(x).reshape(64, 64), expected)
    close(jacrev(jacrev(lambda x: function(x, y)))(x).reshape(64, 64), expected)


@pytest.mark.parametrize("name", MEASURES)
def test_batched_gradients(device: str, name: str) -> None:
    function = MEASURES[name]
    x, y = pictures(device, 2, 1, 12, 13)
    x.requires_grad_()
    value = function(x, y)
    upstream = torch.rand(3, *value.shape, dtype=value.dtype, device=device)
    (found,) = torch.autograd.grad(value, x, upstream, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(value, x, u, retain_graph=True)[0] for u in upstream]
    close(found, torch.stack(expected))
    assert torch.autograd.gradcheck(lambda x: function(x, y), x, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("name", SCALARS)
def test_stacked_models(device: str, name: str) -> None:
    function = MEASURES[name]
    networks = [torch.nn.Conv2d(1, 1, 3, padding=1, dtype=torch.float64).to(device) for _ in range(3)]
    x, y = pictures(device, 2, 1, 12, 13)
    parameters, buffers = stack_module_state(networks)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return 1 - function(functional_call(networks[0], (parameters, buffers), (x,)), y)

    found = vmap(grad(loss))(parameters, buffers)
    outside = torch.autograd.grad(vmap(loss)(parameters, buffers).sum(), list(parameters.values()))
    for key, other in zip(parameters, outside, strict=True):
        expected = [
            torch.autograd.grad(1 - function(network(x), y), dict(network.named_parameters())[key])[0]
            for network in networks
        ]
        close(found[key], torch.stack(expected))
        close(other, torch.stack(expected))


def test_forward_mode(device: str) -> None:
    x, y = pictures(device, 1, 1, 12, 13)
    tangent = torch.rand_like(x)
    for name in SCALARS:
        with torch.autograd.forward_ad.dual_level():
            value = MEASURES[name](torch.autograd.forward_ad.make_dual(x, tangent), y)
            derivative = torch.autograd.forward_ad.unpack_dual(value).tangent
        close(derivative, (gradient(MEASURES[name], x, y) * tangent).sum())


# ----------------------------------------------------------------------------------------------------------------------
# Compiled

COMPILED: dict[str, Callable[..., Tensor]] = {
    "vmap": lambda x, y: vmap(LOSS)(x, y),
    "grad": lambda x, y: grad(LOSS)(x[0], y[0]),
    "vmap of grad": lambda x, y: vmap(grad(LOSS))(x, y),
    "grad of vmap": lambda x, y: grad(lambda x: vmap(LOSS)(x, y).sum())(x),
    "vjp": lambda x, y: vjp(LOSS, x[0], y[0])[1](torch.ones((), dtype=x.dtype))[0],
    "jvp": lambda x, y: jvp(lambda x: LOSS(x, y[0]), (x[0],), (y[0],))[1],
    "a loss": lambda x, y: vmap(grad(MODULE))(x, y),
    "a pyramid": lambda x, y: vmap(MEASURES["pyramid"])(x, y),
    "masked": lambda x, y: vmap(lambda x, y, m: ssim(x, y, data_range=1.0, mask=m), (0, 0, None))(x, y, x[0] > 0.3),
}
MODULE = L1SSIMLoss()


def LOSS(x: Tensor, y: Tensor) -> Tensor:  # noqa: N802
    return 1 - ssim(x, y, data_range=1.0)


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_functions_that_contain_a_transform(device: str, name: str, fullgraph: bool) -> None:
    xs, ys = pictures(device, 3, 2, 1, 12, 13)
    torch._dynamo.reset()
    compiled = torch.compile(COMPILED[name], fullgraph=fullgraph, backend="aot_eager")
    close(compiled(xs, ys), COMPILED[name](xs, ys))


def test_a_compiled_loss_under_a_transform() -> None:
    xs, ys = pictures("cpu", 3, 2, 1, 12, 13)
    torch._dynamo.reset()
    compiled = torch.compile(LOSS, backend="aot_eager")
    close(compiled(xs[0], ys[0]), LOSS(xs[0], ys[0]))
    close(vmap(compiled)(xs, ys), vmap(LOSS)(xs, ys))


# ----------------------------------------------------------------------------------------------------------------------
# A range of each image

EACH: dict[str, Callable[..., Tensor]] = {
    "ssim": lambda x, y, r, **k: ssim(x, y, data_range=r, reduction="none", **k),
    "map": lambda x, y, r, **k: ssim(x, y, data_range=r, return_full_image=True, **k)[1],
    "contrast": lambda x, y, r, **k: ssim(x, y, data_range=r, return_contrast_sensitivity=True, **k)[1],
    "ms_ssim": lambda x, y, r, **k: msssim(
        x, y, data_range=r, reduction="none", betas=(0.4, 0.6), kernel_size=3, sigma=0.5, **k
    ),
    "loss": lambda x, y, r, **k: PixelSSIMLoss("l2", data_range=r, reduction="none")(x, y, **k),
    "multiscale loss": lambda x, y, r, **k: MultiScaleSSIMLoss(
        (0.4, 0.6), kernel_size=3, sigma=0.5, data_range=r, reduction="none"
    )(x, y, **k),
}


def masks(x: Tensor) -> Tensor:
    return torch.rand(3, 1, *x.shape[2:], generator=torch.Generator().manual_seed(9)).to(x.device) > 0.3


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("name", EACH)
def test_a_range_of_each_image_is_that_of_a_loop(device: str, name: str, is_masked: bool) -> None:
    function = EACH[name]
    x, y = pictures(device, 3, 2, 12, 13)
    ranges = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, device=device)
    masked = [{"mask": masks(x)[i : i + 1]} if is_masked else {} for i in range(3)]
    each = torch.cat([function(x[i : i + 1], y[i : i + 1], ranges[i].item(), **masked[i]) for i in range(3)])
    whole = {"mask": masks(x)} if is_masked else {}
    for given in (ranges, ranges.reshape(3, 1, 1, 1), ranges.cpu()):
        close(function(x, y, given, **whole), each)
    if name in ("ssim", "ms_ssim"):
        channels = [function(x[:, c : c + 1], y[:, c : c + 1], ranges, **whole) for c in range(2)]
        close(function(x, y, ranges, per_channel=True, **whole), torch.stack(channels, 1))
    for wrong in (ranges[:2], ranges.repeat(2), ranges.expand(3, 3)):
        with pytest.raises(
            ValueError, match=r"`data_range` is a tensor of shape .* and `preds` has the shape \(3, 2, 1"
        ):
            function(x, y, wrong, **whole)


@pytest.mark.parametrize("name", EACH)
def test_gradients_by_a_range_of_each_image(device: str, name: str) -> None:
    function = EACH[name]
    x, y = pictures(device, 3, 2, 12, 13)
    ranges = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, device=device, requires_grad=True)
    x.requires_grad_()
    found = torch.autograd.grad(function(x, y, ranges).sum(), (x, ranges))
    for i in range(3):
        image, number = x[i : i + 1].detach().requires_grad_(), ranges[i].detach().requires_grad_()
        of_one = torch.autograd.grad(function(image, y[i : i + 1], number).sum(), (image, number))
        close(found[0][i : i + 1], of_one[0])
        close(found[1][i], of_one[1])


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "loss"])
def test_a_range_per_image_compiles(name: str) -> None:
    x, y = pictures("cpu", 3, 2, 12, 13)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, y, r: EACH[name](x, y, r), fullgraph=True, backend="aot_eager")
    ranges = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    close(compiled(x, y, ranges), EACH[name](x, y, ranges))


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(2), Fraction(1, 2), np.array(0.5), 2], ids=repr)
def test_numbers_of_any_type_compile(number: Any) -> None:
    x, y = pictures("cpu", 3, 2, 12, 13)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, y: ssim(x, y, data_range=number), backend="aot_eager")
    close(compiled(x, y), ssim(x, y, data_range=float(number)))
