"""Exceptions of scoring: an error of one pair, which does not stop the run, a usage error, and a failed write."""

from __future__ import annotations

# Import names of the modules that the extra [scoring] installs.
EXTRA = (
    "OpenEXR", "PIL", "av", "imagecodecs", "jinja2", "matplotlib", "netpbmfile", "numpy", "pi_heif", "tifffile", "tqdm",
)  # fmt: skip


class PairError(Exception):
    """A pair that cannot be scored. Its message is printed with the results, and the run goes on with the next pair."""


class UsageError(ValueError):
    """An invalid call: an invalid or contradictory argument, or a path that does not exist."""


class OutputError(OSError):
    """A result that cannot be written, for example because the disk is full."""


def one_line(text: str) -> str:
    """Escapes line breaks, control characters and undecodable bytes, so that the text stays on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def lacks_extra(error: Exception) -> bool:
    """Returns whether the error is a missing module of the extra [scoring], which is not the fault of any file."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRA


def reading(path: str, error: Exception) -> Exception:
    """Converts a reader's exception to a :class:`PairError` that names the file; returns a missing module unchanged."""
    if isinstance(error, PairError) or lacks_extra(error):
        return error
    if isinstance(error, OSError) and error.strerror:
        return PairError(f"{path}: {error.strerror}")
    return PairError(f"{path}: {type(error).__name__}: {error}")
