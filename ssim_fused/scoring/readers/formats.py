"""What a file is, by its first bytes, and which reader opens it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from .samples import Limits, Opened, ReadError

# The format's name, what the file starts with, and the reader.
_SIGNATURES: list[tuple[str, re.Pattern[bytes], str]] = [
    (name, re.compile(pattern, re.DOTALL), reader)
    for name, pattern, reader in [
        ("PNG", rb"\x89PNG\r\n\x1a\n", "png"),
        ("JPEG", rb"\xff\xd8\xff", "jpeg"),
        ("BMP", rb"BM", "common:bmp"),
        ("netpbm", rb"P[1-7Ff]\s", "netpbm"),
        ("GIF", rb"GIF8[79]a", "common:gif"),
        ("WebP", rb"RIFF....WEBP", "common:webp"),
        ("TIFF", rb"II[*+]\0|MM\0[*+]", "tiff"),
        ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "codecs:jpeg2000"),
        ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "codecs:jpeg_xl"),
        ("AVIF", rb"....ftyp(avif|avis|....(....)*?(avif|avis))", "codecs:avif"),
        ("HEIF", rb"....ftyp(mif1|msf1|hei[cxms]|hev[cxms])", "codecs:heif"),
        ("Radiance", rb"#\?(RADIANCE|RGBE)", "codecs:radiance"),
        ("OpenEXR", rb"\x76\x2f\x31\x01", "codecs:openexr"),
    ]
]  # fmt: skip
_OTHER = "common:other"

# Python code, or decoders of 8 bits that every browser and every dataset relies on. All others run in a worker.
IN_PROCESS = frozenset({"PNG", "JPEG", "BMP", "netpbm"})

# Endings of pictures that Pillow does not list.
ENDINGS = frozenset({
    ".avifs", ".btf", ".exr", ".hdr", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".pam", ".pfm", ".tf8",
})  # fmt: skip


def format_of(data: bytes) -> str | None:
    """The format's name, or None if only Pillow's rarer plugins may know it."""
    return next((name for name, pattern, _ in _SIGNATURES if pattern.match(data[:64])), None)


def open_bytes(data: bytes, limits: Limits) -> Opened:
    """Opens a file of any format by its reader.

    Raises:
        ReadError: the file is broken, too large, or has what its reader does not read.

    """
    name = format_of(data)
    reader = next((reader for other, _, reader in _SIGNATURES if other == name), _OTHER)
    module, _, function = reader.partition(":")
    return guarded(lambda: _opener(module, function or "open_file")(data, limits), name)


def _opener(module: str, function: str) -> Callable[[bytes, Limits], Opened]:
    return getattr(import_module(f"{__package__}.{module}"), function)


def guarded(work: Callable, name: str | None):
    """Calls a decoder; whatever it raises becomes one line.

    Raises:
        ReadError: the decoder raised something.

    """
    try:
        return work()
    except ReadError:
        raise
    except ModuleNotFoundError as error:
        raise ReadError(
            f"{name or 'this format'} is read by the package {error.name}, which is missing; pip install "
            "'ssim_fused[scoring]'"
        ) from error
    except MemoryError as error:
        raise ReadError("does not fit into memory") from error
    except Exception as error:  # decoders raise what they like: struct.error, TypeError, RuntimeError, ...
        words = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"broken or not supported{f' {name}' if name else ''}: {words[:300]}") from error
