"""Draw ``docs/figures/api_example.png``, the result of the example on the API page: `python -m benchmarks.api_figure`.

Runs the page's own block. The background is transparent and the titles are grey, so that the figure suits a light and a
dark page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURE = ROOT / "docs/api.md", ROOT / "docs/figures/api_example.png"
GREY = "#868e96"


def run_block() -> dict[str, Any]:
    """Run the first block of the page; return the names that it defines."""
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if block is None:
        raise SystemExit(f"{PAGE} has no block of Python")
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(block[1], str(PAGE), "exec"), names)
    return names


def main() -> None:
    """Write the figure."""
    names = run_block()
    titles = {"clean": "clean", "noisy": "noisy", "ssim_map": f"ssim_map, score {float(names['score']):.3f}"}
    figure = Figure(figsize=(6.6, 2.5), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        axes.imshow(names[name][0, 0], cmap="magma" if name == "ssim_map" else "gray", vmin=0, vmax=1)
        axes.set_title(title, color=GREY, fontsize=11)
        axes.set_axis_off()
    figure.savefig(FIGURE, dpi=130, transparent=True)
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
