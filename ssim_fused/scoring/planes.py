"""From decoded frames to pixels: the planes of two frames as they are, or RGB.

Planes are views of the decoder's memory if its format is planar and little-endian. What is packed is first laid out as
planes by FFmpeg, which changes no value of the formats that are read; the order of bytes and the number of bits are
changed here, since FFmpeg takes RGB by way of luma and chroma for that. RGB of luma and chroma is FFmpeg's conversion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from ssim_fused.scoring.errors import PairError
from ssim_fused.scoring.picture import Picture, channels_first

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFormat, VideoFrame

    Array = np.ndarray[Any, Any]

Mode = Literal["planes", "luma", "rgb"]

# Formats whose planes are read as they are; alpha is the last plane. "msb": the value lies in the high bits.
_PLANAR = re.compile(r"(yuv[aj]?4\d\dp|gbra?p|gray)(9|10|12|14|16)?(msb)?(le|be)?")
_DEEPEST = 16  # bits
_CHROMA = {(0, 0): "444", (1, 0): "422", (1, 1): "420", (0, 1): "440", (2, 0): "411", (2, 2): "410"}  # by shifts
_LIMITED, _FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_UNSPECIFIED = 2  # of matrix, primaries and transfer alike
_BICUBIC = "BICUBIC"  # what the ffmpeg program converts with

# ITU-T H.273; the names are those that ffprobe prints.
_MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
             10: "bt2020c", 14: "ictcp"}  # fmt: skip
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
              10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
              13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428",
              18: "arib-std-b67"}  # fmt: skip
_RANGES = {_LIMITED: "tv", _FULL: "pc"}
_TAGS = (("matrix", "colorspace", _MATRICES), ("primaries", "color_primaries", _PRIMARIES),
         ("transfer", "color_trc", _TRANSFERS), ("range", "color_range", _RANGES))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Matched:
    """Two frames as planes of the same sizes and depth.

    Attributes:
        reference: luma ``[1, H, W]``, or red, green and blue ``[3, H, W]``.
        distorted: the same of the other frame.
        chroma: both frames' planes U, then V, ``[1, h, w]``; empty if there are none or luma alone is scored.
        frames: both as they were decoded, to be looked at in color.

    """

    reference: Picture
    distorted: Picture
    chroma: tuple[tuple[Picture, Picture], ...] = ()
    frames: tuple[VideoFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planar:
    """One frame as FFmpeg's planes.

    Attributes:
        frame: of a format that ``_PLANAR`` matches.
        full: whether black is 0 and white the largest value.
        stored: bits of red, green and blue where they are fewer than 8, of which the frame has the high ones; or empty.

    """

    frame: VideoFrame
    full: bool
    stored: tuple[int, ...] = ()

    @property
    def rgb(self) -> bool:
        return self.frame.format.is_rgb

    @property
    def bits(self) -> int:
        return self.frame.format.components[0].bits

    @property
    def chroma(self) -> tuple[int, int] | None:
        """The binary logarithms of luma pixels a chroma pixel, in both directions; None without chroma."""
        return _shifts(self.frame.format) if self.frame.format.name.startswith("yuv") else None


def matched_planes(reference: VideoFrame, distorted: VideoFrame, mode: Mode) -> Matched:
    """The planes of two frames, of the larger of both depths.

    A plane of fewer bits is shifted up, as the standards of limited range have it; luma and RGB of full range repeat
    their high bits below, so that white stays white. If one has less chroma, the other's is reduced to that by FFmpeg's
    conversion; if one has none, luma alone is compared.

    Raises:
        PairError: one is of full and the other of limited range, or a format has no planes.

    """
    frames = [_planar(reference), _planar(distorted)]
    if frames[0].full != frames[1].full:
        names = [_range_name(frame) for frame in frames]
        raise PairError(
            f"the reference is of {names[0]}, the distorted video of {names[1]}, so that their planes mean different "
            "things; --rgb compares both as RGB"
        )
    if frames[0].rgb != frames[1].rgb:
        raise PairError("one frame is RGB, the other luma and chroma; --rgb compares both as RGB")
    chroma = [frame.chroma for frame in frames]
    if mode == "planes" and None not in chroma and chroma[0] != chroma[1]:
        coarsest = tuple(max(shifts) for shifts in zip(*chroma, strict=True))
        if any(orientation(frame)[0] for frame in (reference, distorted)):
            coarsest = 1, 1  # a quarter turn exchanges the directions
        frames = [_with_chroma(frame, coarsest) for frame in frames]
    bits = max(frame.bits for frame in frames)
    x, y = (
        [turned(array, orientation(original)) for array in _arrays(frame, bits, mode)]
        for frame, original in zip(frames, (reference, distorted), strict=True)
    )
    full = frames[0].full
    if frames[0].rgb:
        return Matched(_picture(x, bits, full), _picture(y, bits, full))
    pairs = [(_picture([a], bits, full), _picture([b], bits, full)) for a, b in zip(x, y, strict=False)]
    return Matched(*pairs[0], tuple(pairs[1:]), (reference, distorted)) if len(pairs) == 3 else Matched(*pairs[0])


def _range_name(frame: _Planar) -> str:
    return "full range (0..255)" if frame.full else "limited range (16..235)"


def _picture(planes: Sequence[Array], bits: int, full: bool) -> Picture:
    tensors = [torch.from_numpy(plane) for plane in planes]
    return Picture(tensors[0][None] if len(tensors) == 1 else torch.stack(tensors), 2**bits - 1, full_range=full)


def _planar(frame: VideoFrame) -> _Planar:
    name = frame.format.name
    if name.startswith("yuvj"):  # the name alone says it
        frame.color_range = _FULL
    laid_out = frame if _PLANAR.fullmatch(name) else _reformatted(frame, planar_format(frame.format))
    # FFmpeg takes untagged grey for a picture's, which is of full range.
    full = frame.color_range == _FULL or laid_out.format.is_rgb
    full |= laid_out.format.name.startswith("gray") and frame.color_range != _LIMITED
    stored = tuple(component.bits for component in frame.format.components[:3])
    few = frame.format.is_rgb and not frame.format.has_palette and min(stored) < 8
    return _Planar(laid_out, full, stored if few else ())


def _arrays(frame: _Planar, bits: int, mode: Mode) -> list[Array]:
    """Red, green and blue, or luma and the chroma that the mode asks for, of a number of bits."""
    form = frame.frame.format
    order = (2, 0, 1) if form.is_rgb else (0, 1, 2) if form.name.startswith("yuv") and mode == "planes" else (0,)
    arrays = [_array(frame.frame.planes[place], form.name, frame.bits) for place in order]
    arrays = (
        [_stretched(array, few) for array, few in zip(arrays, frame.stored, strict=True)] if frame.stored else arrays
    )
    to_white = [frame.full and (frame.rgb or place == 0) for place in order]
    return [_deepened(array, frame.bits, bits, white) for array, white in zip(arrays, to_white, strict=True)]


def _array(plane: Any, name: str, bits: int) -> Array:
    """A view of the decoder's own memory, which the array keeps alive; a copy if its bytes or bits lie elsewhere."""
    import numpy as np

    values = np.frombuffer(plane, np.uint8 if bits == 8 else ">u2" if name.endswith("be") else "<u2")
    values = values.reshape(plane.height, -1)[:, : plane.width]
    if "msb" in name:
        values = values >> (_DEEPEST - bits)
    return values.astype(np.uint16) if name.endswith("be") else values


def _stretched(array: Array, bits: int) -> Array:
    """Values whose high bits are given, of 8 bits: 31 of 5 bits becomes 255, which FFmpeg makes 248."""
    import numpy as np

    values = np.arange(1 << bits) * 255 / ((1 << bits) - 1)
    return np.round(values).astype(np.uint8)[array >> (8 - bits)]


def _deepened(array: Array, few: int, bits: int, to_white: bool) -> Array:
    """Values of more bits; with ``to_white`` the high bits are repeated below, so that white stays white."""
    import numpy as np

    if few == bits:
        return array
    wide = array.astype(np.uint16)
    return (wide << (bits - few)) | (wide >> (2 * few - bits)) if to_white else wide << (bits - few)


def planar_format(form: VideoFormat) -> str:
    """The planar format that holds what this one holds, without its alpha.

    Raises:
        PairError: there is none, because values are floats, or lie in no three planes.

    """
    bits = max((component.bits for component in form.components), default=0)  # none of frames on a GPU
    if not bits or bits > _DEEPEST or form.is_bayer or form.name.startswith("xyz") or "f16" in form.name:
        raise PairError(f"pixel format {form.name} has no planes of integers that could be compared; convert the video")
    depth = next(d for d in (8, 9, 10, 12, 14, 16) if d >= bits)
    suffix = "" if depth == 8 else f"{depth}le"
    if form.is_rgb or form.has_palette:
        return f"gbrp{suffix}"
    if len(form.components) < 3:
        return f"gray{suffix}"
    shifts = _shifts(form)
    if shifts not in _CHROMA:
        raise PairError(f"pixel format {form.name} has no planes that could be compared; convert the video")
    return f"yuv{_CHROMA[shifts]}p{suffix}"


def _shifts(form: VideoFormat) -> tuple[int, int]:
    width, height = form.chroma_width(64), form.chroma_height(64)
    return 7 - width.bit_length(), 7 - height.bit_length()


def _with_chroma(frame: _Planar, shifts: tuple[int, ...]) -> _Planar:
    sampling = _CHROMA.get(shifts, "410")
    suffix = "" if frame.bits == 8 else f"{frame.bits}le"
    return _Planar(_reformatted(frame.frame, f"yuv{sampling}p{suffix}"), frame.full)


def _sampling(name: str) -> str:
    """Of a planar format's name ``yuv420p``, or ``gray``."""
    return "gray" if name.startswith("gray") else f"yuv{name[name.index('4') :][:3]}p"


def _reformatted(frame: VideoFrame, name: str) -> VideoFrame:
    try:
        # One thread: with several, swscale writes a few pixels past the end of a row while another thread writes the
        # next one, so that the first pixels of a slice are sometimes wrong.
        return frame.reformat(format=name, interpolation=_BICUBIC, threads=1)
    except (ValueError, OSError) as error:
        raise PairError(
            f"pixel format {frame.format.name} cannot be converted to {name}: {error}; convert the video first"
        ) from error


def rgb_of(frame: VideoFrame) -> Picture:
    """RGB as the ffmpeg program writes it to PNG files, of 16 bits if the frame has more than 8."""
    deep = max(component.bits for component in frame.format.components) > 8
    array = _reformatted(frame, "rgb48le" if deep else "rgb24").to_ndarray()
    return Picture(channels_first(turned(array, orientation(frame))), 65535 if deep else 255)


def deep_rgb_of(frame: VideoFrame) -> Picture:
    """RGB of 16 bits by one path for all depths, so that equal planes of any depth give equal pixels.

    FFmpeg interpolates the chroma of 8 bits otherwise than that of more; so all planes get 16 bits first.
    """
    planar = _planar(frame)
    if planar.rgb:
        arrays = [turned(array, orientation(frame)) for array in _arrays(planar, _DEEPEST, "rgb")]
        return _picture(arrays, _DEEPEST, full=True)
    sampling, deep = _sampling(planar.frame.format.name), planar.frame
    if sampling in ("yuv440p", "yuv411p", "yuv410p"):  # which FFmpeg does not have of 16 bits
        sampling = "yuv444p"
        deep = _reformatted(deep, sampling if planar.bits == 8 else f"{sampling}{planar.bits}le")
    array = _reformatted(_reformatted(deep, f"{sampling}{_DEEPEST}le"), "rgb48le").to_ndarray()
    return Picture(channels_first(turned(array, orientation(frame))), 65535)


Turn = tuple[bool, bool, bool]  # exchange the axes, then reverse rows, then reverse columns
UPRIGHT: Turn = (False, False, False)


def orientation(frame: VideoFrame) -> Turn:
    """What the display matrix asks players for.

    Raises:
        PairError: a turn by another angle than a multiple of 90 degrees.

    """
    import numpy as np
    from av.sidedata.sidedata import SideDataContainer

    # Not frame.side_data, which makes a reference cycle: frames would pile up until the garbage collector runs.
    container: Any = SideDataContainer  # whose stub leaves out its argument
    data = container(frame).get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) * 100 < straight:
        return False, d < 0, a < 0
    if max(abs(a), abs(d)) * 100 < crossed:
        return True, b < 0, c < 0
    raise PairError("the video's display matrix turns it by no multiple of 90 degrees; convert it to an upright one")


def turned(array: Array, turn: Turn) -> Array:
    """The array ``[H, W, ...]`` upright; itself if it is."""
    import numpy as np

    if turn == UPRIGHT:
        return array
    exchange, rows, columns = turn
    if exchange:
        array = array.swapaxes(0, 1)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def differences(reference: VideoFrame, distorted: VideoFrame) -> Iterator[str]:
    """Sentences on what the frames' headers say otherwise and the pixels do not show."""
    tags = [
        [f"{what} {_tag(getattr(frame, name), names)}" for what, name, names in _TAGS]
        for frame in (reference, distorted)
    ]
    if tags[0] != tags[1]:
        ours, theirs = (
            ", ".join(tag for tag, other in zip(*both, strict=True) if tag != other) for both in (tags, tags[::-1])
        )
        yield f"the colour tags differ: {ours} in the reference, {theirs} in the distorted video"
    if reference.interlaced_frame != distorted.interlaced_frame:
        which = "reference" if reference.interlaced_frame else "distorted video"
        yield f"the {which} is interlaced, the other is not; frames are compared with both fields woven"
    formats = [frame.format for frame in (reference, distorted)]
    if any(component.is_alpha for form in formats for component in form.components):
        yield "alpha is not compared"


def conversions(reference: VideoFrame, distorted: VideoFrame) -> Iterator[str]:
    """Sentences on what is changed so that planes can be compared."""
    frames = [_planar(reference), _planar(distorted)]
    names = f"{reference.format.name} and {distorted.format.name}"
    chroma = [frame.chroma for frame in frames]
    if not any(frame.rgb for frame in frames) and chroma[0] != chroma[1]:
        kept = "luma alone is compared" if None in chroma else "chroma is compared at the lower resolution of both"
        yield f"the pixel formats are {names}; {kept}"
    if frames[0].bits != frames[1].bits:
        yield f"the pixel formats are {names}; the fewer bits are scaled to the more"


def _tag(value: int, names: dict[int, str]) -> str:
    if value in (0, _UNSPECIFIED) and value not in names:
        return "unknown"
    return names.get(value, str(value))
