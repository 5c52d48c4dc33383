"""Determines which files are compared: pairs of pictures, of folders, of videos.

The files of two folders are paired by relative path without extension, so that ``a/x.png`` is compared with
``b/x.jpg``. A folder compared with a video holds its frames. The type of a file follows from its extension. Files are
opened here only if their extension is unknown.
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

# File extensions of common videos; FFmpeg offers no list of them.
VIDEO_ENDINGS = frozenset({
    ".264", ".265", ".266", ".3g2", ".3gp", ".amv", ".asf", ".avc", ".avi", ".divx", ".drc", ".dv", ".f4v", ".flv",
    ".gxf", ".h261", ".h263", ".h264", ".h265", ".h266", ".hevc", ".ismv", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v",
    ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf",
    ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".swf", ".ts", ".vc1", ".vob", ".vvc", ".webm", ".wmv",
    ".wtv", ".y4m",
}) | RAW_ENDINGS  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Paths of two pictures, or of two sequences of frames, that are compared.

    Attributes:
        reference: path of the reference picture, video or folder of frames; ``-`` is standard input.
        distorted: path of the distorted picture, video or folder of frames; ``-`` is standard input.
        sequence: whether both are sequences of frames: videos, folders of frames, or streams.
        mask: path of a picture whose luma weights the pixels, or None.
        error: the reason why the pair cannot be scored, if it is known before any file is opened.
        input: the distorted file or folder, or the list, that the pair belongs to. Scores are pooled per input.
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
    """Returns the file extensions of readable pictures, without those of videos (Pillow registers a stub for MPEG)."""
    from PIL import Image

    readable = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return (frozenset(readable) | ENDINGS) - VIDEO_ENDINGS


def is_video(path: str) -> bool:
    """Returns whether a path is a stream or a video, by its extension, or by its content if that is unknown."""
    ending = Path(path).suffix.lower()
    if path == STREAM or ending in VIDEO_ENDINGS:
        return True
    if ending in picture_endings():
        return False
    if is_stream(path):
        return True
    if not Path(path).is_file():
        return False
    return not is_picture(path) and can_open(path)  # FFmpeg opens pictures, too


def frames_of(folder: str) -> list[str]:
    """Lists the pictures of a folder in the order of the numbers in their names, as a sequence of frames.

    Raises:
        PairError: the folder cannot be read.

    """
    try:
        names = [name for name in os.listdir(folder) if Path(name).suffix.lower() in picture_endings()]
    except OSError as error:
        raise reading(folder, error) from error
    return [str(Path(folder, name)) for name in sorted(names, key=natural) if not is_junk(name)]


def find_pairs(reference: str, distorted: Sequence[str], mask: str | None = None) -> list[Pair]:
    """Pairs a reference with one or more distorted versions of it.

    Args:
        reference: path of a picture, folder or video; ``-`` is standard input.
        distorted: paths of the same kind. A folder compared with a video holds its frames.
        mask: path of a mask for all pairs, or of a folder of masks, which are paired with the reference files by
            relative path without extension.

    Raises:
        UsageError: a path does not exist, or a picture is compared with a folder or a video.

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
    """Refuses streams that would have to be read twice."""
    if [reference, *distorted].count(STREAM) > 1:
        raise UsageError(
            "'-' is given twice, but standard input can be read only once; give a file for one of the two."
        )
    if len(distorted) > 1 and is_stream(reference):
        raise UsageError(
            f"the reference {reference!r} is a stream, which can be read only once, but {len(distorted)} distorted "
            "inputs are given; give a file as the reference, or one distorted input."
        )
    streams = [path for path in (reference, *distorted) if is_stream(path)]
    for path in streams:
        if streams.count(path) > 1:
            raise UsageError(f"the stream {path!r} is given twice, but can be read only once; give a file.")


def _check_there(path: str) -> None:
    if path == STREAM:
        return
    try:
        os.stat(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path!r} does not exist; expected a picture, a folder or a video.") from error
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a null byte
        raise UsageError(f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


class Masks:
    """Finds the mask of each reference: the same for all, or the picture with the same name in a folder."""

    def __init__(self, mask: str | None) -> None:
        self._file = mask if mask and not Path(mask).is_dir() else None
        self._folder = mask if mask and self._file is None else None
        self._tree = read_tree(mask, picture_endings()) if mask and self._folder else None

    def of(self, relative: str) -> str | None:
        """Returns the path of the mask of a reference, given by its relative path, or None."""
        found = self._tree.find(key_of(stem_of(relative))) if self._tree else []
        return self._tree.path(found[0]) if self._tree and found else self._file

    def missing(self, mask: str | None, relative: str) -> str | None:
        """Returns an error if a folder of masks is given and has none for this reference."""
        if mask is None and self._folder:
            return f"--mask {self._folder} has no picture with the name {stem_of(os.path.basename(relative))!r}"
        return None


def _pairs_of_two(reference: str, distorted: str, masks: Masks) -> Iterator[Pair]:
    folders = [path != STREAM and Path(path).is_dir() for path in (reference, distorted)]
    videos = [is_video(path) and not folder for path, folder in zip((reference, distorted), folders, strict=True)]
    for here, other, path in ((0, distorted, reference), (1, reference, distorted)):
        if path != STREAM and is_stream(path) and is_picture(other) and not is_animation(other):
            videos[here] = False  # The content of a FIFO is unknown. Compared with a picture, it holds a picture.
    if any(folders) or any(videos):  # An animation is a video if the other input is a sequence of frames.
        videos = [video or (not folder and is_animation(path))
                  for path, video, folder in zip((reference, distorted), videos, folders, strict=True)]  # fmt: skip
    if all(folders):
        yield from _pairs_of_folders(reference, distorted, masks)
        return
    kinds = ["a folder" if f else "a video" if v else "a picture" for f, v in zip(folders, videos, strict=True)]
    if kinds != ["a picture"] * 2 and ("a picture" in kinds or not any(videos)):
        raise UsageError(
            f"{reference!r} is {kinds[0]}, but {distorted!r} is {kinds[1]}; expected two pictures, two folders, two "
            "videos, or a video and a folder of its frames."
        )
    mask = masks.of(os.path.basename(reference))
    yield Pair(reference, distorted, any(videos), mask, masks.missing(mask, reference), distorted)


def _pairs_of_folders(reference: str, distorted: str, masks: Masks) -> Iterator[Pair]:
    endings = picture_endings() | VIDEO_ENDINGS
    ours, theirs = read_tree(reference, endings), read_tree(distorted, endings)
    unreadable = ours.unreadable.keys() | theirs.unreadable.keys()
    if not ours.files and not theirs.files and not unreadable:
        raise UsageError(f"the folders {reference!r} and {distorted!r} have no pictures or videos; check the paths.")
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
    """Yields the candidates of both folders. If a name exists in several Unicode forms, each form is its own pair."""
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
        error = "one is a video and the other a picture; expected two files of the same kind"
    return Pair(*paths, sequence, mask, error, theirs.folder)


def _unpaired(stem: str, *sides: tuple[Tree, Sequence[str]]) -> str | None:
    for tree, found in sides:
        if not found:
            return tree.missing(key_of(stem))
        if len(found) > 1:
            return "ambiguous: " + " and ".join(map(tree.path, found)) + " differ only in their extensions; keep one"
        if found[0] in tree.special:
            return f"{tree.path(found[0])} is a device, a socket or a FIFO; only files are read from folders"
    return None


def check_any(pairs: Iterable[Pair], where: str) -> None:
    """Refuses a list without pairs, because a run that compares nothing must not succeed."""
    if not any(True for _ in pairs):
        raise UsageError(f"{where} has no pairs; expected at least one.")
