"""Draws heat maps of the difference between two pictures, for ``--map`` and for the report.

A map shows ``1 - SSIM`` of each pixel, from dark (similar) to bright (different). Of a sequence, the worst frame is
drawn.
"""

from __future__ import annotations

import heapq
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssim_fused.scoring.decoding import Frame, in_order
from ssim_fused.scoring.errors import OutputError, UsageError, one_line
from ssim_fused.scoring.measure import Measure
from ssim_fused.scoring.picture import Picture
from ssim_fused.scoring.results import Exhibit, PairResult
from ssim_fused.scoring.settings import Settings
from ssim_fused.scoring.stream import STREAM

COLORS = "magma"  # matplotlib color map, perceptually uniform, also in print and for color-blind readers
WIDEST = 960  # pixels per side of a picture in the report; three of them fit side by side on a screen
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

GREY = 128  # color of pixels that are not scored; no color of the map is grey
LONGEST_NAME = 255  # bytes; the limit of nearly every file system

_GAP = 8  # pixels between the pictures


class Gallery:
    """Draws the heat maps of a stream of results.

    Args:
        settings: the definition of SSIM.
        device: the device that computes the maps.
        folder: the folder that the map of each pair is written to, or None.
        exhibits: the number of worst pairs that get an :class:`Exhibit` for the report.
        pairs: the number of pairs, which determines the number of digits in file names.

    Raises:
        UsageError: the folder cannot be created or written.

    """

    def __init__(self, settings: Settings, device: torch.device, folder: str | None, exhibits: int, pairs: int) -> None:
        self._measure, self._metric, self._workers = Measure(settings, device), settings.metric[0], settings.workers
        self._folder, self._exhibits, self._digits = folder, exhibits, len(str(max(pairs - 1, 0)))
        self._worst: list[tuple[float, int]] = []  # negated, because heapq is a min-heap
        self._lock = threading.Lock()
        if folder:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:
                raise UsageError(f"--map {folder}: {getattr(error, 'strerror', None) or error}.") from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UsageError(f"--map {folder}: Permission denied.")

    def shown(self, results: Iterator[PairResult]) -> Iterator[PairResult]:
        """Yields the results in order, after writing maps, attaching exhibits and dropping the pixels."""
        with ThreadPoolExecutor(self._workers, "draw") as pool:
            yield from in_order(pool, self._shown, results, self._workers)

    def _shown(self, result: PairResult) -> PairResult:
        frame, result.worst = result.worst, None
        exhibited = not result.error and self._is_among_the_worst(result)
        if frame is None or result.error or not (exhibited or self._folder):
            return result
        x, y = frame.reference, frame.distorted
        heat = colored(self._measure.map(x.pixels, y.pixels, x.peak, frame.mask), x, frame.mask)
        if exhibited:
            result.exhibit = Exhibit(frame.number, *(_jpeg(to_image(p)) for p in frame.shown()), _jpeg(heat))
        if self._folder:
            file = io.BytesIO()
            panel(frame, heat, result).save(file, "PNG", compress_level=1)
            result.map = file.getvalue()
            if not result.shared:
                self.write(result)
        return result

    def write(self, result: PairResult) -> None:
        """Writes the map of a result, if it has one."""
        if result.map and self._folder:
            stem = "stream" if result.distorted == STREAM else Path(result.distorted).stem
            path = Path(self._folder, file_name(f"{result.number:0{self._digits}}_{stem}", ".png"))
            try:
                path.write_bytes(result.map)
            except OSError as error:
                raise OutputError(f"--map {path}: {error.strerror or error}") from error
            result.map = None

    def _is_among_the_worst(self, result: PairResult) -> bool:
        """Returns whether a result is among the worst so far, as each of the final worst was when it arrived."""
        if not self._exhibits:
            return False
        entry = (-result.lowest(self._metric), -result.number)
        with self._lock:
            if len(self._worst) < self._exhibits:
                heapq.heappush(self._worst, entry)
                return True
            return heapq.heappushpop(self._worst, entry) != entry


def panel(frame: Frame, heat: Image.Image, result: PairResult) -> Image.Image:
    """Draws reference, distorted picture and map side by side, with a line of text below each and a color scale."""
    pictures = [*(to_image(picture) for picture in frame.shown()), heat]
    width, height = pictures[0].size
    size = max(12, height // 40)
    sheet = Image.new("RGB", (3 * width + 2 * _GAP, height + 5 * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    of_frame = f", frame {frame.number}" if result.sequence else ""
    score = result.scores[result.numbers.index(frame.number)]
    texts = [Path(result.reference).name + of_frame, Path(result.distorted).name,
             "  ".join(f"{name} {value:.4f}" for name, value in score.items() if "/" not in name)]  # fmt: skip
    for place, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        left = place * (width + _GAP)
        sheet.paste(picture, (left, 0))
        draw.text((left, height + size // 3), _fitting(one_line(text), draw, font, width), "black", font)
    legend = "map: 1 - SSIM; grey pixels are not scored"
    draw.text((0, height + 2 * size), _fitting(legend, draw, font, 2 * width), "black", font)
    _draw_scale(draw, font, (2 * (width + _GAP), height + 2 * size), width, size)
    return sheet


def _draw_scale(draw: ImageDraw.ImageDraw, font: Font, place: tuple[int, int], width: int, size: int) -> None:
    """Draws a color bar with numbers below it."""
    left, top = place
    for x in range(width):
        color = tuple(int(value) for value in _palette()[255 * x // max(1, width - 1)])
        draw.line((left + x, top, left + x, top + size), color)
    marks = ("0", "0.25", "0.5", "0.75", "1") if width > 12 * size else ("0", "1")
    for number, mark in enumerate(marks):
        share = number / (len(marks) - 1)
        # Numbers are centred below their color, except at the ends, where they stay within the bar.
        x = left + share * width - share * draw.textlength(mark, font)
        draw.text((x, top + size * 1.25), mark, "black", font)


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[:-2] + "…"
    return text


def to_image(picture: Picture) -> Image.Image:
    """Converts a picture to an 8-bit RGB image for display."""
    pixels = picture.pixels.cpu().float() * (255 / picture.peak)
    array = pixels.clamp(0, 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(array.numpy()))


def file_name(stem: str, ending: str) -> str:
    """Returns a valid file name: one line of UTF-8 without slashes, of at most 255 bytes."""
    clean = one_line(stem).replace("/", "_").replace("\\", "_").encode()
    return clean[: LONGEST_NAME - len(ending)].decode(errors="ignore") + ending


def colored(similarity: Tensor, picture: Picture, mask: Tensor | None = None) -> Image.Image:
    """Colors a map in the size of its picture. Masked pixels, and a border without windows, are grey."""
    height, width = picture.pixels.shape[1:]
    levels = ((1 - similarity.clamp(0, 1)) * 255).round().to(torch.uint8).numpy()
    sheet = np.full((height, width, 3), GREY, np.uint8)
    top, left = (height - levels.shape[0]) // 2, (width - levels.shape[1]) // 2
    sheet[top : top + levels.shape[0], left : left + levels.shape[1]] = _palette()[levels]
    if mask is not None:
        sheet[mask.cpu().numpy() == 0] = GREY
    return Image.fromarray(sheet)


@cache
def _palette() -> np.ndarray:  # [256, 3]
    from matplotlib import colormaps

    return (colormaps[COLORS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _jpeg(image: Image.Image) -> bytes:
    small = image.copy()  # thumbnail() works in place, and --map needs the full size
    small.thumbnail((WIDEST, WIDEST))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    return file.getvalue()
