"""Reads the pixels of a picture file, and converts two pictures or frames to a common size, range and type.

Pixels are ``[C, H, W]``: uint8 or uint16, or float32 or float64 from floating-point files, with one channel (grey, or
the luma of a video) or three (RGB). The readers of the formats are in ``readers/``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssim_fused.scoring.errors import PairError, lacks_extra
from ssim_fused.scoring.readers import formats, png
from ssim_fused.scoring.readers.pool import POOL
from ssim_fused.scoring.readers.samples import Limits, ReadError, Samples

if TYPE_CHECKING:
    import numpy as np


NO_LIMITS = Limits()  # Pillow's limit on the number of pixels, and no range for floating-point files


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels ``[C, H, W]`` and their range.

    Attributes:
        pixels: uint8, uint16, float32 or float64, with any strides. Integers are in 0..peak; floats may be outside.
        peak: the value of white: 255, 65535, ``2 ** bits - 1``, or ``--data-range``.
        full_range: False for a plane of a limited-range video, whose black is 16 and white 235 (of 255).

    """

    pixels: Tensor
    peak: float
    full_range: bool = True

    @property
    def size(self) -> str:
        """The size as ``WxH``, for messages."""
        return f"{self.pixels.shape[2]}x{self.pixels.shape[1]}"


class SeveralFramesError(PairError):
    """A file has several frames, but a still picture is expected."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file whose header has been read.

    Attributes:
        path: path of the file.
        count: the number of frames: more than one for animations and for multi-page TIFF files.

    """

    path: str
    count: int
    _samples: Callable[[int], Samples]

    def frame(self, number: int) -> Picture:
        """Decodes a frame.

        Raises:
            PairError: the file is broken, or its pixels have no range.

        """
        with _named(self.path):
            samples = self._samples(number)
        return Picture(channels_first(samples.pixels), samples.white)


@contextmanager
def opened_picture(path: str, limits: Limits) -> Generator[PictureFile]:
    """Opens a picture file of any format. Decoders that may crash run in a worker process.

    Raises:
        PairError: the file is missing, broken or too large, or has a feature that its reader does not support.

    """
    with ExitStack() as stack:
        with _named(path):
            data = Path(path).read_bytes()  # at once, in a single system call
            name = formats.format_of(data)
            if name in formats.IN_PROCESS and not (name == "PNG" and png.interlaced(data)):
                from ssim_fused.scoring.readers.rules import finished

                opened = formats.open_bytes(data, limits)
                count = opened.count

                def samples(number: int) -> Samples:
                    return formats.guarded(lambda: finished(opened.frame(number), limits), name)

            else:
                worker = stack.enter_context(POOL.lease())
                count, samples = worker.open(data, limits), worker.frame
        yield PictureFile(path, count, samples)


def is_picture(path: str) -> bool:
    """Returns whether a regular file starts with the signature of a picture format; False if it cannot be read."""
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return formats.format_of(file.read(64)) is not None
    except (OSError, ValueError):
        return False


def is_animation(path: str) -> bool:
    """Returns whether a picture file has several frames; False if it cannot be read."""
    try:
        with opened_picture(path, NO_LIMITS) as file:
            return file.count > 1
    except PairError:
        return False


def read_picture(path: str, limits: Limits = NO_LIMITS) -> Picture:
    """Reads a still picture as grey or RGB, upright and opaque, at the bit depth of the file.

    Raises:
        SeveralFramesError: the file is an animation, or has several pages.
        PairError: the file is missing or broken, or its pixels have no range.

    """
    with opened_picture(path, limits) as file:
        if file.count != 1:
            raise SeveralFramesError(f"{path}: has {file.count} frames; expected a still picture")
        return file.frame(0)


@contextmanager
def _named(path: str) -> Generator[None]:
    """Converts exceptions of a reader to a :class:`PairError` that starts with the name of the file."""
    try:
        yield
    except ReadError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and lacks_extra(error.__cause__):
            raise error.__cause__ from None  # stops the run: the file is not at fault
        raise PairError(f"{path}: {error}") from error
    except OSError as error:
        raise PairError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a path with a null byte
        raise PairError(f"{path!r}: {error}") from error


def channels_first(array: np.ndarray) -> Tensor:
    """Converts pixels ``[H, W]`` or ``[H, W, C]`` to ``[C, H, W]``."""
    import numpy as np

    if array.ndim == 3:
        # The copy costs less than the kernel would lose on interleaved channels. NumPy makes it, because PyTorch would
        # start its own threads in each decoding thread.
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    pixels = torch.from_numpy(array if array.flags.writeable else array.copy())
    return pixels[None] if pixels.ndim == 2 else pixels


def cropped(picture: Picture, border: int) -> Picture:
    """Removes ``border`` pixels from each side."""
    if not border:
        return picture
    height, width = picture.pixels.shape[1:]
    if min(height, width) <= 2 * border:
        raise PairError(f"--crop {border} leaves nothing of {picture.size} pixels; give a smaller number")
    return replace(picture, pixels=picture.pixels[:, border:-border, border:-border])


def matched(reference: Picture, distorted: Picture, resize: bool) -> tuple[Picture, Picture]:
    """Converts two pictures to the same number of channels, the same range and the same size.

    Grey is expanded to RGB if the other picture is RGB. The smaller integer range is scaled to the larger one, and
    integers are scaled to the range of floats. With ``resize``, the distorted picture is scaled to the size of the
    reference by a bicubic filter with antialiasing.

    Raises:
        PairError: the sizes differ without ``resize``, or one is a full-range and the other a limited-range plane.

    """
    if reference.full_range != distorted.full_range:
        raise PairError(
            "the luma of one video has full range (0..255) and that of the other limited range (16..235); expected the "
            "same range; without --luma both are compared as RGB"
        )
    channels = max(reference.pixels.shape[0], distorted.pixels.shape[0])
    peak, dtype = _common_range(reference, distorted)
    reference, distorted = (_converted(_widened(p, channels), peak, dtype) for p in (reference, distorted))
    if reference.size == distorted.size:
        return reference, distorted
    if not resize:
        raise PairError(
            f"sizes differ: {reference.size} and {distorted.size}; expected the same size, or use --resize to scale "
            "the distorted picture to that of the reference"
        )
    height, width = reference.pixels.shape[1:]
    scaled = interpolate(_wide(distorted.pixels)[None], (height, width), mode="bicubic", antialias=True)[0]
    if dtype.is_floating_point:
        return reference, replace(distorted, pixels=scaled.to(dtype))
    return reference, replace(distorted, pixels=_rounded(scaled, peak, dtype))


def _widened(picture: Picture, channels: int) -> Picture:
    return replace(picture, pixels=picture.pixels.expand(channels, -1, -1))


def _common_range(reference: Picture, distorted: Picture) -> tuple[float, torch.dtype]:
    """Returns the larger of two ranges, or that of the floats, and a type that holds the pixels of both pictures."""
    floating = [p for p in (reference, distorted) if p.pixels.is_floating_point()]
    peak = max(p.peak for p in floating or (reference, distorted))
    types = {reference.pixels.dtype, distorted.pixels.dtype}
    # The wider of both types.
    return peak, max(types, key=(torch.uint8, torch.uint16, torch.float32, torch.float64).index)


def _converted(picture: Picture, peak: float, dtype: torch.dtype) -> Picture:
    if picture.peak == peak:
        return picture if picture.pixels.dtype == dtype else replace(picture, pixels=picture.pixels.to(dtype))
    # In full range, white is scaled to white. In limited range, the standard doubles values for each additional bit.
    scale = peak / picture.peak if picture.full_range else (peak + 1) // (picture.peak + 1)
    scaled = picture.pixels.double() * scale
    pixels = scaled.to(dtype) if dtype.is_floating_point else _rounded(scaled, peak, dtype)
    return replace(picture, pixels=pixels, peak=peak)


def _wide(pixels: Tensor) -> Tensor:
    return pixels if pixels.dtype == torch.float64 else pixels.float()


def _rounded(pixels: Tensor, peak: float, dtype: torch.dtype) -> Tensor:
    return pixels.clamp(0, peak).round().to(dtype)
