"""Reads PNG with libpng from imagecodecs, and APNG with Pillow.

Pillow reduces 16-bit color to 8 bits, and reads the transparent shade of 2-bit and 4-bit grey incorrectly. Checksums
are verified here, because neither library always verifies them.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError

_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
# Chunks that pixels depend on. All others are dropped, so that a large or broken one does no harm.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", *_ANIMATION})
_MARK = 8


def interlaced(data: bytes) -> bool:
    """Returns whether a PNG is interlaced.

    For such files libpng prints a warning about its use by imagecodecs on standard error. A worker process discards it.
    """
    return data[28:29] != b"\0"


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens a PNG, or an 8-bit APNG."""
    needed, kinds, exif = _checked(data)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    limits.check_size(width, height)
    orientation = orientation_of(exif)
    if b"acTL" not in kinds:
        return Opened(1, lambda _: _by_libpng(needed, orientation))
    if data[24] > 8:
        raise ReadError(
            f"animated PNG of {data[24]} bits is not supported: the decoder reduces frames to 8 bits; convert it to "
            "video"
        )
    from PIL.PngImagePlugin import PngImageFile

    from .common import raw_of

    image = PngImageFile(io.BytesIO(needed))
    # Pillow counts a default image that is not part of the animation as frame 0.
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
    """Returns the file with only the needed chunks, the types of all chunks, and the EXIF data.

    Raises:
        ReadError: a chunk is truncated, or its checksum is wrong.

    """
    kept: list[bytes | memoryview] = [data[:_MARK]]
    kinds, exif = set[bytes](), None
    for kind, chunk in _chunks(data):
        kinds.add(kind)
        if kind in _NEEDED or kind == b"eXIf":
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ReadError(f"broken PNG: the checksum of a chunk {kind.decode()} is wrong")
        elif not kind[0] & 0x20:
            raise ReadError(f"broken PNG: unknown critical chunk {kind!r}")
        if kind in _NEEDED:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = bytes(chunk[8:-4])
    if not {b"IHDR", b"IDAT", b"IEND"} <= kinds or data[12:16] != b"IHDR":
        raise ReadError("broken PNG: truncated before the last chunk")
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
