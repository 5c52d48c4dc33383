"""torch.func's transforms, and autograd's batched gradients, against loops over plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

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
# Ranges that each mapped pair has for itself, and volumes: mapped over, and differentiated inside and outside.
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
