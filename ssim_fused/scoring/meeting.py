"""Two sequences of frames, opened together: how they are compared, and their frames in pairs of equal planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from ssim_fused.scoring.align import ByTime, Clock, by_number
from ssim_fused.scoring.errors import PairError, lacks_extra, reading
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.picture import Picture
from ssim_fused.scoring.planes import (
    Matched,
    Mode,
    conversions,
    deep_rgb_of,
    differences,
    matched_planes,
    rgb_of,
)
from ssim_fused.scoring.sequence import Ahead, Animation, Folder, Shot, has_pictures, open_sequence
from ssim_fused.scoring.settings import Settings
from ssim_fused.scoring.stream import is_stream
from ssim_fused.scoring.video import Facts, Video


class Meeting:
    """Two sequences of frames.

    Args:
        reference: path of a video or a folder of frames, or ``-``.
        distorted: the same.
        settings: how they are compared.

    Raises:
        PairError: one cannot be opened.

    """

    def __init__(self, reference: str, distorted: str, settings: Settings) -> None:
        threads = max(1, settings.workers // 2)
        self._settings = settings
        limits = settings.limits()
        self._both = [open_sequence(path, threads, limits, settings.raw) for path in (reference, distorted)]
        self._videos = [sequence for sequence in self._both if isinstance(sequence, Video)]
        self._notes: list[str] = [note for video in self._videos for note in _facts_of(video).notes]
        self.mode: Mode = self._choose()
        self._opened: list[Ahead] = []

    def _choose(self) -> Mode:
        """Planes if two videos both have luma and chroma, or both RGB; else RGB."""
        luma = self._settings.resolved().luma
        if len(self._videos) < 2:
            return "rgb"
        kinds = {video.facts.planes == "RGB" for video in self._videos}
        if self._settings.rgb:
            return "planes" if kinds == {True} else "rgb"
        if len(kinds) > 1 and not luma:
            self._notes.append("one video is RGB, the other luma and chroma; both are compared as RGB")
        if kinds == {False}:
            return "luma" if luma else "planes"
        return "planes" if kinds == {True} and not luma else "rgb"

    def frames(self, frames: tuple[int, int | None, int]) -> Iterator[tuple[int, Matched | tuple[Picture, Picture]]]:
        """The frames' numbers and pixels: planes that match, or two pictures.

        Raises:
            PairError: what cannot be read, decoded or matched, or another number of frames.

        """
        by_time = self._settings.align == "pts"
        ranges = ((0, None, 1), (0, frames[1], 1)) if by_time else (frames, frames)
        depth = 2 + self._settings.workers
        self._opened = [
            Ahead(self._shots(sequence, span), depth) for sequence, span in zip(self._both, ranges, strict=True)
        ]
        left, right = (iter(sequence) for sequence in self._opened)
        matcher = ByTime(left, right, self._clock(), frames) if by_time else None
        met = matcher or by_number(left, right, lambda *counts: self._unequal(frames, *counts))
        for count, (number, first, second) in enumerate(met):
            if count == 0 and first.frame is not None and second.frame is not None:
                self._notes += differences(first.frame, second.frame)
                self._notes += conversions(first.frame, second.frame) if self.mode == "planes" else ()
            yield number, self._matched(first, second)
        if matcher:
            self._notes += matcher.notes()

    def take_notes(self) -> list[str]:
        """What was noted since the last call, in sentences."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Ends the threads that decode."""
        for sequence in self._opened:
            sequence.close()

    def _shots(
        self, sequence: Video | Folder | Animation, span: tuple[int, int | None, int]
    ) -> Iterator[tuple[int, Shot]]:
        """The frames; a decoder's exception, whatever its type, is the file's trouble and not the run's."""
        try:
            if isinstance(sequence, Video):
                convert = self._converter()
                yield from ((number, Shot(convert(frame), frame)) for number, frame in sequence.frames(*span))
            else:
                yield from ((number, Shot(picture)) for number, picture in sequence.frames(*span))
        except Exception as error:
            raise reading(sequence.path, error) from error.__cause__

    def _converter(self) -> Callable[[Any], Picture | None]:
        if self.mode != "rgb":
            return lambda frame: None
        # Beside pictures a frame is what the ffmpeg program would have written to a picture.
        return deep_rgb_of if len(self._videos) == 2 else rgb_of

    def _matched(self, first: Shot, second: Shot) -> Matched | tuple[Picture, Picture]:
        if first.frame is not None and second.frame is not None and self.mode != "rgb":
            return matched_planes(first.frame, second.frame, self.mode)
        return first.pixels, second.pixels

    def _clock(self) -> Clock:
        if len(self._videos) < 2:
            raise PairError("--align pts matches the frames of two videos; folders and animations have no time stamps")
        facts = [video.facts for video in self._videos]
        return Clock(facts[0].rate, facts[1].rate, max(f.tick for f in facts))

    def _unequal(self, frames: tuple[int, int | None, int], *counts: int) -> str:
        paths = [sequence.path for sequence in self._both]
        start, stop, step = frames
        whole = stop is None and step == 1 and (start == 0 or all(counts))
        within = "" if whole else " in the range of --frames"
        left, right = (count + (start if whole else 0) for count in counts)
        told = f"{paths[0]} has {left} {'frame' if left == 1 else 'frames'}{within}, {paths[1]} has {right}"
        rates = [video.facts.rate for video in self._videos]
        if len(rates) < 2:
            return f"{told}; a folder or an animation needs a picture for every frame"
        if rates[0] and rates[1] and rates[0] != rates[1]:
            told += f", at {_text(rates[0])} and {_text(rates[1])} frames a second"
        return f"{told}; --align pts matches frames by their time"


def planes_of(pair: Pair, settings: Settings) -> str:
    """The planes that the scores of a pair have columns for: ``"YUV"``, ``"RGB"``, or none.

    Files are opened for it, except streams: of these the other file's planes are expected.
    """
    if not pair.sequence or pair.error or settings.resolved().luma:
        return ""
    files = [path for path in (pair.reference, pair.distorted) if not is_stream(path)]
    try:
        if any(map(has_pictures, files)):
            return ""
        kinds = {Video(path, 1, settings.raw).facts.planes for path in files} or {"YUV"}
    except Exception as error:
        if lacks_extra(error):
            raise
        return ""  # scoring the pair gives the reason
    if len(kinds) > 1 or kinds == {"Y"} or (settings.rgb and kinds == {"YUV"}):
        return ""
    return kinds.pop()


def _facts_of(video: Video) -> Facts:
    """What the header says, read in another thread: FFmpeg loses an interruption while it waits for standard input."""
    try:
        return next(Ahead((opened.facts for opened in (video,)), 1))
    except Exception as error:
        raise reading(video.path, error) from error.__cause__


def _text(rate: Fraction) -> str:
    return f"{float(rate):.6g}"
