"""Compares images with stored pictures, for the fixture ``image_snapshot``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from ssim_fused.testing import check_thresholds, failure, problem_of
from ssim_fused.testing.comparison import compare
from ssim_fused.testing.failures import write_heat_map
from ssim_fused.testing.images import HIDDEN, Image, Range, Rectangle, bounds, read, scaled
from ssim_fused.testing.weights import check_sizes, weights_of

__tracebackhide__ = HIDDEN

Outcome = Literal["passed", "created", "updated"]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored picture.

    Attributes:
        path: path of the picture, a PNG file.
        results: path of the files written on failure, without extension.
        update: whether to store an image if the picture is missing or not similar.
        command: the command that updates the picture, for messages.

    """

    path: Path
    results: Path
    update: bool
    command: str

    def check(
        self,
        image: Any,
        at_least: float,
        region_at_least: float | None,
        ignore: Sequence[Rectangle],
        mask: Any,
        data_range: Range,
    ) -> tuple[Outcome, float]:
        """Compares an image with the stored picture. The arguments are those of ``assert_similar``.

        Returns:
            The outcome, and the score.

        Raises:
            AssertionError: the images are not similar, or no picture is stored, and ``update`` is False.
            TypeError, ValueError: as in ``assert_similar``.

        """
        check_thresholds(at_least, region_at_least)
        actual = read(image, "actual", data_range)
        weights = weights_of(ignore, mask, actual, actual)
        picture = storable(actual, data_range, None if weights is None else weights > 0)
        if not self.path.exists():
            return self._accept(picture, "created", f"there is no stored picture {self.path}.", "create it")
        try:
            expected = read(self.path, "expected")
            check_sizes(actual, expected)
        except (ValueError, AssertionError) as error:
            return self._accept(picture, "updated", f"{error}\n  expected: {self.path}", "accept the actual image")
        shown = replace(read(picture, "actual"), described=actual.described)
        result = compare(shown, expected, weights, None)
        problem = problem_of(result, at_least, region_at_least)
        if problem is None:
            return "passed", result.score
        heat_map = "" if self.update else write_heat_map(result, f"{self.results}.heatmap.png")
        return self._accept(picture, "updated", failure(result, problem, heat_map), "accept the actual image")

    def _accept(self, picture: Pillow.Image, outcome: Outcome, problem: str, purpose: str) -> tuple[Outcome, float]:
        """Stores the picture if ``update`` is True, and otherwise fails with the problem."""
        if self.update:
            save(picture, self.path)
            return outcome, 1.0
        actual = Path(f"{self.results}.actual.png")
        save(picture, actual)
        raise AssertionError(f"{problem}\n  actual image: {actual}\n  to {purpose}: {self.command}")


def storable(image: Image, data_range: Range, seen: Tensor | None) -> Pillow.Image:
    """Converts an image to one that PNG can store: 16-bit grey, and everything else rounded to 8 bits.

    Raises:
        ValueError: the image has color or alpha, and 16 bits.

    """
    deep = image.pixels.dtype == torch.uint16
    if deep and (image.pixels.shape[0] != 1 or image.alpha is not None):
        raise ValueError(
            f"`{image.name}` is {image.described}, which cannot be stored with 16 bits; expected 16-bit grey; convert "
            "it to uint8."
        )
    values = scaled(image, bounds(image, image, data_range), seen, torch.float64).nan_to_num(0, 1, 0).clamp(0, 1)
    peak = 65535 if deep else 255
    layers = values if image.alpha is None else torch.cat([values.expand(3, -1, -1), image.alpha[None].clamp(0, 1)])
    array = (layers * peak).round().permute(1, 2, 0).numpy().astype(np.uint16 if deep else np.uint8)
    return Pillow.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def save(picture: Pillow.Image, path: Path) -> None:
    """Writes a PNG file, which appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".png")
    try:
        with open(handle, "wb") as file:
            picture.save(file, "PNG")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp creates a file that only its owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
