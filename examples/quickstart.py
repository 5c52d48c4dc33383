"""Swap one import: SSIM as a metric, as a training loss and as a map, by ssim_fused and by torchmetrics.

For users of torchmetrics who want to see that the numbers stay the same. Draws both maps.

    python examples/quickstart.py
"""

import sys
from pathlib import Path

import torch
import torchmetrics.functional.image
from matplotlib.figure import Figure
from skimage import data

import ssim_fused

torch.manual_seed(0)
clean = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255  # [1, 3, 512, 512], in [0, 1]
noisy = clean + 0.1 * torch.randn_like(clean)

panels = {"noisy": noisy}
print(f"{'':14}{'metric':>11}{'loss':>11}{'gradient norm':>16}{'worst pixel':>14}")
for library in ssim_fused, torchmetrics.functional.image:
    ssim = library.structural_similarity_index_measure

    metric = ssim(noisy, clean, data_range=1.0)

    torch.manual_seed(0)  # both libraries train the same network
    network = torch.nn.Conv2d(3, 3, kernel_size=5, padding=2)
    optimizer = torch.optim.Adam(network.parameters())
    loss = 1 - ssim(network(noisy), clean, data_range=1.0)
    loss.backward()
    optimizer.step()

    _, ssim_map = ssim(noisy, clean, data_range=1.0, return_full_image=True)  # map: [1, 3, 512, 512]

    name = library.__name__.split(".")[0]
    gradient = network.weight.grad.norm()
    print(f"{name:14}{metric:11.6f}{loss:11.6f}{gradient:16.6f}{ssim_map.min():14.6f}")
    panels[f"SSIM map by {name}"] = ssim_map.mean(1, keepdim=True)

figure = Figure(figsize=(12, 4.2), layout="constrained")
for axes, (title, picture) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
    axes.imshow(picture[0].permute(1, 2, 0).clamp(0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_axis_off()
output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output" / "quickstart.png"
output.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(output, dpi=100)
print(f"\nFigure: {output}")
