"""Draws the heat map of a failed comparison: expected, actual and map side by side, with the worst region marked."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssim_fused.testing.comparison import Comparison
from ssim_fused.testing.images import Rectangle

SMALLEST, WIDEST = 240, 1600  # pixels of a panel's longer side; smaller images are magnified, larger ones reduced
NARROWEST = 230  # width of a panel in pixels, which its caption needs
GAP, TEXT, BAR = 12, 15, 10  # pixels: the gap between panels, the font size, the height of the color bar
MARK = (0, 220, 255)  # color of the frame around the worst region; not a color of the map
STRIPES = (70, 70, 90), (110, 110, 130)  # colors of ignored pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(result: Comparison) -> Image.Image:
    """Returns the sheet with the three panels and their captions."""
    height, width = result.actual.size
    scale = _scale(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    most = 0.0 if result.distance is None else float(result.distance.max())
    expected, actual, heat = _image(result.shown[0]), _image(result.shown[1]), _heat(result, most)
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    panels = [panel.resize(size, resampling) for panel in (expected, actual, heat)]
    for panel in panels:
        _mark(panel, result.region, scale)
    x, y, w, h = result.region
    captions = (
        ("expected", f"{width}x{height} pixels"),
        ("actual", f"SSIM {result.score:.6f}"),
        (f"worst region x={x} y={y} w={w} h={h}", f"its SSIM {result.local:.4f}"),
    )
    column = max(size[0], NARROWEST)
    sheet = Image.new("RGB", (3 * column + 4 * GAP, size[1] + 6 * TEXT + BAR), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = GAP + number * (column + GAP)
        sheet.paste(panel, (left, GAP))
        for line, text in enumerate(caption):
            pen.text((left, GAP + size[1] + TEXT // 2 + line * (TEXT + 4)), text, "black", font)
    _bar(sheet, pen, font, (GAP + 2 * (column + GAP), GAP + size[1] + 3 * TEXT + 4), column, most)
    return sheet


def _scale(height: int, width: int) -> float:
    """Returns the factor by which an image is magnified (an integer) or reduced."""
    longer = max(height, width)
    return float(max(1, SMALLEST // longer)) if longer <= WIDEST else WIDEST / longer


def _image(pixels: Tensor) -> Image.Image:
    array = pixels.nan_to_num(0, 1, 0).clamp(0, 1).mul(255).round().byte().expand(3, -1, -1).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(array.numpy()))


def _heat(result: Comparison, most: float) -> Image.Image:
    """Colors the distance, from black (0) to the brightest color (the largest distance)."""
    height, width = result.actual.size
    if result.distance is None:
        sheet = np.zeros((height, width, 3), np.uint8)
    else:
        levels = (result.distance.clamp(0, most) * (255 / most if most else 0)).round().byte().numpy()
        sheet = _palette()[levels]
    if result.weights is not None:
        rows, columns = np.mgrid[:height, :width]
        stripes = np.array(STRIPES, np.uint8)[((rows + columns) // 4) % 2]
        sheet = np.where((result.weights > 0).numpy()[:, :, None], sheet, stripes)
    return Image.fromarray(np.ascontiguousarray(sheet))


@cache
def _palette() -> np.ndarray:  # [256, 3]
    from matplotlib import colormaps

    return (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _mark(panel: Image.Image, region: Rectangle, scale: float) -> None:
    """Draws a frame around the worst region, without covering it."""
    x, y, width, height = region
    line = 2
    box = (x * scale - line, y * scale - line, (x + width) * scale + line - 1, (y + height) * scale + line - 1)
    edges = [min(max(round(v), 0), side - 1) for v, side in zip(box, panel.size * 2, strict=True)]
    ImageDraw.Draw(panel).rectangle(edges, outline=MARK, width=line)


def _bar(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int], width: int, most: float
) -> None:
    """Draws the color bar, with numbers below it."""
    left, top = corner
    ramp = _palette()[np.linspace(0, 255, width).astype(np.uint8)][None].repeat(BAR, 0)
    sheet.paste(Image.fromarray(ramp), corner)
    texts = ("0", "1 - SSIM", f"{most:.3g}")
    for text, share in zip(texts, (0, 0.5, 1), strict=True):
        pen.text((left + share * (width - pen.textlength(text, font)), top + BAR + 2), text, "black", font)
