"""Train a small 3-D network to remove noise from an MR volume of a brain, with a fused SSIM loss over voxels.

For users of volumes: the loss sees across slices, and MS-SSIM scores the result. The volume is the template of the
Montreal Neurological Institute that nilearn ships, the average of 152 T1-weighted MR scans (197 x 233 x 189 voxels of
1 mm). The network learns on its back half and is scored on its front half. (The template is mirror symmetric, so its
left half would not be new to a network that has seen the right one.)

    python examples/train_volume_denoiser.py
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import torch
import torchmetrics
from matplotlib.figure import Figure, SubFigure
from nilearn.datasets import load_mni152_template
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as reference_ssim
from train_denoiser import (
    Loss,
    add_common_arguments,
    choose_device,
    draw_progress,
    measure_steps,
    positive,
    print_times,
    psnr,
    train,
)

import ssim_fused

NOISE = 0.1  # standard deviation of either channel of the receiver; voxels lie in [0, 1]
FRONT = 117  # the first coronal slice of the held-out half
CORONAL, AXIAL = 25, 110  # its slices to show


class VolumeDenoiser(nn.Module):
    """Convolutions that predict the noise, which is then subtracted (DnCNN, Zhang et al. 2017, in three dimensions).

    Args:
        channels: Feature maps between the convolutions.
        hidden: Convolutions between the first and the last one.

    """

    def __init__(self, channels: int = 16, hidden: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv3d(1, channels, 3, padding=1), nn.ReLU()]
        for _ in range(hidden):
            layers += [nn.Conv3d(channels, channels, 3, padding=1), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv3d(channels, 1, 3, padding=1))

    def forward(self, noisy: Tensor) -> Tensor:  # [B, 1, D, H, W] -> [B, 1, D, H, W]
        return noisy - self.noise(noisy)


def load_halves(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the brain's back and front half as [D, H, W] in [0, 1]: slices run from back to front, rows down."""
    template = torch.from_numpy(load_mni152_template(resolution=1).get_fdata(dtype="float32"))
    slices = template.permute(1, 2, 0).flip(1).contiguous().to(device)  # from right, front, up
    return slices[:FRONT], slices[FRONT:]


def sample_patches(volume: Tensor, batch: int, patch: int) -> Tensor:
    """Cut `batch` random cubes around voxels of the brain, half of them mirrored: [batch, 1, patch, patch, patch]."""
    inner = [slice(patch // 2, n - patch + patch // 2 + 1) for n in volume.shape]
    middles = (volume[tuple(inner)] > 0).nonzero()  # a cube that starts here has its middle in the brain
    cubes = []
    for corner in middles[torch.randint(len(middles), (batch,))].tolist():
        cube = volume[tuple(slice(start, start + patch) for start in corner)]
        cubes.append(cube.flip(-1) if torch.rand(()) < 0.5 else cube)
    return torch.stack(cubes)[:, None]


def add_noise(clean: Tensor) -> Tensor:
    """Return the magnitude of a complex signal with white Gaussian noise, as of an MR receiver (Rician noise)."""
    return torch.hypot(clean + NOISE * torch.randn_like(clean), NOISE * torch.randn_like(clean))


@dataclass
class Scores:
    """A volume against the clean one."""

    ssim: float
    ssim_brain: float  # the mean over the voxels of the brain, without the air around it
    ms_ssim: float
    psnr: float
    ssim_map: Tensor  # [D, H, W]


@torch.no_grad()
def score(volume: Tensor, clean: Tensor) -> Scores:
    """Compare two volumes [1, 1, D, H, W]."""
    ssim, ssim_map = ssim_fused.structural_similarity_index_measure(
        volume, clean, data_range=1.0, return_full_image=True
    )
    ms_ssim = ssim_fused.multiscale_structural_similarity_index_measure(volume, clean, data_range=1.0)
    return Scores(float(ssim), float(ssim_map[clean > 0].mean()), float(ms_ssim), psnr(volume, clean), ssim_map[0, 0])


def print_scores(noisy: Scores, restored: Scores) -> None:
    """Print the table of both volumes' scores."""
    print(f"\n{'Held-out half':16}{'SSIM':>8}{'in the brain':>15}{'MS-SSIM':>10}{'PSNR':>12}")
    for name, found in (("noisy", noisy), ("restored", restored)):
        print(f"{name:16}{found.ssim:>8.3f}{found.ssim_brain:>15.3f}{found.ms_ssim:>10.3f}{found.psnr:>9.2f} dB")


def draw_slices(figure: SubFigure, volumes: dict[str, Tensor]) -> None:
    """Show a coronal and an axial slice of volumes [D, H, W]; the last one is the SSIM map."""
    axes = figure.subplots(2, len(volumes), height_ratios=[189, 116])
    for column, (title, volume) in zip(axes.T, volumes.items(), strict=True):
        is_map = title.startswith("SSIM")
        colors = {"cmap": "magma" if is_map else "gray", "vmin": 0, "vmax": 1}
        # The axial slice is seen from above, with the forehead up.
        for panel, picture in zip(column, (volume[CORONAL], volume[:, AXIAL].flip(0)), strict=True):
            shown = panel.imshow(picture.cpu(), **colors)
            panel.set_axis_off()
        column[0].set_title(title, fontsize=11)
    figure.colorbar(shown, ax=axes, label="SSIM", fraction=0.02, pad=0.01)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Exits with 1 if the network did not raise the held-out half's scores.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=400, help="training steps")
    parser.add_argument("--batch", type=positive, default=4, help="cubes per step")
    parser.add_argument("--patch", type=positive, default=32, help="side of a cube, in voxels")
    add_common_arguments(parser, "volume.png")
    arguments = parser.parse_args()
    if not 6 <= arguments.patch <= FRONT:
        parser.error(f"--patch must be at least 6, for the window's padding, and at most {FRONT}, the slices' number")
    return arguments


def main() -> None:
    """Train, time, restore, score, draw; exit with 1 if nothing was learned."""
    arguments = parse_arguments()
    device = choose_device(arguments.device)
    torch.manual_seed(arguments.seed)
    back, front = load_halves(device)
    network = VolumeDenoiser().to(device)

    def draw_batch() -> tuple[Tensor, Tensor]:
        clean = sample_patches(back, arguments.batch, arguments.patch)
        return clean, add_noise(clean)

    loss_of = ssim_fused.SSIMLoss()
    losses = train(network, draw_batch, arguments.steps, loss_of)
    compared: dict[str, Loss] = {
        f"torchmetrics {torchmetrics.__version__}": lambda x, y: 1 - reference_ssim(x, y, data_range=1.0),
        "ssim_fused": loss_of,
    }
    # Only a few rounds, because a step with torchmetrics' loss takes seconds.
    times = measure_steps(network, *draw_batch(), compared, warm_up=1, rounds=5)
    clean = front[None, None]
    noisy = add_noise(clean)
    with torch.no_grad():
        restored = network(noisy).clamp(0, 1)
    before, after = score(noisy, clean), score(restored, clean)

    print_times(times, clean.new_empty(arguments.batch, 1, *3 * (arguments.patch,)))
    print_scores(before, after)

    figure = Figure(figsize=(13, 8.6), layout="constrained")
    slices, plots = figure.subfigures(2, 1, height_ratios=[2.1, 1])
    caption = "SSIM {0.ssim_brain:.3f} in the brain\nMS-SSIM {0.ms_ssim:.3f}"
    volumes = {
        "Clean (not trained on)\n\n": clean,
        f"Noisy, standard deviation {NOISE:g}\n{caption.format(before)}": noisy,
        f"Restored\n{caption.format(after)}": restored,
    }
    draw_slices(
        slices,
        {title: volume[0, 0] for title, volume in volumes.items()}
        | {"SSIM map\nrestored against clean\n": after.ssim_map},
    )
    draw_progress(plots, losses, times, "1 - SSIM")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=150)
    print(f"\nFigure: {arguments.output}")
    if not (after.ssim_brain > before.ssim_brain and after.ms_ssim > before.ms_ssim and after.psnr > before.psnr):
        sys.exit("Training failed: the restored half is no better than the noisy one.")


if __name__ == "__main__":
    main()
