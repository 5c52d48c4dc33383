"""The types that readers and their callers exchange: limits, decoded samples, pixels. Imports no numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Model = Literal["grey", "rgb", "cmyk"]
Alpha = Literal["straight", "premultiplied"]

MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs, which is 512 MiB of RGB


class ReadError(Exception):
    """A file that could not be read. The message does not name the file; the caller adds its name."""


@dataclass(frozen=True)
class Limits:
    """The limits that the caller sets for all files.

    Attributes:
        data_range: the value of white for files that state none, or a larger one. None if not given.
        max_pixels: refuse frames with more pixels before they are decoded.

    """

    data_range: float | None = None
    max_pixels: int = MAX_PIXELS

    def check_size(self, width: int, height: int) -> None:
        """Refuses a frame that is empty or larger than the limit.

        Raises:
            ReadError: the frame is empty or too large.

        """
        if width < 1 or height < 1:
            raise ReadError(f"has {width}x{height} pixels; expected at least one")
        if width * height > self.max_pixels:
            raise ReadError(
                f"has {width}x{height} pixels, {width * height} in total; expected at most {self.max_pixels}; raise "
                "the limit with --max-pixels if you trust the file"
            )


@dataclass
class Raw:
    """Samples as a decoder returns them, and their properties in the file.

    Attributes:
        samples: ``[H, W]`` or ``[H, W, C]``: color channels first, then alpha, if any.
        model: the color model.
        bits: bits per sample; None for floating point.
        white: the value of white, or None for ``2 ** bits - 1``.
        alpha: whether color is premultiplied by alpha, the last channel, or not; None if there is no alpha.
        inverted: whether 0 is white.
        orientation: the orientation, 1 to 8, as in EXIF and TIFF.

    """

    samples: np.ndarray
    model: Model
    bits: int | None
    white: int | None = None
    alpha: Alpha | None = None
    inverted: bool = False
    orientation: int = 1


@dataclass
class Samples:
    """Pixels ``[H, W]`` or ``[H, W, 3]``, upright and opaque, and the value of white."""

    pixels: np.ndarray
    white: float


@dataclass
class Opened:
    """A file whose header has been read.

    Attributes:
        count: the number of frames.
        frame: decodes the frame with a number, from 0.

    """

    count: int
    frame: Callable[[int], Raw]
