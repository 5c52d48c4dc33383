"""Train the denoiser of `train_denoiser.py` with several processes: DDP or FSDP2, gradients accumulated.

For users whose training is distributed. Every process draws its own patches. The loss needs no change, because it is a
mean over images: the mean of the processes' gradients is that of the whole batch. The script checks this against one
process at the end. NCCL connects GPUs, one per process; gloo connects processes on the CPU.

    torchrun --nproc-per-node 2 examples/train_ddp.py
    torchrun --nproc-per-node 2 examples/train_ddp.py --fsdp
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from train_denoiser import (
    SSIM_WEIGHT,
    Denoiser,
    DrawBatch,
    Restoration,
    add_common_arguments,
    add_noise,
    draw_losses,
    draw_pictures,
    load_photographs,
    make_optimizer,
    positive,
    restore,
    sample_patches,
)

import ssim_fused

LOSS_OF = ssim_fused.L1SSIMLoss(ssim_weight=SSIM_WEIGHT)


def start(device: str) -> torch.device:
    """Join the other processes; return this one's device."""
    if "LOCAL_RANK" not in os.environ:
        sys.exit("Start this script by torchrun: torchrun --nproc-per-node 2 examples/train_ddp.py")
    local = int(os.environ["LOCAL_RANK"])
    if device == "auto":
        has_kernel = torch.cuda.is_available() and ssim_fused.build_info()["cuda"]
        enough = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
        device = "cuda" if has_kernel and enough else "cpu"
    if device == "cuda":
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", device_id=torch.device("cuda", local))
        return torch.device("cuda", local)
    dist.init_process_group("gloo")
    return torch.device(device)


def distribute(network: Denoiser, device: torch.device, shard: bool) -> nn.Module:
    """Wrap the network: each process has a copy of it (DDP), or a part of every layer (FSDP2)."""
    if not shard:
        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    return fully_shard(network, mesh=mesh)


def backward(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Accumulate the gradient of the batches' mean loss, exchanged with the last batch; return that loss."""
    losses = []
    for i, (clean, noisy) in enumerate(batches):
        is_last = i == len(batches) - 1
        exchange = contextlib.nullcontext()
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(is_last)
        elif isinstance(network, DistributedDataParallel) and not is_last:
            exchange = network.no_sync()
        with exchange:
            loss = LOSS_OF(network(noisy), clean)
            (loss / len(batches)).backward()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of all processes' values."""
    dist.all_reduce(value)
    return value / dist.get_world_size()


def train(network: nn.Module, draw_batch: DrawBatch, steps: int, accumulate: int) -> list[float]:
    """Train `network` in place; return the loss of every step, over all processes."""
    optimizer = make_optimizer(network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in tqdm(range(steps), desc="training", unit="step", disable=dist.get_rank() > 0):
        optimizer.zero_grad()
        loss = backward(network, [draw_batch() for _ in range(accumulate)])
        optimizer.step()
        schedule.step()
        losses.append(mean_over_processes(loss))
    return torch.stack(losses).tolist()


def whole(tensor: Tensor) -> Tensor:
    """Return a whole tensor, of which a process may hold a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """Return the concatenated tensors of all processes."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def difference_to_one_process(network: nn.Module, draw_batch: DrawBatch, accumulate: int) -> float:
    """Compare a step's gradient with that of one process with the whole batch, relative to its largest element."""
    network.zero_grad()
    batches = [draw_batch() for _ in range(accumulate)]
    backward(network, batches)
    alone = Denoiser().to(batches[0][0].device)
    for parameter, distributed in zip(alone.parameters(), network.parameters(), strict=True):
        parameter.data = whole(distributed.detach()).clone()
    clean, noisy = (gathered(torch.cat(images)) for images in zip(*batches, strict=True))
    backward(alone, [(clean, noisy)])
    worst = 0.0
    for mine, distributed in zip(alone.parameters(), network.parameters(), strict=True):
        error = (whole(distributed.grad) - mine.grad).abs().max() / mine.grad.abs().max()
        worst = max(worst, float(error))
    return worst


def draw(result: Restoration, losses: list[float], path: Path) -> None:
    """Write the figure."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    pictures, plot = figure.subfigures(2, 1, height_ratios=[1.85, 1])
    draw_pictures(pictures, result)
    draw_losses(plot.subplots(), losses, f"{1 - SSIM_WEIGHT:.2f} L1 + {SSIM_WEIGHT} (1 - SSIM)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Exits with 1 if the network did not raise the held-out photograph's SSIM and PSNR, or if the "
        "processes' gradient is not that of one process with the whole batch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=200, help="training steps")
    parser.add_argument("--batch", type=positive, default=8, help="patches of a process at a time")
    parser.add_argument("--accumulate", type=positive, default=2, help="batches that are accumulated in a step")
    parser.add_argument("--patch", type=positive, default=64, help="side of a patch, in pixels")
    parser.add_argument("--fsdp", action="store_true", help="shard the network (FSDP2) instead of copying it (DDP)")
    add_common_arguments(parser, "distributed.png")
    return parser.parse_args()


def main() -> None:
    """Train, compare, restore, draw; exit with 1 if nothing was learned or the gradients differ."""
    arguments = parse_arguments()
    device = start(arguments.device)
    torch.manual_seed(arguments.seed)  # the same weights in every process
    photographs, held_out = load_photographs(device)
    network = distribute(Denoiser().to(device), device, arguments.fsdp)
    torch.manual_seed(arguments.seed + dist.get_rank())  # different patches

    def draw_batch() -> tuple[Tensor, Tensor]:
        clean = sample_patches(photographs, arguments.batch, arguments.patch)
        return clean, add_noise(clean)

    losses = train(network, draw_batch, arguments.steps, arguments.accumulate)
    difference = difference_to_one_process(network, draw_batch, arguments.accumulate)
    torch.manual_seed(arguments.seed)  # with a sharded network, all processes have to go forward
    result = restore(network, held_out)

    if dist.get_rank() == 0:
        kind = "FSDP2" if arguments.fsdp else "DDP"
        print(f"\n{kind}, {dist.get_world_size()} processes on {device.type}, {dist.get_backend()}")
        print(f"loss                  {losses[0]:>6.3f} in the first step, {losses[-1]:.3f} in the last")
        print(f"gradient              {difference:.1e} off that of one process with the whole batch")
        print(f"\nHeld-out photograph   {'SSIM':>6}   {'PSNR':>8}")
        print(f"noisy                 {result.ssim_noisy:>6.3f}   {result.psnr_noisy:>5.2f} dB")
        print(f"restored              {result.ssim_restored:>6.3f}   {result.psnr_restored:>5.2f} dB")
        draw(result, losses, arguments.output)
        print(f"\nFigure: {arguments.output}")
    dist.destroy_process_group()
    if not result.improved:
        sys.exit("Training failed: the restored photograph is no better than the noisy one.")
    if not difference < 1e-3:  # float32 sums of different parts in a different order
        sys.exit("The processes' gradient is not that of one process with the whole batch.")


if __name__ == "__main__":
    main()
