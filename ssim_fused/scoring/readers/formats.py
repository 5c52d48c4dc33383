"""Detects the format of a file by its first bytes, and selects the reader that opens it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from .samples import Limits, Opened, ReadError

# The name of the format, a pattern for the start of the file, and the reader as "module:function".
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

# Formats read in this process: by Python code, or by widely used 8-bit decoders. All others are read in a worker.
IN_PROCESS = frozenset({"PNG", "JPEG", "BMP", "netpbm"})

# Extensions of picture files that Pillow does not list.
ENDINGS = frozenset({
    ".avifs", ".btf", ".exr", ".hdr", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".pam", ".pfm", ".tf8",
})  # fmt: skip


def format_of(data: bytes) -> str | None:
    """Returns the name of the format, or None if only one of Pillow's rarer plugins may read it."""
    return next((name for name, pattern, _ in _SIGNATURES if pattern.match(data[:64])), None)


def open_bytes(data: bytes, limits: Limits) -> Opened:
    """Opens a file of any format with its reader.

    Raises:
        ReadError: the file is broken or too large, or has a feature that its reader does not support.

    """
    name = format_of(data)
    reader = next((reader for other, _, reader in _SIGNATURES if other == name), _OTHER)
    module, _, function = reader.partition(":")
    return guarded(lambda: _opener(module, function or "open_file")(data, limits), name)


def _opener(module: str, function: str) -> Callable[[bytes, Limits], Opened]:
    return getattr(import_module(f"{__package__}.{module}"), function)


def guarded(work: Callable, name: str | None):
    """Calls a decoder and converts any exception to a one-line message.

    Raises:
        ReadError: the decoder raised an exception.

    """
    try:
        return work()
    except ReadError:
        raise
    except ModuleNotFoundError as error:
        raise ReadError(
            f"{name or 'this format'} needs the package {error.name}, which is not installed; run: pip install "
            "'ssim_fused[scoring]'"
        ) from error
    except MemoryError as error:
        raise ReadError("the pixels do not fit into memory") from error
    except Exception as error:  # decoders raise exceptions of any type: struct.error, TypeError, RuntimeError, ...
        words = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"broken or not supported{f' {name}' if name else ''}: {words[:300]}") from error
