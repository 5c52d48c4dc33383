"""torch.compile and torch.export: one graph, eager's numbers, at most one recompilation, no warnings."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

Function = Callable[[Tensor, Tensor], Tensor]
PYRAMID: dict[str, Any] = {"betas": (0.4, 0.6), "kernel_size": 7}


def both(outputs: tuple[Tensor, Tensor]) -> Tensor:
    return outputs[0].sum() + (outputs[1] ** 2).mean()


FORMS: dict[str, Function] = {
    "number": lambda x, y: ssim(x, y, data_range=1.0),
    "integer": lambda x, y: ssim(x, y, data_range=1),
    "tensor": lambda x, y: ssim(x, y, data_range=torch.tensor(1.0, device=x.device)),
    "tuple": lambda x, y: ssim(x, y, data_range=(0.1, 0.9)),
    "none": lambda x, y: ssim(x, y),
    "map": lambda x, y: both(ssim(x, y, data_range=1.0, return_full_image=True)),
    "contrast": lambda x, y: both(ssim(x, y, data_range=1.0, return_contrast_sensitivity=True)),
    "contrast alone": lambda x, y: ssim(x, y, data_range=1.0, return_contrast_sensitivity=True)[1].sum(),
    "each": lambda x, y: ssim(x, y, data_range=1.0, reduction="none").square().sum(),
    "uniform": lambda x, y: ssim(x, y, data_range=1.0, gaussian_kernel=False, kernel_size=7),
    "sigmas": lambda x, y: ssim(x, y, data_range=1.0, sigma=(1.0, 2.0)),
    "one gradient": lambda x, y: ssim(x, y.detach(), data_range=1.0) + y.sum(),
    "pyramid": lambda x, y: msssim(x, y, data_range=1.0, **PYRAMID),
    "pyramid tensor": lambda x, y: msssim(x, y, data_range=torch.tensor(1.0, device=x.device), **PYRAMID),
    "pyramid tuple": lambda x, y: msssim(x, y, data_range=(0.1, 0.9), **PYRAMID),
    "pyramid none": lambda x, y: msssim(x, y, **PYRAMID),
    "pyramid each": lambda x, y: msssim(x, y, data_range=1.0, reduction=None, normalize="simple", **PYRAMID).sum(),
    "pyramid uniform": lambda x, y: msssim(x, y, data_range=1.0, gaussian_kernel=False, **PYRAMID),
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def images(device: str, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator).to(device).requires_grad_() for _ in range(2))


def value_and_gradients(function: Function, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    x, y = (image.detach().clone().requires_grad_() for image in (x, y))
    value = function(x, y)
    return value, *torch.autograd.grad(value, (x, y))


def assert_like_eager(compiled: Function, eager: Function, x: Tensor, y: Tensor) -> None:
    for ours, theirs in zip(value_and_gradients(compiled, x, y), value_and_gradients(eager, x, y), strict=True):
        assert ours.stride() == theirs.stride()
        # The graph multiplies by the upstream gradient in another order: some roundings of float32.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dynamic", [False, None, True])
def test_every_form_is_one_graph(device: str, name: str, dynamic: bool | None) -> None:
    function = FORMS[name]
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)
    # With dynamic shapes, batch and sides change; one shape more may have to be compiled for.
    shapes = [(2, 3, 40, 44)] if dynamic is False else [(2, 3, 40, 44), (3, 3, 48, 52), (4, 3, 56, 44)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"torch(?!.*ssim_fused)")
        for shape in shapes:
            assert_like_eager(compiled, function, *images(device, *shape))
    assert backend.frame_count <= (1 if dynamic is False else 2)


@pytest.mark.parametrize("name", ["number", "map", "none"])
def test_volumes(device: str, name: str) -> None:
    compiled = torch.compile(FORMS[name], fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((1, 1, 12, 13, 14), (2, 1, 13, 12, 16)):
        assert_like_eager(compiled, FORMS[name], *images(device, *shape))


@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_a_training_step_with_inductor(device: str, name: str) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1).to(device)
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return 1 - FORMS[name](network(x), y)

    expected = torch.autograd.grad(loss(x, y), list(network.parameters()))
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x, y), list(network.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_under_autocast(device: str, name: str) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return FORMS[name](x.bfloat16(), y.bfloat16())

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x, y = images(device, 2, 3, 40, 44)
    value = compiled(x, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, function(x, y))


@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_double_backward_is_refused(device: str, name: str) -> None:
    compiled = torch.compile(FORMS[name], fullgraph=True, backend="aot_eager")
    x, y = images(device, 1, 1, 40, 44)
    (gradient,) = torch.autograd.grad(compiled(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


class Loss(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


@pytest.mark.parametrize("name", ["number", "tensor", "none", "map", "pyramid", "pyramid none"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_export(device: str, name: str, dynamic: bool) -> None:
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))
    dims = {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim("height", min=16, max=512)}
    shapes = (dims, dims) if dynamic else None
    program = torch.export.export(Loss(FORMS[name]), (x, y), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for shape in [(2, 3, 40, 44), *([(3, 3, 61, 44)] if dynamic else [])]:
        x, y = (image.detach() for image in images(device, *shape, seed=1))
        torch.testing.assert_close(loaded(x, y), FORMS[name](x, y))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_ahead_of_time_inductor(device: str, name: str, tmp_path: Any) -> None:
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))
    program = torch.export.export(Loss(FORMS[name]), (x, y))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "loss.pt2"))
    torch.testing.assert_close(torch._inductor.aoti_load_package(package)(x, y), FORMS[name](x, y))


@pytest.mark.parametrize("name", FORMS)
def test_fake_tensors(device: str, name: str) -> None:
    with FakeTensorMode() as mode:
        x, y = (mode.from_tensor(image) for image in images(device, 2, 3, 40, 44))
        value = FORMS[name](x, y)
        assert value.shape == ()
        gradients = torch.autograd.grad(value, (x, y))
    assert all(gradient.shape == (2, 3, 40, 44) for gradient in gradients)
