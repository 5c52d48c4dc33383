"""Which files are compared with which: pairs of pictures, of folders, of videos, or listed in a CSV file.

Folders are paired by relative path without its ending, so that ``a/x.png`` meets ``b/x.jpg``; a folder beside a video
is the folder of its frames. What a file is, its ending says; files are opened here only if their ending is unknown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.video import RAW_ENDINGS, STREAM, can_open

# What FFmpeg's demuxers do not list by ending in one place, and people have on disk.
VIDEO_ENDINGS = frozenset({
    ".264", ".265", ".266", ".3g2", ".3gp", ".amv", ".asf", ".avc", ".avi", ".divx", ".drc", ".dv", ".f4v", ".flv",
    ".gxf", ".h261", ".h263", ".h264", ".h265", ".h266", ".hevc", ".ismv", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v",
    ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf",
    ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".swf", ".ts", ".vc1", ".vob", ".vvc", ".webm", ".wmv",
    ".wtv", ".y4m",
}) | RAW_ENDINGS  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures, or two sequences of frames, as paths; ``error`` where there is nothing to compare.

    Attributes:
        reference: path of the undistorted picture, video or folder of frames, or ``-``.
        distorted: path of what is compared with it.
        sequence: whether both are sequences of frames: videos, a folder of frames, a stream.
        mask: path of a picture whose brightness weighs the pixels, or None.
        error: why the pair cannot be scored, known before any file is opened.

    Example:
        >>> from ssim_fused.scoring import Pair, compare
        >>> pairs = [Pair("clean/cat.png", "restored/cat.png"), Pair("clean/dog.png", "clean/dog.png")]
        >>> compare(pairs=pairs)["pairs"][1]["ssim"]
        1.0

    """

    reference: str
    distorted: str
    sequence: bool = False
    mask: str | None = None
    error: str | None = None


@cache
def picture_endings() -> frozenset[str]:
    """The endings of the files that Pillow reads, less those of videos (MPEG is among its stubs)."""
    from PIL import Image

    readable = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(readable) - VIDEO_ENDINGS


def is_video(path: str) -> bool:
    """Whether the path is the stream or a video: by its ending, or by its content if no one knows the ending."""
    ending = Path(path).suffix.lower()
    if path == STREAM or ending in VIDEO_ENDINGS:
        return True
    return ending not in picture_endings() and Path(path).is_file() and can_open(path)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts ``frame10`` behind ``frame9``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def frames_of(folder: str) -> list[str]:
    """A folder's pictures in the order of their numbers: a sequence of frames."""
    names = [p.name for p in Path(folder).iterdir() if p.suffix.lower() in picture_endings()]
    return [str(Path(folder, name)) for name in sorted(names, key=natural)]


def find_pairs(reference: str, distorted: Sequence[str], mask: str | None = None) -> list[Pair]:
    """Pairs of one reference with one or more distorted versions of it.

    Args:
        reference: a picture, a folder, a video, or ``-``.
        distorted: of the same kind each; a folder beside a video holds its frames.
        mask: a picture for all pairs, or a folder whose pictures are paired with the reference's by relative path
            without ending.

    Raises:
        UsageError: a path that does not exist, or a picture beside a folder or a video.

    Example:
        >>> from ssim_fused.scoring import find_pairs
        >>> [pair.distorted for pair in find_pairs("clean", ["restored"])]
        ['restored/cat.png', 'restored/dog.png']

    """
    if [reference, *distorted].count(STREAM) > 1:
        raise UsageError("'-' is given twice; there is one standard input, so one of the two must be a file.")
    for path in (reference, *distorted, *([mask] if mask else [])):
        if path != STREAM and not Path(path).exists():
            raise UsageError(f"{path!r} does not exist.")
    masks = _Masks(mask)
    return [pair for other in distorted for pair in _pairs_of_two(reference, other, masks)]


def read_pairs(listing: str, mask: str | None = None) -> list[Pair]:
    """Pairs from a CSV file of the columns ``reference, distorted``, and ``mask`` where there are three.

    The first line may name them. Paths are those of the current folder. A file that is missing is found out when its
    pair is scored.

    Args:
        listing: path of the CSV file.
        mask: as for :func:`find_pairs`, of the lines that name none.

    Raises:
        UsageError: the file is missing, or a line has another number of columns.

    Example:
        >>> from ssim_fused.scoring import read_pairs
        >>> read_pairs("pairs.csv")[0].reference
        'clean/cat.png'

    """
    masks = _Masks(mask)
    try:
        with open(listing, newline="", encoding="utf-8") as file:
            return [_listed(listing, number, row, masks) for number, row in _rows(file)]
    except OSError as error:
        raise UsageError(f"--pairs {listing}: {error.strerror}.") from error


def _rows(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(csv.reader(file), start=1):
        cells = [cell.strip() for cell in row]
        if any(cells) and not (number == 1 and cells[:2] == ["reference", "distorted"]):
            yield number, cells


def _listed(listing: str, number: int, row: Sequence[str], masks: _Masks) -> Pair:
    if len(row) not in (2, 3):
        raise UsageError(
            f"--pairs {listing}, line {number}: {len(row)} columns, expected reference,distorted or "
            "reference,distorted,mask."
        )
    reference, distorted = row[:2]
    if STREAM in row:
        raise UsageError(f"--pairs {listing}, line {number}: '-' cannot be listed; give it as an argument.")
    sequence = is_video(reference) or is_video(distorted)
    mask = row[2] if len(row) == 3 and row[2] else masks.of(Path(reference).name)
    return Pair(reference, distorted, sequence, mask, masks.missing(mask, reference))


class _Masks:
    """The mask of each reference: the same for all, or a folder's picture of the same name."""

    def __init__(self, mask: str | None) -> None:
        self._file = mask if mask and not Path(mask).is_dir() else None
        self._folder = mask if mask and self._file is None else None
        self._found = _by_stem(mask) if mask and self._folder else {}

    def of(self, relative: str) -> str | None:
        found = self._found.get(_stem(relative), [])
        return self._file or (found[0] if found else None)

    def missing(self, mask: str | None, relative: str) -> str | None:
        if mask is None and self._folder:
            return f"--mask {self._folder} has no picture {_stem(Path(relative).name)!r}"
        return None


def _pairs_of_two(reference: str, distorted: str, masks: _Masks) -> Iterator[Pair]:
    folders = [path != STREAM and Path(path).is_dir() for path in (reference, distorted)]
    videos = [is_video(path) and not folder for path, folder in zip((reference, distorted), folders, strict=True)]
    if all(folders):
        yield from _pairs_of_folders(reference, distorted, masks)
    elif any(videos) and all(v or f for v, f in zip(videos, folders, strict=True)):
        mask = masks.of(Path(reference).name)
        yield Pair(reference, distorted, True, mask, masks.missing(mask, reference))
    elif any(folders) or any(videos):
        kinds = ["a folder" if f else "a video" if v else "a picture" for f, v in zip(folders, videos, strict=True)]
        raise UsageError(
            f"{reference!r} is {kinds[0]} and {distorted!r} is {kinds[1]}; compare two pictures, two folders, two "
            "videos, or a video and a folder of its frames."
        )
    else:
        mask = masks.of(Path(reference).name)
        yield Pair(reference, distorted, False, mask, masks.missing(mask, reference))


def _pairs_of_folders(reference: str, distorted: str, masks: _Masks) -> Iterator[Pair]:
    ours, theirs = _by_stem(reference), _by_stem(distorted)
    if not ours and not theirs:
        raise UsageError(f"neither {reference!r} nor {distorted!r} has a picture or a video in it.")
    for stem in sorted(ours.keys() | theirs.keys(), key=natural):
        first, second = ours.get(stem, []), theirs.get(stem, [])
        pair = (first or [f"{reference}/{stem}"])[0], (second or [f"{distorted}/{stem}"])[0]
        mask = masks.of(stem)
        error = _unpaired(reference, first, distorted, second) or masks.missing(mask, stem)
        sequence = any(is_video(path) for path in (*first, *second))
        if not error and sequence and not all(is_video(path) for path in pair):
            error = "one is a video, the other a picture"
        yield Pair(*pair, sequence, mask, error)


def _unpaired(reference: str, first: Sequence[str], distorted: str, second: Sequence[str]) -> str | None:
    for folder, found in ((reference, first), (distorted, second)):
        if not found:
            return f"{folder} has no file of this name"
        if len(found) > 1:
            return "ambiguous: " + " and ".join(found) + " differ in their endings only"
    return None


def _stem(relative: str) -> str:
    return Path(relative).with_suffix("").as_posix()


def _by_stem(folder: str) -> dict[str, list[str]]:
    """A folder's pictures and videos, by relative path without ending."""
    found: dict[str, list[str]] = {}
    endings = picture_endings() | VIDEO_ENDINGS
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in endings and path.is_file():
            found.setdefault(_stem(str(path.relative_to(folder))), []).append(str(path))
    return found
