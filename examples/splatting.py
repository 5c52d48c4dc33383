"""Fit 2-D Gaussians to a photograph with the loss of Gaussian splatting, L1 + SSIM.

For users who want to see the loss of `ssim_fused` drive a renderer, and to copy from it. The renderer is
differentiable, two-dimensional, plain PyTorch. Each Gaussian has a position, two widths, an angle, a color and an
opacity, and they are blended front to back in a fixed order, as in Kerbl et al. (2023). Each tile of the image
considers only the Gaussians near it, which makes the renderer fast enough for a CPU.

    python examples/splatting.py
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor, nn
from tqdm import tqdm

import ssim_fused

TILE = 16  # pixels a side
NEAREST = 96  # Gaussians that a tile considers; the others are too far away to be visible in it


class Splats(nn.Module):
    """Gaussians that :meth:`forward` renders into an image of the photograph's size.

    Args:
        photograph: `[3, H, W]` in [0, 1], sides a multiple of 16. The Gaussians start with its colors.
        count: Number of Gaussians.

    """

    def __init__(self, photograph: Tensor, count: int) -> None:
        super().__init__()
        _, self.height, self.width = photograph.shape
        rows, columns = torch.rand(count) * self.height, torch.rand(count) * self.width
        colours = photograph[:, rows.long(), columns.long()].T
        width = math.sqrt(self.height * self.width / count) / 2
        self.places = nn.Parameter(torch.stack([rows, columns], dim=1))  # [N, 2], pixels
        self.log_widths = nn.Parameter(torch.full((count, 2), math.log(width)))  # standard deviations
        self.angles = nn.Parameter(torch.rand(count) * math.pi)
        self.colours = nn.Parameter(torch.logit(colours.clamp(0.02, 0.98)))
        self.opacities = nn.Parameter(torch.full((count,), 0.5))

    def forward(self) -> Tensor:  # [1, 3, H, W]
        rows, columns = self.height // TILE, self.width // TILE
        offsets = torch.arange(TILE) + 0.5
        pixels = torch.cartesian_prod(offsets, offsets)  # [P, 2], of a tile
        corners = TILE * torch.cartesian_prod(torch.arange(rows), torch.arange(columns))  # [T, 2]
        nearest = self.nearest(corners + TILE / 2)  # [T, K]
        shifts = (corners[:, None] + pixels)[:, :, None] - self.places[nearest][:, None]  # [T, P, K, 2]
        cos, sin = self.angles[nearest].cos()[:, None], self.angles[nearest].sin()[:, None]
        turned = torch.stack(
            [cos * shifts[..., 0] + sin * shifts[..., 1], cos * shifts[..., 1] - sin * shifts[..., 0]], dim=-1
        )
        power = (turned / self.log_widths[nearest].exp()[:, None]).square().sum(-1)
        alpha = 0.99 * torch.sigmoid(self.opacities[nearest])[:, None] * torch.exp(-0.5 * power)  # [T, P, K]
        # The fraction of light that the Gaussians in front let through.
        through = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1]], dim=-1), dim=-1)
        blended = (alpha * through) @ torch.sigmoid(self.colours[nearest])  # [T, P, 3]
        tiles = blended.view(rows, columns, TILE, TILE, 3)
        return tiles.permute(4, 0, 2, 1, 3).reshape(1, 3, self.height, self.width)

    @torch.no_grad()
    def nearest(self, centres: Tensor) -> Tensor:
        """Return, for each tile, the Gaussians that reach farthest into it, in blending order."""
        distance = torch.cdist(centres, self.places) - 2 * self.log_widths.exp().amax(1)
        return distance.topk(min(NEAREST, self.places.shape[0]), largest=False).indices.sort().values


def fit(splats: Splats, photograph: Tensor, loss_of: nn.Module, steps: int) -> list[float]:
    """Take `steps` steps of Adam, each on the whole image; return the loss of every step."""
    rates = {"places": 0.3, "log_widths": 0.03, "angles": 0.03, "colours": 0.05, "opacities": 0.05}
    groups = [{"params": [getattr(splats, name)], "lr": rate} for name, rate in rates.items()]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in tqdm(range(steps), desc="fitting", unit="step"):
        loss = loss_of(splats(), photograph)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


@torch.no_grad()
def scores(picture: Tensor, photograph: Tensor) -> tuple[float, float]:
    """Return SSIM, and PSNR in dB."""
    error = (picture - photograph).square().mean()
    return float(ssim_fused.ssim(picture, photograph, data_range=1.0)), float(-10 * error.log10())


def draw(pictures: dict[str, Tensor], losses: list[float], path: Path) -> None:
    """Draw the images side by side, and the loss."""
    figure = Figure(figsize=(4 * len(pictures) + 4, 4.3), layout="constrained")
    *panels, axes = figure.subplots(1, len(pictures) + 1)
    for panel, (title, picture) in zip(panels, pictures.items(), strict=True):
        panel.imshow(picture[0].permute(1, 2, 0).clamp(0, 1))
        panel.set_title(title, fontsize=11)
        panel.set_axis_off()
    axes.plot(range(1, len(losses) + 1), losses, color="#08519c")
    axes.set(xlabel="step", title="0.8 L1 + 0.2 (1 - SSIM)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def main(argv: list[str] | None = None) -> int:
    """Fit, print the scores, draw; return 1 if the scores did not rise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=800)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", type=int, default=128, help="pixels a side, a multiple of 16")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output/splatting.png")
    arguments = parser.parse_args(argv)
    if arguments.size % TILE or min(arguments.size, arguments.gaussians, arguments.steps) < 1:
        parser.error(f"--size {arguments.size} is no multiple of {TILE}, or a number is below 1")

    torch.manual_seed(0)
    whole = torch.from_numpy(data.astronaut()[:256, 96:352].copy()).permute(2, 0, 1)[None] / 255
    photograph = nn.functional.interpolate(whole, (arguments.size,) * 2, mode="area")
    splats = Splats(photograph[0], arguments.gaussians)
    with torch.no_grad():
        first = splats()
    # The loss of Gaussian splatting, whose SSIM pads with zeros.
    losses = fit(splats, photograph, ssim_fused.L1SSIMLoss(ssim_weight=0.2, padding="zero"), arguments.steps)
    with torch.no_grad():
        last = splats()

    before, after = scores(first, photograph), scores(last, photograph)
    print("SSIM {:.3f}, PSNR {:.1f} dB at the start; ".format(*before) + "SSIM {:.3f}, PSNR {:.1f} dB".format(*after))
    title = "{} Gaussians\nSSIM {:.3f}, PSNR {:.1f} dB"
    pictures = {
        "Photograph\n": photograph,
        "At the start: " + title.format(arguments.gaussians, *before): first,
        f"After {arguments.steps} steps: " + title.format(arguments.gaussians, *after): last,
    }
    draw(pictures, losses, arguments.output)
    return 0 if after[0] > before[0] and after[1] > before[1] else 1


if __name__ == "__main__":
    sys.exit(main())
