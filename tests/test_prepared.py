"""Prepared calls give the same bits and refusals as the long path, and their number never enters a graph."""

from __future__ import annotations

import copy
import os
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssim_fused import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss, ms_ssim, ssim
from ssim_fused._core import _ops, prepared

BETAS = (0.4, 0.6)
CALLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ssim": lambda x, y: ssim(x, y, data_range=1.0),
    "each": lambda x, y: ssim(x, y, data_range=1.0, reduction="none").sum(),
    "uniform": lambda x, y: ssim(x, y, data_range=2, gaussian_kernel=False, kernel_size=7, padding="valid"),
    "ms_ssim": lambda x, y: ms_ssim(x, y, data_range=1.0, betas=BETAS, kernel_size=7),
    "SSIMLoss": SSIMLoss(),
    "MultiScaleSSIMLoss": MultiScaleSSIMLoss(BETAS, kernel_size=7),
    "L1SSIMLoss": L1SSIMLoss(),
    "PixelSSIMLoss": PixelSSIMLoss("charbonnier", multiscale=True, betas=BETAS, kernel_size=7),
}


def images(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 33, 40, generator=generator, dtype=dtype)
    preds = target + 0.1 * torch.randn(target.shape, generator=generator, dtype=dtype)
    return preds.to(device), target.to(device)


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], Tensor]:
    return CALLS[request.param]


@pytest.fixture
def warm(call: Callable[[Tensor, Tensor], Tensor], device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A prepared call: the third with the same arguments."""
    for _ in range(2):
        call(*images(device))
    assert names_of(lambda: call(*images(device))) & {"ssim_fused::prepared", "ssim_fused::prepared_value"}
    return call


def names_of(function: Callable[[], Any]) -> set[str]:
    """The names of the operators that a call goes through, from the profiler."""
    with torch.profiler.profile() as profile:
        function()
    return {event.name for event in profile.events() or () if event.name.startswith("ssim_fused")}


def unprepared(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "run", lambda *arguments: None)
        return function()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("which", ["preds", "target", "both"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 0.3])
def test_prepared_calls_give_the_bits_of_the_long_path(
    monkeypatch: pytest.MonkeyPatch, device: str, warm: Callable, dtype: torch.dtype, which: str, scale: float
) -> None:
    preds, target = images(device, dtype)
    wanted = {"preds": [preds], "target": [target], "both": [preds, target]}[which]
    for image in wanted:
        image.requires_grad_()

    def step() -> tuple[Tensor, ...]:
        value = warm(preds, target)
        return value, *torch.autograd.grad(scale * value, wanted)

    assert any("prepared" in name for name in names_of(step))
    for ours, long in zip(step(), unprepared(monkeypatch, step), strict=True):
        assert torch.equal(ours, long)
    with torch.no_grad():
        assert torch.equal(warm(preds, target), unprepared(monkeypatch, lambda: warm(preds, target)))


def test_prepared_calls_support_double_backward_and_retained_graphs(device: str, warm: Callable) -> None:
    preds, target = images(device, torch.float64)
    preds = preds[:1, :1].requires_grad_()
    value = warm(preds, target[:1, :1])
    (first,) = torch.autograd.grad(value, preds, create_graph=True)
    (again,) = torch.autograd.grad(value, preds, retain_graph=True)
    assert torch.equal(first, again)
    one = target[:1, :1]
    assert torch.autograd.gradgradcheck(lambda image: 1e3 * warm(image, one), (preds,), fast_mode=True)


REFUSALS: list[tuple[Callable, dict[str, Any], type[Exception]]] = [
    # Equal to arguments that were prepared, but of types that the long path refuses.
    (ssim, {"gaussian_kernel": 1.0}, TypeError),
    (ssim, {"gaussian_kernel": 1}, TypeError),
    (ssim, {"gaussian_kernel": False, "kernel_size": 11.0}, TypeError),
    (ssim, {"sigma": 1.5 + 0j}, TypeError),
    (ssim, {"k1": 0.01 + 0j}, TypeError),
    (ms_ssim, {"betas": (1,)}, ValueError),
    (ms_ssim, {"gaussian_kernel": 1}, TypeError),
]


@pytest.mark.parametrize(("function", "wrong", "kind"), REFUSALS, ids=[str(wrong) for _, wrong, _ in REFUSALS])
def test_equal_arguments_of_other_types_are_refused(
    function: Callable, wrong: dict[str, Any], kind: type[Exception]
) -> None:
    right: dict[str, Any] = {"data_range": 1.0, "sigma": 1.5, "kernel_size": 11, "k1": 0.01, "gaussian_kernel": True}
    right |= {"betas": (1.0,)} if function is ms_ssim else {}
    preds, target = images()
    for arguments in (right, right | {"gaussian_kernel": False}):
        for _ in range(3):
            function(preds, target, **arguments)
    with pytest.raises(kind):
        function(preds, target, **(right | wrong))


def test_images_are_refused_as_on_the_long_path() -> None:
    preds, target = images()
    for _ in range(3):
        ms_ssim(preds, target, data_range=1.0, betas=BETAS, kernel_size=7)
        ssim(preds, target, data_range=1.0)
    with pytest.raises(ValueError, match="for 2 `betas` and `kernel_size` 7 its height 6 must be at least 7"):
        ms_ssim(preds[..., :6, :], target[..., :6, :], data_range=1.0, betas=BETAS, kernel_size=7)
    with pytest.raises(RuntimeError, match="is too small for the window"):
        ssim(preds[..., :5], target[..., :5], data_range=1.0)
    with pytest.raises(RuntimeError, match="same shape"):
        ssim(preds, target[:1], data_range=1.0)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        ssim(preds.numpy(), target, data_range=1.0)  # ty: ignore[no-matching-overload]
    assert ssim(preds.to("meta"), target.to("meta"), data_range=1.0).is_meta


def test_the_exponents_follow_the_default_dtype() -> None:
    preds, target = images(dtype=torch.float64)
    loss = MultiScaleSSIMLoss((0.3, 0.7), kernel_size=7)
    values = []
    for _ in range(3):
        values += [loss(preds, target), ms_ssim(preds, target, data_range=1.0, betas=(0.3, 0.7), kernel_size=7)]
    torch.set_default_dtype(torch.float64)
    try:
        in_double = [loss(preds, target), ms_ssim(preds, target, data_range=1.0, betas=(0.3, 0.7), kernel_size=7)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert len({value.item() for value in values[::2]}) == len({value.item() for value in values[1::2]}) == 1
    assert all(ours != values[i] for i, ours in enumerate(in_double))


def test_graphs_do_not_contain_the_number(warm: Callable) -> None:
    preds, target = images()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable:
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(lambda x, y: warm(x, y), backend=backend, fullgraph=True)
    assert torch.equal(compiled(preds, target), warm(preds, target))
    graphs.append(make_fx(warm)(preds, target).print_readable(print_output=False))
    graphs.append(str(torch.jit.trace(warm, (preds, target), check_trace=False).graph))
    exported = torch.export.export(Wrapped(warm), (preds, target), strict=False)
    graphs.append(exported.graph_module.print_readable(print_output=False))
    assert len(graphs) == 4
    for graph in graphs:
        assert re.search(r"ssim_fused(\.|::)(similarity|multiscale)", graph)
        assert not re.search(r"ssim_fused(\.|::)prepared", graph)


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        return self.function(preds, target)


class Subclass(Tensor):
    pass


def test_modes_and_subclasses_see_the_whole_call(warm: Callable) -> None:
    preds, target = images()
    expected = warm(preds, target)
    seen: list[str] = []

    class Dispatched(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    for mode in (Dispatched, Functions):
        seen.clear()
        with mode():
            assert torch.equal(warm(preds, target), expected)
        assert any("ssim_fused" in name for name in seen)
        assert not any("prepared" in name for name in seen)
    ours = preds.as_subclass(Subclass)
    assert not any("prepared" in name for name in names_of(lambda: warm(ours, target)))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(preds, torch.ones_like(preds))
        assert torch.autograd.forward_ad.unpack_dual(warm(dual, target)).tangent is not None
    mapped = torch.func.vmap(warm, (0, 0))(preds[None].expand(2, *preds.shape), target[None].expand(2, *target.shape))
    torch.testing.assert_close(mapped, expected.expand(2))


def test_threads_share_prepared_calls() -> None:
    preds, target = images()
    ranges = [1.0 + i / 8 for i in range(16)]
    expected = [ssim(preds, target, data_range=of) for of in ranges]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            for i in range(200):
                k = (i * 7 + seed) % len(ranges)
                if not torch.equal(ssim(preds, target, data_range=ranges[k]), expected[k]):
                    wrong.append(k)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_inherits_prepared_calls() -> None:
    preds, target = images()
    expected = [ssim(preds, target, data_range=1.0) for _ in range(3)][-1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    try:
        child = os.fork()
        if child == 0:
            same = torch.equal(ssim(preds, target, data_range=1.0), expected)
            new = [ssim(preds, target, data_range=7.0) for _ in range(3)]
            os._exit(0 if same and torch.equal(new[0], new[2]) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))], ids=["copy", "pickle"]
)
def test_copies_of_a_loss_prepare_their_own_calls(copied: Callable) -> None:
    preds, target = images()
    loss = PixelSSIMLoss("l2", ssim_weight=0.5)
    for _ in range(3):
        expected = loss(preds, target)
    assert loss._prepared is not None
    twin = copied(loss)
    assert twin._prepared is None
    assert all(torch.equal(twin(preds, target), expected) for _ in range(3))


def test_a_loss_follows_its_attributes() -> None:
    preds, target = images()
    loss = SSIMLoss()
    for _ in range(3):
        loss(preds, target)
    for name, value in {"data_range": 2.0, "sigma": 0.8, "padding": "valid", "reduction": "none", "k2": 0.1}.items():
        setattr(loss, name, value)
        changed = SSIMLoss(
            data_range=loss.data_range, sigma=loss.sigma, padding=loss.padding, reduction=loss.reduction, k2=loss.k2
        )
        assert torch.equal(loss(preds, target), changed(preds, target)), name


class Annealed(PixelSSIMLoss):
    """A loss that computes its weight at every call."""

    step = 0

    @property
    def ssim_weight(self) -> float:
        return self.step / 10

    @ssim_weight.setter
    def ssim_weight(self, value: float) -> None:
        pass


def test_a_loss_whose_attributes_change_without_being_set_is_not_prepared() -> None:
    preds, target = images()
    annealed = Annealed()
    weighed = PixelSSIMLoss()
    weighed.ssim_weight = weight = torch.tensor(0.2)
    listed = MultiScaleSSIMLoss((0.3, 0.7), kernel_size=7)
    listed.betas = betas = [0.3, 0.7]
    for _ in range(3):
        for loss in (annealed, weighed, listed):
            loss(preds, target)
            assert loss._prepared is None
    annealed.step, betas[0] = 9, 0.9
    weight.fill_(0.9)
    for loss in (annealed, weighed):
        torch.testing.assert_close(loss(preds, target), PixelSSIMLoss(ssim_weight=0.9)(preds, target))
    assert torch.equal(listed(preds, target), MultiScaleSSIMLoss((0.9, 0.7), kernel_size=7)(preds, target))


def test_attributes_used_once_are_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(prepared, "prepare", made.append)
    preds, target = images()
    loss = PixelSSIMLoss()
    for i in range(20):
        loss.ssim_weight = i / 20
        loss(preds, target)
    assert made == []
    loss(preds, target)
    assert len(made) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8, torch.int16], ids=str)
def test_meta_tensors_of_every_dtype(dtype: torch.dtype) -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=dtype, device="meta")
    assert SSIMLoss()(image, image).is_meta
    assert ssim(image, image, data_range=255.0).is_meta


def test_ranges_used_once_are_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(_ops, "prepare", lambda **keywords: made.append(keywords))
    preds, target = images()
    for i in range(50):
        ssim(preds, target, data_range=3.0 + i / 64)
    assert made == []
    ssim(preds, target, data_range=3.0)
    assert len(made) == 1


def test_more_calls_than_the_table_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ops, "MOST_PREPARED", 0)
    preds, target = images()
    values = [ssim(preds, target, data_range=5.0) for _ in range(4)]
    assert all(torch.equal(value, values[0]) for value in values)


def test_the_operators_refuse_unknown_numbers() -> None:
    preds, target = images()
    for number in (-1, 4095, 4096, 2**62):
        with pytest.raises(RuntimeError, match=f"number is {number}"):
            torch.ops.ssim_fused.prepared_value(preds, target, number)
