"""The gradient that the forward stores is scaled in place if nothing else can observe it, and only then."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused._core.autograd import evaluate
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "image": lambda x, y: 1 - ssim(x, y, data_range=1.0),
    "pyramid": lambda x, y: 1 - msssim(x, y, data_range=1.0, betas=(0.4, 0.6), kernel_size=7),
    "each": lambda x, y: (1 - ssim(x, y, data_range=1.0, reduction="none")).sum(),
    "third": lambda x, y: ssim(x, y, data_range=1.0) / 3,
}


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def pictures(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape or (2, 3, 20, 24), generator=generator)
    preds = (target + 0.1 * torch.randn(target.shape, generator=generator)).to(device, dtype)
    return preds.requires_grad_(), target.to(device, dtype)


def kept(loss: Loss, preds: Tensor, target: Tensor) -> Tensor:
    """The gradient computed out of place, because the graph is retained."""
    return torch.autograd.grad(loss(preds, target), preds, retain_graph=True)[0]


def stored(value: Tensor) -> Tensor:
    """The gradient that the last node of ssim_fused stores."""
    node = value.grad_fn
    while "Score" not in node.name():
        node = node.next_functions[0][0]
    return node.saved_tensors[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_in_place_gives_the_bits_of_out_of_place(device: str, loss: Loss, dtype: torch.dtype) -> None:
    preds, target = pictures(device, dtype=dtype)
    expected = kept(loss, preds, target)
    loss(preds, target).backward()
    assert torch.equal(preds.grad, expected)


def test_the_memory_is_the_stored_one(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    value = loss(preds, target)
    where = stored(value).data_ptr()
    (gradient,) = torch.autograd.grad(value, preds)
    assert gradient.data_ptr() == where


def test_two_backwards_and_what_a_third_raises(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    value = loss(preds, target)
    for retain in (True, True, False):
        (gradient,) = torch.autograd.grad(value, preds, retain_graph=retain)
        assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        value.backward()


def test_holders_of_the_stored_gradient_keep_it_unscaled(device: str, loss: Loss) -> None:
    for hold in (lambda t: t, lambda t: t.detach(), lambda t: t.view(-1)[:5]):
        preds, target = pictures(device)
        value = loss(preds, target)
        held = hold(stored(value))
        before = held.clone()
        value.backward()
        assert torch.equal(held, before)


def test_who_holds_the_storage_keeps_it(device: str, loss: Loss) -> None:
    """Only the storage's Python object is held. No tensor refers to the gradient except the node's."""
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    for scale in (1.0, 0.5):
        value = scale * loss(preds, target)
        held = stored(value).untyped_storage()
        before = held.clone()
        (gradient,) = torch.autograd.grad(value, preds)
        torch.testing.assert_close(gradient, scale * expected)
        assert bytes(held.cpu()) == bytes(before.cpu())


IMPORT_UNDER = {
    "saved-tensor hooks": "torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t)",
    "hooks that hold": "torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)",
    "saved on the CPU": "torch.autograd.graph.save_on_cpu()",
    "inference mode": "torch.inference_mode()",
    "no_grad": "torch.no_grad()",
    "a dispatch mode": "Mode()",
    "a function mode": "torch.overrides.BaseTorchFunctionMode()",
    "another default device": "torch.device('meta')",
    "forward mode": "torch.autograd.forward_ad.dual_level()",
}
MEASURED = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {{}}))

kept = []
with {mode}:
    from ssim_fused._core import donation
found = donation.held_by_node_only
assert found is not None, "nothing was measured"
assert found == donation._measure(), (found, donation._measure())

from ssim_fused import SSIMLoss
preds, target = torch.rand(1, 1, 20, 24, requires_grad=True), torch.rand(1, 1, 20, 24)
def stored(value):
    node = value.grad_fn
    while "Score" not in node.name():
        node = node.next_functions[0][0]
    return node.saved_tensors[-1]
for hold in (False, True):
    value = 0.5 * SSIMLoss()(preds, target)
    of_node = stored(value)
    address, held = of_node.data_ptr(), of_node if hold else None
    before = of_node.clone()
    del of_node
    (gradient,) = torch.autograd.grad(value, preds)
    assert (gradient.data_ptr() == address) == (not hold), hold
    assert held is None or torch.equal(held, before)
"""


@pytest.mark.parametrize("mode", IMPORT_UNDER)
def test_the_measurement_does_not_depend_on_what_the_import_is_under(mode: str) -> None:
    code = MEASURED.format(mode=IMPORT_UNDER[mode])
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.5])
def test_holders_of_the_memory_do_not_observe_the_scaling(device: str, loss: Loss, factor: float) -> None:
    for hold in (lambda t: t.detach(), lambda t: t.view(-1)[:5], lambda t: t.untyped_storage()):
        for _ in range(3):  # the third call uses the prepared path
            preds, target = pictures(device)
            value = factor * loss(preds, target)
            held = hold(stored(value))
            before = held.clone()
            value.backward()
            preds.grad.zero_()
            if isinstance(held, Tensor):
                assert torch.equal(held, before)
            else:
                assert held.tolist() == before.tolist()


def test_hooks_on_saved_tensors(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    packed: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        packed.append(tensor.detach())
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda i: packed[i]):
        value = loss(preds, target)
    before = [tensor.clone() for tensor in packed]
    value.backward()
    assert torch.equal(preds.grad, expected)
    assert all(map(torch.equal, packed, before))
    with torch.autograd.graph.save_on_cpu():
        value = loss(preds, target)
    assert torch.equal(torch.autograd.grad(value, preds)[0], expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(device: str, loss: Loss, use_reentrant: bool) -> None:
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    checkpoint(loss, preds, target, use_reentrant=use_reentrant).backward()
    assert torch.equal(preds.grad, expected)


def test_hooks_on_tensors_and_nodes(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    seen: list[Tensor] = []
    inner = preds * 1
    inner.register_hook(lambda gradient: seen.append(gradient))
    inner.retain_grad()
    preds.register_hook(lambda gradient: gradient * 2)
    preds.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.clone()))
    loss(inner, target).backward()
    assert torch.equal(seen[0], expected)
    assert torch.equal(inner.grad, expected)
    assert torch.equal(preds.grad, 2 * expected)


def test_both_images_and_the_same_one_twice(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    target.requires_grad_()
    expected = torch.autograd.grad(loss(preds, target), (preds, target), retain_graph=True)
    found = torch.autograd.grad(loss(preds, target), (preds, target))
    assert all(map(torch.equal, found, expected))
    loss(preds, target).backward(inputs=[target])
    assert torch.equal(target.grad, expected[1])
    assert preds.grad is None
    value = loss(preds, preds)
    assert torch.autograd.grad(value, preds)[0].abs().max() <= 1e-6


def test_gradients_accumulate(device: str, loss: Loss) -> None:
    preds, target = pictures(device)
    expected = kept(loss, preds, target)
    for times in (1, 2, 3):
        loss(preds, target).backward()
        torch.testing.assert_close(preds.grad, times * expected)


def test_double_backward_follows(device: str, loss: Loss) -> None:
    preds, target = pictures(device, 1, 1, 14, 15, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), preds, nondet_tol=1e-12)


def test_separate_threads(loss: Loss) -> None:
    preds, target = pictures("cpu")
    expected = kept(loss, preds, target)
    results: list[Any] = []

    def train() -> None:
        x = preds.detach().clone().requires_grad_()
        for _ in range(20):
            x.grad = None
            loss(x, target).backward()
            results.append(torch.equal(x.grad, expected))

    workers = [threading.Thread(target=train) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 80
    assert all(results)


def test_a_changed_image_raises_the_error_of_torch(device: str, loss: Loss) -> None:
    for function in (loss, torch.nn.functional.mse_loss):
        preds, target = pictures(device)
        value = function(preds, target)
        with torch.no_grad():
            target.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.parametrize("amount", [1e-3, 1e-4, 1e-5, 1e-6], ids=str)
@pytest.mark.parametrize("betas", [(), (0.4, 0.6)], ids=["image", "pyramid"])
def test_the_distance_has_digits_where_images_are_nearly_equal(
    device: str, betas: tuple[float, ...], amount: float
) -> None:
    """Compares with float64 on the same float32 pixels. A value rounded near 1 would be off by 1e-7 / distance.

    The coarse levels of a pyramid are rounded to float32, and their distance cannot be more accurate than that.
    """
    generator = torch.Generator().manual_seed(1)
    y, x = torch.linspace(0, 5, 64).view(-1, 1), torch.linspace(0, 7, 64)
    smooth = 0.5 + 0.2 * torch.sin(y) + 0.2 * torch.cos(x - y)
    rough = torch.rand(64, 64, generator=generator)
    for picture in (smooth, rough, torch.full((64, 64), 0.3)):
        target = picture.expand(1, 2, 64, 64)
        preds = target + amount * torch.randn(target.shape, generator=generator)
        score = Spec(Window((1.5,), (11,)), as_distance=True, betas=betas)
        found, exact = (
            evaluate(score, preds.to(device, dtype), target.to(device, dtype))[0].item()
            for dtype in (torch.float32, torch.float64)
        )
        assert abs(found / exact - 1) <= (1e-5 if not betas else max(1e-5, 5e-9 / amount))
