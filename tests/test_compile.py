"""torch.compile and torch.export: one graph, eager's results, at most one recompilation, no warnings."""

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
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def images(device: str, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator).to(device).requires_grad_() for _ in range(2))


def value_and_gradients(function: Function, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    x, y = (image.detach().clone(memory_format=torch.preserve_format).requires_grad_() for image in (x, y))
    value = function(x, y)
    return value, *torch.autograd.grad(value, (x, y))


def assert_like_eager(compiled: Function, eager: Function, x: Tensor, y: Tensor) -> None:
    for ours, theirs in zip(value_and_gradients(compiled, x, y), value_and_gradients(eager, x, y), strict=True):
        assert (ours.stride(), ours.dtype) == (theirs.stride(), theirs.dtype)
        # The graph multiplies by the upstream gradient in another order, which changes a few roundings.
        rtol = 1e-5 if theirs.dtype.itemsize > 2 else 2 * torch.finfo(theirs.dtype).eps
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-8)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dynamic", [False, None, True])
def test_every_form_is_one_graph(device: str, name: str, dynamic: bool | None) -> None:
    function = FORMS[name]
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)
    # With dynamic shapes, the batch size and the sides change. One recompilation for a new shape is allowed.
    shapes = [(2, 3, 40, 44)] if dynamic is False else [(2, 3, 40, 44), (3, 3, 48, 52), (4, 3, 56, 44)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in shapes:
            assert_like_eager(compiled, function, *images(device, *shape))
    assert backend.frame_count <= (1 if dynamic is False else 2)


@pytest.mark.parametrize("name", ["number", "map", "none", "contrast", "pyramid"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_volumes(device: str, name: str, dynamic: bool | None) -> None:
    function = FORMS[name]
    if name == "pyramid":
        function = lambda x, y: msssim(x, y, data_range=1.0, betas=(0.4, 0.6), kernel_size=3, sigma=0.5)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((2, 1, 12, 13, 14), (3, 1, 13, 15, 16), (4, 1, 16, 12, 19)):
        assert_like_eager(compiled, function, *images(device, *shape))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["number", "map", "none", "pyramid"])
def test_layouts_and_types(device: str, name: str) -> None:
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))
    forms = {
        "channels last": lambda t: t.to(memory_format=torch.channels_last),
        "transposed": lambda t: t.mT.contiguous().mT,
        "half": lambda t: t.half(),
        "bfloat16": lambda t: t.bfloat16(),
        "double": lambda t: t.double(),
    }
    for form in forms.values():
        torch._dynamo.reset()
        compiled = torch.compile(FORMS[name], fullgraph=True, dynamic=True, backend="aot_eager")
        assert_like_eager(compiled, FORMS[name], form(x), form(y))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_training_steps_with_inductor(device: str, name: str) -> None:
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))

    def train(compiles: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 3, 3, padding=1).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return 1 - FORMS[name](network(x), y)

        step = torch.compile(loss, fullgraph=True) if compiles else loss
        for _ in range(3):
            optimizer.zero_grad()
            step(x, y).backward()
            optimizer.step()
        return list(network.parameters())

    for ours, theirs in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["number", "pyramid"])
def test_under_autocast(device: str, name: str) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return FORMS[name](x.bfloat16(), y.bfloat16())

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x, y = images(device, 2, 3, 40, 44)
    assert compiled(x, y).dtype == torch.float32
    for ours, theirs in zip(value_and_gradients(compiled, x, y), value_and_gradients(function, x, y), strict=True):
        # Gradients pass through bfloat16, the dtype of the images.
        torch.testing.assert_close(ours, theirs, rtol=2 * torch.finfo(torch.bfloat16).eps, atol=1e-8)


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
@pytest.mark.parametrize("dynamic", [False, True])
def test_ahead_of_time_inductor(device: str, name: str, dynamic: bool, tmp_path: Any) -> None:
    x, y = (image.detach() for image in images(device, 2, 3, 40, 44))
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) * 2 if dynamic else None
    program = torch.export.export(Loss(FORMS[name]), (x, y), dynamic_shapes=shapes)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "loss.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    for batch in (2, 5) if dynamic else (2,):
        x, y = (image.detach() for image in images(device, batch, 3, 40, 44, seed=1))
        torch.testing.assert_close(loaded(x, y), FORMS[name](x, y))


@pytest.mark.parametrize("name", FORMS)
def test_fake_tensors(device: str, name: str) -> None:
    with FakeTensorMode() as mode:
        x, y = (mode.from_tensor(image) for image in images(device, 2, 3, 40, 44))
        value = FORMS[name](x, y)
        assert value.shape == ()
        gradients = torch.autograd.grad(value, (x, y))
    assert all(gradient.shape == (2, 3, 40, 44) for gradient in gradients)
