"""Draws ``docs/figures/report.jpg``: the report of ``make demo-score`` on a desktop, and on a phone in dark mode.

Needs Chromium, and ``pip install playwright``.

    python examples/score_pictures.py --output /tmp/score
    (cd /tmp/score && ssim-fused compare original jpeg20 --metric ssim,ms-ssim,psnr --report report.html)
    python -m benchmarks.report_figure /tmp/score/report.html
"""

from __future__ import annotations

import argparse
import importlib
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "report.jpg"
HEIGHT = 1260  # visible pixels of the page
VIEWS = ((1280, "light"), (400, "dark"))  # width and color scheme
GAP = 20
WIDTH = 1280  # of the figure


def main() -> None:
    """Take both screenshots, and write them as one image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="the HTML file")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    api: Any = importlib.import_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        shots = [shot(browser, options.report, *view) for view in VIEWS]
        browser.close()
    sheet = Image.new("RGB", (sum(image.width for image in shots) + GAP, HEIGHT), "white")
    left = 0
    for image in shots:
        sheet.paste(image, (left, 0))
        left += image.width + GAP
    sheet.resize((WIDTH, HEIGHT * WIDTH // sheet.width), Image.Resampling.LANCZOS).save(FIGURE, quality=88)
    print(f"wrote {FIGURE}")


def shot(browser: Any, report: Path, width: int, scheme: str) -> Image.Image:
    """The upper part of the page."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    page.goto(report.resolve().as_uri())
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
