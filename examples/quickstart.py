"""Swap one import: SSIM as a metric, as a training loss and as a map, by ssim_fused and by torchmetrics.

For users of torchmetrics who want to see that the numbers stay the same.

    python examples/quickstart.py
"""

import torch
import torchmetrics.functional.image
from skimage import data

import ssim_fused

torch.manual_seed(0)
clean = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255  # [1, 3, 512, 512], in [0, 1]
noisy = clean + 0.1 * torch.randn_like(clean)

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
