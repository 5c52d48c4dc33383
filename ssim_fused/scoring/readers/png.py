"""PNG by libpng from imagecodecs, APNG by Pillow.

Pillow reduces 16 bits of color to 8, and reads the transparent shade of grey of 2 and 4 bits wrongly. Checksums are
verified here, since neither library always does.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError

_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
# What pixels depend on. Others may be large, compressed or broken without a meaning here.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", *_ANIMATION})
_MARK = 8


def interlaced(data: bytes) -> bool:
    """Whether libpng complains, on standard error, about how imagecodecs calls it; a worker has none."""
    return data[28:29] != b"\0"


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens a PNG, or an APNG of 8 bits."""
    needed, kinds, exif = _checked(data)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    limits.check_size(width, height)
    orientation = orientation_of(exif)
    if b"acTL" not in kinds:
        return Opened(1, lambda _: _by_libpng(needed, orientation))
    if data[24] > 8:
        raise ReadError("an animated PNG of 16 bits is not read; its frames would be reduced to 8 bits")
    from PIL.PngImagePlugin import PngImageFile

    from .common import raw_of

    image = PngImageFile(io.BytesIO(needed))
    # A default image that is not part of the animation is its frame 0 in Pillow.
    skipped = int(bool(getattr(image, "default_image", False)))

    def frame(number: int) -> Raw:
        if image.n_frames > 1:
            image.seek(number + skipped)
        raw = raw_of(image)
        raw.orientation = orientation
        return raw

    return Opened(getattr(image, "n_frames", 1) - skipped, frame)


def _by_libpng(data: bytes, orientation: int) -> Raw:
    from imagecodecs import png_decode

    samples = png_decode(data)
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    return Raw(
        samples,
        "grey" if channels < 3 else "rgb",
        samples.dtype.itemsize * 8,
        alpha="straight" if channels in (2, 4) else None,
        orientation=orientation,
    )


def _checked(data: bytes) -> tuple[bytes, set[bytes], bytes | None]:
    """The file of needed chunks alone, the kinds of its chunks, and its EXIF.

    Raises:
        ReadError: a chunk is cut off or its checksum is wrong.

    """
    kept: list[bytes | memoryview] = [data[:_MARK]]
    kinds, exif = set[bytes](), None
    for kind, chunk in _chunks(data):
        kinds.add(kind)
        if kind in _NEEDED or kind == b"eXIf":
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ReadError(f"broken PNG: the checksum of a chunk {kind.decode()} is wrong")
        elif not kind[0] & 0x20:
            raise ReadError(f"broken PNG: it has a critical chunk {kind!r}")
        if kind in _NEEDED:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = bytes(chunk[8:-4])
    if not {b"IHDR", b"IDAT", b"IEND"} <= kinds or data[12:16] != b"IHDR":
        raise ReadError("broken PNG: truncated before its last chunk")
    return b"".join(kept), kinds, exif


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    at, view = _MARK, memoryview(data)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if at + 12 + size > len(data):
            return
        yield kind, view[at : at + 12 + size]
        at += 12 + size
        if kind == b"IEND":
            return
