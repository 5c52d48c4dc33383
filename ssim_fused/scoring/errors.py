"""What goes wrong while scoring: one pair's trouble, which leaves the others alone, a wrong call, a failed write."""

from __future__ import annotations

# The modules of the extra [scoring], by the names they are imported by.
EXTRA = (
    "OpenEXR", "PIL", "av", "imagecodecs", "jinja2", "matplotlib", "netpbmfile", "numpy", "pi_heif", "tifffile", "tqdm",
)  # fmt: skip


class PairError(Exception):
    """Why one pair cannot be scored; its message stands in the results, and the next pair is scored."""


class UsageError(ValueError):
    """A call that cannot be meant: options that contradict each other, or an argument that does not exist."""


class OutputError(OSError):
    """A result that cannot be written: a full disk, a closed standard output."""


def one_line(text: str) -> str:
    """The text with line ends, control characters and undecodable bytes escaped, so that it stays on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def lacks_extra(error: Exception) -> bool:
    """Whether a module of the extra is not installed, which concerns the run and not a file."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRA


def reading(path: str, error: Exception) -> Exception:
    """What a reader's exception says of a file, whatever its type; of a module that is missing, itself."""
    if isinstance(error, PairError) or lacks_extra(error):
        return error
    if isinstance(error, OSError) and error.strerror:
        return PairError(f"{path}: {error.strerror}")
    return PairError(f"{path}: {type(error).__name__}: {error}")
