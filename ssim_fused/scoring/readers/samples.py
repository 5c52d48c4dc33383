"""What readers and their callers exchange: limits, decoded samples, pixels. Needs no numpy, so that it always loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Model = Literal["grey", "rgb", "cmyk"]
Alpha = Literal["straight", "premultiplied"]

MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs: 512 MiB of RGB


class ReadError(Exception):
    """Why a file could not be read, in a sentence without the file's name."""


@dataclass(frozen=True)
class Limits:
    """What the caller says about the files.

    Attributes:
        data_range: the value of white where the file has none or a larger one, or None.
        max_pixels: a frame with more pixels is refused before it is decoded.

    """

    data_range: float | None = None
    max_pixels: int = MAX_PIXELS

    def check_size(self, width: int, height: int) -> None:
        """Refuses a frame that is empty or larger than the limit.

        Raises:
            ReadError: the frame is empty or too large.

        """
        if width < 1 or height < 1:
            raise ReadError(f"has {width}x{height} pixels")
        if width * height > self.max_pixels:
            raise ReadError(
                f"has {width}x{height} pixels, {width * height} in all, and the limit is {self.max_pixels}; raise it "
                "with --max-pixels if the file is what you expect"
            )


@dataclass
class Raw:
    """Samples as a decoder returned them, and what the file says about them.

    Attributes:
        samples: ``[H, W]`` or ``[H, W, C]``, the color's channels first, then alpha if any.
        model: what the color's channels are.
        bits: of a sample; None means floating point.
        white: the largest value, ``2 ** bits - 1`` unless the file states another.
        alpha: how the last channel was applied to the color, or None if there is no alpha.
        inverted: whether 0 is white.
        orientation: as EXIF and TIFF number it.

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
    """A file whose header was read.

    Attributes:
        count: the number of frames.
        frame: decodes the frame of a number.

    """

    count: int
    frame: Callable[[int], Raw]
