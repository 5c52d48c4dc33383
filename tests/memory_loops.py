"""Runs a loop of calls in a separate process, for test_memory.py, and prints by how many bytes resident memory grew.

The loop runs STEPS calls twice and prints the smaller growth of the two halves, because a leak grows in both.

    python memory_loops.py LOOP STEPS B C [D] H W
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused.losses import L1SSIMLoss, SSIMLoss

Step = Callable[[Tensor, Tensor], None]


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pyramid(preds: Tensor, target: Tensor, **arguments: Any) -> Tensor:
    if min(preds.shape[2:]) < 176:
        arguments |= {"betas": (0.5, 0.5)} if min(preds.shape[-2:]) >= 22 else {"betas": (0.5, 0.5), "kernel_size": 3}
    return msssim(preds, target, **arguments)


def value(function: Callable[..., Tensor], **arguments: Any) -> Step:
    def step(preds: Tensor, target: Tensor) -> None:
        with torch.no_grad():
            function(preds, target, **arguments)

    return step


def backward(function: Callable[..., Any], **arguments: Any) -> Step:
    def step(preds: Tensor, target: Tensor) -> None:
        outputs = function(preds, target, **arguments)
        preds.grad = None
        sum(output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()

    return step


def double_backward(function: Callable[..., Tensor]) -> Step:
    def step(preds: Tensor, target: Tensor) -> None:
        (gradient,) = torch.autograd.grad(function(preds, target, data_range=1.0), preds, create_graph=True)
        preds.grad = None
        gradient.square().sum().backward()

    return step


def mapped(preds: Tensor, target: Tensor) -> None:
    torch.func.vmap(torch.func.grad(lambda x, y: ssim(x, y, data_range=1.0)))(preds.detach()[None], target[None])


def errors(preds: Tensor, target: Tensor) -> None:
    """Calls that Python, an operator or a device refuses, and a graph that is dropped without a backward."""
    wrong: list[dict[str, Any]] = [
        {"sigma": -1.0},
        {"kernel_size": 4},
        {"data_range": "1"},
        {"sigma": 1e6},
        {"k1": "a"},
    ]
    for function in (ssim, pyramid):
        for arguments in wrong:
            with contextlib.suppress(ValueError, TypeError, RuntimeError):
                function(preds, target, **({"data_range": 1.0} | arguments))
        with contextlib.suppress(RuntimeError):
            function(preds, target.to("meta"), data_range=1.0)
        function(preds, target, data_range=1.0)
    loss = ssim(preds, target, data_range=1.0)
    loss.backward()
    with contextlib.suppress(RuntimeError):
        loss.backward()


def under_autocast(preds: Tensor, target: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ssim(preds.bfloat16(), target, data_range=1.0)
    preds.grad = None
    loss.backward()


def in_bytes(preds: Tensor, target: Tensor) -> None:
    images = [(255 * image.detach()).to(torch.uint8) for image in (preds, target)]
    ssim(*images)
    pyramid(*images)


def other_sizes(preds: Tensor, target: Tensor) -> None:
    """A new image size at every step, as in training without crops."""
    height, width = (int(torch.randint(n // 2 + 6, n + 1, ())) for n in preds.shape[-2:])
    backward(ssim, data_range=1.0)(preds, target)
    for function in (ssim, pyramid):
        part = preds.detach()[..., :height, :width].requires_grad_()
        backward(function, data_range=1.0)(part, target[..., :height, :width])


def compiled() -> Step:
    loss = torch.compile(lambda x, y: 1 - ssim(x, y, data_range=1.0), fullgraph=True)
    levels = torch.compile(lambda x, y: 1 - pyramid(x, y, data_range=1.0), fullgraph=True)

    def step(preds: Tensor, target: Tensor) -> None:
        for function in (loss, levels):
            preds.grad = None
            function(preds, target).backward()

    return step


def in_a_thread(preds: Tensor, target: Tensor) -> None:
    """A thread that ends frees what it cached, and so do its worker threads."""
    thread = threading.Thread(target=backward(ssim, data_range=1.0), args=(preds, target))
    thread.start()
    thread.join()


def in_a_child(preds: Tensor, target: Tensor) -> None:
    """A forked child inherits the parent's memory, but not OpenMP's threads, so it continues with one thread."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        expected = ssim(preds, target, data_range=1.0)
        before = resident()
        for _ in range(50):
            backward(ssim, data_range=1.0)(preds, target)
        same = torch.equal(ssim(preds, target, data_range=1.0), expected)
        os._exit(0 if same and resident() - before < 32 << 20 else 1)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the child crashed, grew, or got another result")


LOOPS: dict[str, Callable[[], Step]] = {
    "ssim value": lambda: value(ssim, data_range=1.0),
    "ssim step": lambda: backward(ssim, data_range=1.0),
    "ms-ssim value": lambda: value(pyramid, data_range=1.0),
    "ms-ssim step": lambda: backward(pyramid, data_range=1.0),
    "range step": lambda: backward(ssim),
    "ms-ssim range step": lambda: backward(pyramid),
    "map step": lambda: backward(ssim, data_range=1.0, return_full_image=True),
    "contrast step": lambda: backward(ssim, data_range=1.0, return_contrast_sensitivity=True),
    "double backward": lambda: double_backward(ssim),
    "ms-ssim double backward": lambda: double_backward(pyramid),
    "mapped": lambda: mapped,
    "autocast": lambda: under_autocast,
    "loss step": lambda: backward(SSIMLoss()),
    "l1 loss step": lambda: backward(L1SSIMLoss(0.8)),
    "bytes": lambda: in_bytes,
    "errors": lambda: errors,
    "other sizes": lambda: other_sizes,
    "compiled": compiled,
    "threads": lambda: in_a_thread,
    "fork": lambda: in_a_child,
}


def main() -> None:
    names, steps, *shape = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(2)
    target = torch.rand(shape)
    preds = torch.rand(shape).requires_grad_()
    for name in names.split(","):
        step = LOOPS[name]()
        for _ in range(min(steps, 100)):  # until PyTorch and the heap have filled their caches
            step(preds, target)
        grown = []
        for _ in range(2):
            before = resident()
            for _ in range(steps):
                step(preds, target)
            grown.append(resident() - before)
        print(min(grown), name, flush=True)


if __name__ == "__main__":
    main()
