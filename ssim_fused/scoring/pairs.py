"""Which files are compared with which: pairs of pictures, of folders, of videos.

Folders are paired by relative path without its ending, so that ``a/x.png`` meets ``b/x.jpg``; a folder beside a video
is the folder of its frames. What a file is, its ending says; files are opened here only if their ending is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssim_fused.scoring.errors import UsageError, reading
from ssim_fused.scoring.folders import Tree, is_junk, key_of, natural, read_tree, stem_of
from ssim_fused.scoring.picture import is_animation, is_picture
from ssim_fused.scoring.readers.formats import ENDINGS
from ssim_fused.scoring.stream import STREAM, is_stream
from ssim_fused.scoring.video import RAW_ENDINGS, can_open

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
        input: the distorted file or folder, or the list, that the pair is part of; scores are pooled by it.
        origin: the file and line that list the pair, or None.

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
    input: str | None = None
    origin: str | None = None


@cache
def picture_endings() -> frozenset[str]:
    """The endings of pictures that are read, less those of videos (MPEG is among Pillow's stubs)."""
    from PIL import Image

    readable = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return (frozenset(readable) | ENDINGS) - VIDEO_ENDINGS


def is_video(path: str) -> bool:
    """Whether the path is a stream or a video: by its ending, or by its content if no one knows the ending."""
    ending = Path(path).suffix.lower()
    if path == STREAM or ending in VIDEO_ENDINGS:
        return True
    if ending in picture_endings():
        return False
    if is_stream(path):
        return True
    if not Path(path).is_file():
        return False
    return not is_picture(path) and can_open(path)  # FFmpeg opens pictures as well


def frames_of(folder: str) -> list[str]:
    """A folder's pictures in the order of their numbers: a sequence of frames.

    Raises:
        PairError: the folder cannot be read.

    """
    try:
        names = [name for name in os.listdir(folder) if Path(name).suffix.lower() in picture_endings()]
    except OSError as error:
        raise reading(folder, error) from error
    return [str(Path(folder, name)) for name in sorted(names, key=natural) if not is_junk(name)]


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
    _check_streams(reference, distorted)
    for path in (reference, *distorted, *([mask] if mask else [])):
        _check_there(path)
    masks = Masks(mask)
    return [pair for other in distorted for pair in _pairs_of_two(reference, other, masks)]


def _check_streams(reference: str, distorted: Sequence[str]) -> None:
    """Refuses to read a stream twice."""
    if [reference, *distorted].count(STREAM) > 1:
        raise UsageError("'-' is given twice; there is one standard input, so one of the two must be a file.")
    if len(distorted) > 1 and is_stream(reference):
        raise UsageError(
            f"the reference {reference!r} is a stream, which can be read once, and {len(distorted)} distorted inputs "
            "are given; give a file as the reference, or one distorted input."
        )
    streams = [path for path in (reference, *distorted) if is_stream(path)]
    for path in streams:
        if streams.count(path) > 1:
            raise UsageError(f"the stream {path!r} is given twice, and can be read once; give a file.")


def _check_there(path: str) -> None:
    if path == STREAM:
        return
    try:
        os.stat(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path!r} does not exist.") from error
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte
        raise UsageError(f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


class Masks:
    """The mask of each reference: the same for all, or a folder's picture of the same name."""

    def __init__(self, mask: str | None) -> None:
        self._file = mask if mask and not Path(mask).is_dir() else None
        self._folder = mask if mask and self._file is None else None
        self._tree = read_tree(mask, picture_endings()) if mask and self._folder else None

    def of(self, relative: str) -> str | None:
        found = self._tree.find(key_of(stem_of(relative))) if self._tree else []
        return self._tree.path(found[0]) if self._tree and found else self._file

    def missing(self, mask: str | None, relative: str) -> str | None:
        if mask is None and self._folder:
            return f"--mask {self._folder} has no picture {stem_of(os.path.basename(relative))!r}"
        return None


def _pairs_of_two(reference: str, distorted: str, masks: Masks) -> Iterator[Pair]:
    folders = [path != STREAM and Path(path).is_dir() for path in (reference, distorted)]
    videos = [is_video(path) and not folder for path, folder in zip((reference, distorted), folders, strict=True)]
    for here, other, path in ((0, distorted, reference), (1, reference, distorted)):
        if path != STREAM and is_stream(path) and is_picture(other) and not is_animation(other):
            videos[here] = False  # what a FIFO has in it is not known; next to a picture it is one
    if any(folders) or any(videos):  # An animation is a video where the other one is a sequence of frames.
        videos = [video or (not folder and is_animation(path))
                  for path, video, folder in zip((reference, distorted), videos, folders, strict=True)]  # fmt: skip
    if all(folders):
        yield from _pairs_of_folders(reference, distorted, masks)
        return
    kinds = ["a folder" if f else "a video" if v else "a picture" for f, v in zip(folders, videos, strict=True)]
    if kinds != ["a picture"] * 2 and ("a picture" in kinds or not any(videos)):
        raise UsageError(
            f"{reference!r} is {kinds[0]} and {distorted!r} is {kinds[1]}; compare two pictures, two folders, two "
            "videos, or a video and a folder of its frames."
        )
    mask = masks.of(os.path.basename(reference))
    yield Pair(reference, distorted, any(videos), mask, masks.missing(mask, reference), distorted)


def _pairs_of_folders(reference: str, distorted: str, masks: Masks) -> Iterator[Pair]:
    endings = picture_endings() | VIDEO_ENDINGS
    ours, theirs = read_tree(reference, endings), read_tree(distorted, endings)
    unreadable = ours.unreadable.keys() | theirs.unreadable.keys()
    if not ours.files and not theirs.files and not unreadable:
        raise UsageError(f"neither {reference!r} nor {distorted!r} has a picture or a video in it.")
    for relative in sorted(unreadable, key=natural):
        reasons = [f"{tree.path(relative)} cannot be read: {tree.unreadable[relative]}"
                   for tree in (ours, theirs) if relative in tree.unreadable]  # fmt: skip
        yield Pair(ours.path(relative), theirs.path(relative), error="; ".join(reasons), input=distorted)
    for key in sorted(ours.files.keys() | theirs.files.keys(), key=natural):
        for stem, first, second in _by_exact_name(key, ours.find(key), theirs.find(key)):
            yield _pair_of_files(ours, first, theirs, second, stem, masks)


def _by_exact_name(
    key: str, first: Sequence[str], second: Sequence[str]
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """The candidates of both folders; where one has several Unicode forms of a name, each form is a pair of its own."""
    forms = [{stem_of(path) for path in side} for side in (first, second)]
    if max(len(form) for form in forms) < 2:
        yield key, first, second
        return
    for stem in sorted(forms[0] | forms[1], key=natural):
        ours, theirs = ([path for path in side if stem_of(path) == stem] for side in (first, second))
        yield stem, ours, theirs


def _pair_of_files(
    ours: Tree, first: Sequence[str], theirs: Tree, second: Sequence[str], stem: str, masks: Masks
) -> Pair:
    paths = ours.path((first or [stem])[0]), theirs.path((second or [stem])[0])
    mask = masks.of((first or [stem])[0])
    error = _unpaired(stem, (ours, first), (theirs, second)) or masks.missing(mask, stem)
    sequence = any(is_video(path) for path in (*first, *second))
    if not error and sequence and not all(is_video(path) for path in paths):
        error = "one is a video, the other a picture"
    return Pair(*paths, sequence, mask, error, theirs.folder)


def _unpaired(stem: str, *sides: tuple[Tree, Sequence[str]]) -> str | None:
    for tree, found in sides:
        if not found:
            return tree.missing(key_of(stem))
        if len(found) > 1:
            return "ambiguous: " + " and ".join(map(tree.path, found)) + " differ in their endings only"
        if found[0] in tree.special:
            return f"{tree.path(found[0])} is a device, a socket or a FIFO; only files are read from folders"
    return None


def check_any(pairs: Iterable[Pair], where: str) -> None:
    """Refuses a list without pairs: a run that compares nothing must not end well."""
    if not any(True for _ in pairs):
        raise UsageError(f"{where} has no pairs in it.")
