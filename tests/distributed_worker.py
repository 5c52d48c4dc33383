"""One process of test_distributed.py: computes a network's gradients with every way of distributing it.

    torchrun --nproc-per-node N distributed_worker.py DEVICE PATH

Writes to PATH, for each way and loss, the distributed gradients and those of one process with the whole batch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ssim_fused import L1SSIMLoss, PixelSSIMLoss
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "ssim": lambda x, y: 1 - ssim(x, y, data_range=1.0),
    "map": lambda x, y: 1 - ssim(x, y, data_range=1.0, return_full_image=True)[1].mean(),
    "ms-ssim": lambda x, y: 1 - msssim(x, y, data_range=1.0, betas=(0.4, 0.6), kernel_size=7),
    "l1+ssim": L1SSIMLoss(),
    "l2+ms-ssim": PixelSSIMLoss("l2", multiscale=True, betas=(0.4, 0.6), kernel_size=7),
}
EACH = 2  # images per process
PARTS = 2  # steps of gradient accumulation


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, noisy: Tensor) -> Tensor:
        return noisy + 0.1 * self.layers(noisy)


def network(device: torch.device) -> Residual:
    torch.manual_seed(0)
    return Residual().to(device, torch.float64)


def images(device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(count, 3, 28, 30, generator=generator, dtype=torch.float64)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return noisy.to(device), clean.to(device)


def sharded(device: torch.device) -> nn.Module:
    whole = network(device)
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in whole.layers:
        if isinstance(layer, nn.Conv2d):
            fully_shard(layer, mesh=mesh)
    return fully_shard(whole, mesh=mesh)


def copied(device: torch.device, **arguments: bool) -> nn.Module:
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network(device), device_ids=ids, **arguments)


def at_once(model: nn.Module, loss: Loss, noisy: Tensor, clean: Tensor) -> None:
    loss(model(noisy), clean).backward()


def checkpointed(model: nn.Module, loss: Loss, noisy: Tensor, clean: Tensor) -> None:
    checkpoint(lambda x: loss(model(x), clean), noisy, use_reentrant=False).backward()


def accumulated(model: nn.Module, loss: Loss, noisy: Tensor, clean: Tensor) -> None:
    """Exchanges gradients only with the last part."""
    parts = list(zip(noisy.chunk(PARTS), clean.chunk(PARTS), strict=True))
    for i, (x, y) in enumerate(parts):
        is_last = i == PARTS - 1
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
        waits = isinstance(model, DistributedDataParallel) and not is_last
        with model.no_sync() if waits else contextlib.nullcontext():
            (loss(model(x), y) / PARTS).backward()


def compiled(model: nn.Module, loss: Loss, noisy: Tensor, clean: Tensor) -> None:
    torch.compile(loss, fullgraph=True, backend="aot_eager")(model(noisy), clean).backward()


WAYS = {
    "DDP": (copied, at_once),
    "DDP, no_sync": (copied, accumulated),
    "DDP, static graph": (partial(copied, static_graph=True), at_once),
    "DDP, compiled loss": (copied, compiled),
    "DDP, checkpointed": (copied, checkpointed),
    "FSDP2": (sharded, at_once),
    "FSDP2, accumulated": (sharded, accumulated),
}


def gradients(model: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    return [(g.full_tensor() if isinstance(g, DTensor) else g).cpu() for g in found]


def main() -> None:
    kind, path = sys.argv[1:]
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    noisy, clean = images(device, EACH * size)
    own = slice(EACH * rank, EACH * (rank + 1))
    results = {}
    for name, loss in LOSSES.items():
        alone = network(device)
        at_once(alone, loss, noisy, clean)
        for way, (distribute, backward) in WAYS.items():
            model = distribute(device)
            backward(model, loss, noisy[own], clean[own])
            results[f"{way}, {name}"] = gradients(model), gradients(alone)
    if rank == 0:
        torch.save(results, path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
