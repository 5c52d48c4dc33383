"""Train a small denoising network on photographs with a fused loss, L1 + SSIM.

For users who want to see `ssim_fused` at work in a training loop, and to copy from it. The network
learns to remove Gaussian noise from patches of the color photographs that scikit-image ships. The
script then times a training step with the fused loss and with the same loss made of torchmetrics'
SSIM, and writes a figure with a photograph that was not trained on.

    python examples/train_denoiser.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from skimage import data
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as reference_ssim
from tqdm import tqdm

import ssim_fused

NOISE = 25 / 255  # standard deviation; pixels lie in [0, 1]
SSIM_WEIGHT = 0.84  # of SSIM in the loss, as in Zhao et al. 2017; L1, which keeps the colors, has the rest
ZOOM = (slice(60, 160), slice(120, 270))  # rows, columns of the held-out photograph: an eye and fur

Loss = Callable[[Tensor, Tensor], Tensor]  # of preds and target
DrawBatch = Callable[[], tuple[Tensor, Tensor]]  # clean and noisy


class Denoiser(nn.Module):
    """Convolutions that predict the noise, which is then subtracted (DnCNN, Zhang et al. 2017).

    Args:
        channels: Feature maps between the convolutions.
        hidden: Convolutions between the first and the last one.

    """

    def __init__(self, channels: int = 24, hidden: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        for _ in range(hidden):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        last = nn.Conv2d(channels, 3, 3, padding=1)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        # Zeros in the last layer make the untrained network the identity, a safe place to start.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.noise = nn.Sequential(*layers, last)

    def forward(self, noisy: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, 3, H, W]
        return noisy - self.noise(noisy)


def load_photographs(device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Return the photographs to train on, and the held-out one, as [3, H, W] in [0, 1]."""

    def to_tensor(photograph: np.ndarray) -> Tensor:  # [H, W, 3] uint8
        pixels = torch.from_numpy(photograph).to(device)
        return pixels.permute(2, 0, 1).contiguous() / 255

    training = [data.astronaut(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0]]
    return [to_tensor(photograph) for photograph in training], to_tensor(data.chelsea())


def sample_patches(photographs: list[Tensor], batch: int, patch: int) -> Tensor:
    """Cut `batch` random patches, half of them mirrored: [batch, 3, patch, patch]."""
    patches = []
    for index in torch.randint(len(photographs), (batch,)).tolist():
        photograph = photographs[index]
        row = int(torch.randint(photograph.shape[1] - patch + 1, ()))
        column = int(torch.randint(photograph.shape[2] - patch + 1, ()))
        cut = photograph[:, row : row + patch, column : column + patch]
        patches.append(cut.flip(-1) if torch.rand(()) < 0.5 else cut)
    return torch.stack(patches)


def add_noise(clean: Tensor) -> Tensor:
    """Add white Gaussian noise; values may leave [0, 1], as is usual for this task."""
    return clean + NOISE * torch.randn_like(clean)


def psnr(preds: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, for pixels in [0, 1]."""
    return -10 * float(torch.log10((preds - target).square().mean()))


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer, the same for the training and for the timing."""
    return torch.optim.Adam(network.parameters(), lr=2e-3)


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    clean: Tensor,
    noisy: Tensor,
    loss_of: Loss,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the restored patches, detached."""
    restored = network(noisy)
    loss = loss_of(restored, clean)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), restored.detach()


def train(network: nn.Module, draw_batch: DrawBatch, steps: int, loss_of: Loss) -> list[float]:
    """Train `network` in place; return the loss of every step."""
    optimizer = make_optimizer(network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    with tqdm(range(steps), desc="training", unit="step") as progress:
        for step in progress:
            clean, noisy = draw_batch()
            loss, restored = training_step(network, optimizer, clean, noisy, loss_of)
            schedule.step()
            losses.append(loss)
            if step % 10 == 0:  # reading a number makes a GPU wait, so not at every step
                progress.set_postfix(loss=f"{loss:.3f}", psnr=f"{psnr(restored, clean):.1f} dB")
    return torch.stack(losses).tolist()


@dataclass
class StepTime:
    """Median milliseconds of a training step, and of its loss alone (forward and backward)."""

    name: str
    step: float
    loss: float


def reference_loss(preds: Tensor, target: Tensor) -> Tensor:
    """The loss that the fused one replaces: L1 of PyTorch and SSIM of torchmetrics."""
    ssim = reference_ssim(preds, target, data_range=1.0)
    return (1 - SSIM_WEIGHT) * nn.functional.l1_loss(preds, target) + SSIM_WEIGHT * (1 - ssim)


def measure_steps(
    network: nn.Module, clean: Tensor, noisy: Tensor, losses: dict[str, Loss], warm_up: int = 3, rounds: int = 15
) -> list[StepTime]:
    """Time training steps on one batch with each loss.

    The rounds alternate between the losses, so that a change of the machine's load reaches all alike.
    """
    network = copy.deepcopy(network)  # the trained weights stay as they are
    optimizer = make_optimizer(network)
    with torch.no_grad():
        preds = network(noisy)
    preds.requires_grad_()

    def milliseconds(work: Callable[..., object], *arguments: object) -> float:
        if clean.is_cuda:
            torch.cuda.synchronize(clean.device)
        start = time.perf_counter()
        work(*arguments)
        if clean.is_cuda:
            torch.cuda.synchronize(clean.device)
        return 1e3 * (time.perf_counter() - start)

    def loss_alone(loss_of: Loss) -> None:
        preds.grad = None
        loss_of(preds, clean).backward()

    steps: dict[str, list[float]] = {name: [] for name in losses}
    alone: dict[str, list[float]] = {name: [] for name in losses}
    for _ in tqdm(range(warm_up + rounds), desc="timing  ", unit="round"):
        for name, loss_of in losses.items():
            steps[name].append(milliseconds(training_step, network, optimizer, clean, noisy, loss_of))
            alone[name].append(milliseconds(loss_alone, loss_of))
    return [
        StepTime(name, statistics.median(steps[name][warm_up:]), statistics.median(alone[name][warm_up:]))
        for name in losses
    ]


def print_times(times: list[StepTime], batch: Tensor) -> None:
    """Print the table of step times; speed-ups are against its first row."""
    where = f"{torch.get_num_threads()} threads"
    if batch.is_cuda:
        where = torch.cuda.get_device_name(batch.device)
    shape = "x".join(map(str, batch.shape))
    print(f"\nOne training step on {shape} {batch.dtype} ({where}), medians of alternating rounds:\n")
    print(f"{'loss by':20}{'step':>11}{'loss alone':>13}{'loss share':>13}", end="")
    print(f"{'step speed-up':>16}{'loss speed-up':>16}")
    reference = times[0]
    for t in times:
        print(
            f"{t.name:20}{t.step:>8.1f} ms{t.loss:>10.2f} ms{t.loss / t.step:>13.1%}"
            f"{reference.step / t.step:>15.2f}x{reference.loss / t.loss:>15.1f}x"
        )


@dataclass
class Restoration:
    """The held-out photograph before and after: pictures [3, H, W] on the CPU, and their scores."""

    clean: Tensor
    noisy: Tensor
    restored: Tensor
    ssim_map: Tensor  # [H, W], mean over the colors
    ssim_noisy: float
    ssim_restored: float
    psnr_noisy: float
    psnr_restored: float

    @property
    def improved(self) -> bool:
        """Whether the network raised both scores."""
        return self.ssim_restored > self.ssim_noisy and self.psnr_restored > self.psnr_noisy


@torch.no_grad()
def restore(network: Denoiser, photograph: Tensor) -> Restoration:
    """Add noise to a photograph [3, H, W], remove it with the network, score both pictures."""
    clean = photograph[None]
    noisy = add_noise(clean)
    restored = network(noisy).clamp(0, 1)
    before = ssim_fused.structural_similarity_index_measure(noisy, clean, data_range=1.0)
    after, ssim_map = ssim_fused.structural_similarity_index_measure(
        restored, clean, data_range=1.0, return_full_image=True
    )
    return Restoration(
        clean=clean[0].cpu(),
        noisy=noisy[0].cpu(),
        restored=restored[0].cpu(),
        ssim_map=ssim_map[0].mean(0).cpu(),
        ssim_noisy=float(before),
        ssim_restored=float(after),
        psnr_noisy=psnr(noisy, clean),
        psnr_restored=psnr(restored, clean),
    )


def draw_pictures(figure: SubFigure, result: Restoration) -> None:
    """Show the photograph clean, noisy and restored, and the SSIM map; a zoom below each."""
    scores = "SSIM {:.3f}, PSNR {:.1f} dB"
    panels = {
        "Clean (not trained on)\n": result.clean,
        f"Noisy, standard deviation {255 * NOISE:.0f}/255\n"
        + scores.format(result.ssim_noisy, result.psnr_noisy): result.noisy,
        "Restored\n" + scores.format(result.ssim_restored, result.psnr_restored): result.restored,
        f"SSIM map, restored against clean\nmean {result.ssim_restored:.3f}": result.ssim_map,
    }
    rows, columns = ZOOM
    axes = figure.subplots(2, len(panels))
    for (whole, zoom), (title, picture) in zip(axes.T, panels.items(), strict=True):
        for panel, shown in [(whole, picture), (zoom, picture[..., rows, columns])]:
            if shown.ndim == 2:
                ssim_map = panel.imshow(shown, cmap="magma", vmin=0, vmax=1)
            else:
                panel.imshow(shown.permute(1, 2, 0).clamp(0, 1))
            panel.set_axis_off()
        whole.set_title(title, fontsize=11)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        whole.add_patch(Rectangle((columns.start, rows.start), *size, fill=False, color="white", linewidth=1.2))
    figure.colorbar(ssim_map, ax=axes, label="SSIM", fraction=0.02, pad=0.01)


def draw_losses(axes: Axes, losses: list[float], label: str) -> None:
    """Plot the loss of every step, and its moving average; `label` is the formula of the loss."""
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    centers = np.arange(len(smooth)) + (window + 1) / 2
    axes.plot(range(1, len(losses) + 1), losses, color="#9ecae1", linewidth=0.8, label="batch")
    axes.plot(centers, smooth, color="#08519c", label=f"moving average, {window} batches")
    axes.set(xlabel="training step", ylabel=label, xlim=(0, len(losses)), ylim=(0, None))
    axes.set_title("Training loss", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")


def draw_times(axes: Axes, times: list[StepTime]) -> None:
    """Plot the milliseconds of a training step with each loss, and the fraction due to the loss."""
    labels = [t.name for t in times]
    rest = [max(0.0, t.step - t.loss) for t in times]
    axes.barh(labels, rest, height=0.5, color="#bdbdbd", label="other")
    axes.barh(labels, [t.loss for t in times], left=rest, height=0.5, color="#08519c", label="loss")
    for i, t in enumerate(times):
        axes.text(t.step, i, f"  {t.step:.0f} ms, loss {t.loss / t.step:.0%}", va="center")
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds", xlim=(0, 1.5 * max(t.step for t in times)))
    axes.set_title("One training step", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def draw_progress(figure: SubFigure, losses: list[float], times: list[StepTime], label: str) -> None:
    """Plot the losses and the step times side by side."""
    left, right = figure.subplots(1, 2)
    draw_losses(left, losses, label)
    draw_times(right, times)


def draw(result: Restoration, losses: list[float], times: list[StepTime], path: Path) -> None:
    """Write the figure."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    pictures, plots = figure.subfigures(2, 1, height_ratios=[1.85, 1])
    draw_pictures(pictures, result)
    draw_progress(plots, losses, times, f"{1 - SSIM_WEIGHT:.2f} L1 + {SSIM_WEIGHT} (1 - SSIM)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def positive(text: str) -> int:
    """Parse a command line argument that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def add_common_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Add the options of device, seed and figure."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, ...; auto uses a GPU if ssim_fused was built for it"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, patches and noise")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent / "output" / output,
        help="where the figure goes",
    )


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or for `auto` the best that ssim_fused was built for."""
    if name == "auto":
        has_kernel = torch.cuda.is_available() and ssim_fused.build_info()["cuda"]
        name = "cuda" if has_kernel else "cpu"
    return torch.device(name)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Exits with 1 if the network did not raise the held-out photograph's SSIM and PSNR.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=500, help="training steps")
    parser.add_argument("--batch", type=positive, default=32, help="patches per step")
    parser.add_argument("--patch", type=positive, default=64, help="side of a patch, in pixels")
    add_common_arguments(parser, "denoising.png")
    return parser.parse_args()


def main() -> None:
    """Train, time, restore, draw; exit with 1 if nothing was learned."""
    arguments = parse_arguments()
    device = choose_device(arguments.device)
    torch.manual_seed(arguments.seed)
    photographs, held_out = load_photographs(device)
    largest = min(min(photograph.shape[1:]) for photograph in photographs)
    if arguments.patch > largest:
        sys.exit(f"--patch must be at most {largest}, the photographs' shortest side, got {arguments.patch}")
    # Channels last halves the time of the convolutions on a CPU; the images stay contiguous.
    network = Denoiser().to(device, memory_format=torch.channels_last)

    def draw_batch() -> tuple[Tensor, Tensor]:
        clean = sample_patches(photographs, arguments.batch, arguments.patch)
        return clean, add_noise(clean)

    loss_of = ssim_fused.L1SSIMLoss(ssim_weight=SSIM_WEIGHT)
    losses = train(network, draw_batch, arguments.steps, loss_of)
    clean, noisy = draw_batch()
    compared: dict[str, Loss] = {f"torchmetrics {torchmetrics.__version__}": reference_loss, "ssim_fused": loss_of}
    times = measure_steps(network, clean, noisy, compared)
    result = restore(network, held_out)

    print_times(times, clean)
    print(f"\nHeld-out photograph   {'SSIM':>6}   {'PSNR':>8}")
    print(f"noisy                 {result.ssim_noisy:>6.3f}   {result.psnr_noisy:>5.2f} dB")
    print(f"restored              {result.ssim_restored:>6.3f}   {result.psnr_restored:>5.2f} dB")
    draw(result, losses, times, arguments.output)
    print(f"\nFigure: {arguments.output}")
    if not result.improved:
        sys.exit("Training failed: the restored photograph is no better than the noisy one.")


if __name__ == "__main__":
    main()
