"""Pixels of one picture or frame, as they are in the file, and how two of them are made comparable.

``[C, H, W]`` of uint8 or uint16, with one channel (grey, or a video's luma) or three (RGB). Files are read by
Pillow; those of 16 bits a color, which Pillow would cut to 8, by PyAV.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssim_fused.scoring.errors import PairError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

ORIENTATION = 0x0112  # the EXIF tag: which way up the camera was


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels ``[C, H, W]`` and what the largest of them means.

    Attributes:
        pixels: uint8, uint16, or float32 (luma of RGB), in 0..peak; of any strides.
        peak: the range: 255, 65535, or a video's ``2 ** bits - 1``.
        full_range: False for a plane of a video whose black is 16 and white 235 (of 255).

    """

    pixels: Tensor
    peak: int
    full_range: bool = True

    @property
    def size(self) -> str:
        return f"{self.pixels.shape[2]}x{self.pixels.shape[1]}"


def read_picture(path: str) -> Picture:
    """The pixels of a picture file, upright, as 8 or 16 bit RGB or grey.

    Palettes become RGB. What is transparent is composited over white. CMYK and the like are converted to RGB; color
    profiles are not applied.

    Raises:
        PairError: the file is missing or broken, has several frames, or has pixels without a range (float, 32 bit).

    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Read at once: one call for the operating system, and the pixels are decoded from memory.
        image = Image.open(io.BytesIO(Path(path).read_bytes()))
        # Cameras put previews behind the picture (MPO); the frames of an animation are no pictures of their own.
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise PairError(f"{path}: has {getattr(image, 'n_frames', 0)} frames; only still pictures are compared")
        deep = _has_16_bits(image)  # before Exif is asked for, which in a PNG lies behind the pixels and decodes them
        orientation = image.getexif().get(ORIENTATION, 1)
        return _upright(_composited(_pixels(image, path, deep)), orientation)
    except UnidentifiedImageError as error:
        raise PairError(f"{path}: no picture that Pillow can read") from error
    except OSError as error:
        raise PairError(f"{path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # a plugin's words for a broken file
        raise PairError(f"{path}: {error}") from error


def _pixels(image: Image, path: str, deep: bool) -> Picture:
    """Pixels with one to four channels, the fourth being opacity."""
    import numpy as np

    if image.mode.startswith("I;16"):
        return Picture(channels_first(np.array(image).astype(np.uint16)), 65535)
    if image.mode in ("I", "F"):
        raise PairError(f"{path}: pixels of mode {image.mode} (32 bit) have no range; save it with 8 or 16 bits")
    if deep:
        return _deep_pixels(path)
    return Picture(channels_first(np.array(image.convert(_mode(image)))), 255)


def _mode(image: Image) -> str:
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def _has_16_bits(image: Image) -> bool:
    """Whether Pillow would cut 16 bits a color to 8: the decoder's raw mode says what lies in the file."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and ";16" in str(tiles[0][3])


def _deep_pixels(path: str) -> Picture:
    import av

    try:
        with av.open(path) as container:
            frame = next(container.decode(video=0))
            alpha = any(component.is_alpha for component in frame.format.components)
            array = frame.to_ndarray(format="rgba64le" if alpha else "rgb48le")
    except (av.FFmpegError, StopIteration) as error:
        raise PairError(f"{path}: {error}") from error
    return Picture(channels_first(array), 65535)


def channels_first(array: np.ndarray) -> Tensor:
    """Pixels ``[H, W]`` or ``[H, W, C]`` as ``[C, H, W]``."""
    pixels = torch.from_numpy(array)
    # A plane a channel: the copy takes less than what the kernel loses on pixels that lie three apart.
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _composited(picture: Picture) -> Picture:
    if picture.pixels.shape[0] != 4:
        return picture
    *color, opacity = picture.pixels.long()
    peak = picture.peak
    white = peak * (peak - opacity) + peak // 2
    mixed = torch.stack([(channel * opacity + white) // peak for channel in color])
    return replace(picture, pixels=mixed.to(picture.pixels.dtype))


def _upright(picture: Picture, orientation: int) -> Picture:
    pixels = picture.pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    flipped = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    if flipped and pixels.dtype == torch.uint16:  # torch flips signed integers only; the bits are the same
        pixels = pixels.view(torch.int16).flip(flipped).view(torch.uint16)
    elif flipped:
        pixels = pixels.flip(flipped)
    return replace(picture, pixels=pixels)


def cropped(picture: Picture, border: int) -> Picture:
    """The picture less ``border`` pixels at each side."""
    if not border:
        return picture
    height, width = picture.pixels.shape[1:]
    if min(height, width) <= 2 * border:
        raise PairError(f"--crop {border} leaves nothing of {picture.size} pixels")
    return replace(picture, pixels=picture.pixels[:, border:-border, border:-border])


def matched(reference: Picture, distorted: Picture, resize: bool) -> tuple[Picture, Picture]:
    """Both pictures with as many channels, as many bits and of one size.

    Grey beside RGB becomes RGB, and the fewer bits are scaled to the more. With ``resize`` the distorted picture
    becomes as large as the reference, by a bicubic filter that does not alias.

    Raises:
        PairError: the sizes differ, or one is a plane of full and the other of limited range.

    """
    if reference.full_range != distorted.full_range:
        raise PairError(
            "one video's luma is of full range (0..255), the other's of limited range (16..235); without --luma both "
            "are compared as RGB"
        )
    channels = max(reference.pixels.shape[0], distorted.pixels.shape[0])
    peak = max(reference.peak, distorted.peak)
    reference, distorted = (_deepened(_widened(p, channels), peak) for p in (reference, distorted))
    if reference.size == distorted.size:
        return reference, distorted
    if not resize:
        raise PairError(
            f"sizes differ: {reference.size} and {distorted.size}; --resize scales the distorted one to the "
            "reference's size"
        )
    height, width = reference.pixels.shape[1:]
    scaled = interpolate(distorted.pixels[None].float(), (height, width), mode="bicubic", antialias=True)[0]
    return reference, replace(distorted, pixels=_rounded(scaled, peak, distorted.pixels.dtype))


def _widened(picture: Picture, channels: int) -> Picture:
    return replace(picture, pixels=picture.pixels.expand(channels, -1, -1))


def _deepened(picture: Picture, peak: int) -> Picture:
    if picture.peak == peak:
        return picture
    # Full range maps white to white; of a video's limited range every bit more doubles the numbers, by its standard.
    scale = peak / picture.peak if picture.full_range else (peak + 1) // (picture.peak + 1)
    return replace(picture, pixels=_rounded(picture.pixels.double() * scale, peak, torch.uint16), peak=peak)


def _rounded(pixels: Tensor, peak: int, dtype: torch.dtype) -> Tensor:
    return pixels.clamp(0, peak).round().to(dtype)
