"""Opens two sequences of frames, decides how they are compared (by plane, luma or RGB), and pairs their frames."""

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
    """Two sequences of frames that are compared.

    Args:
        reference: path of a video or a folder of frames, or ``-``.
        distorted: path of a video or a folder of frames, or ``-``.
        settings: how they are compared.

    Raises:
        PairError: a sequence cannot be opened.

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
        """Chooses planes if both videos are YUV or both are RGB, and RGB otherwise."""
        luma = self._settings.resolved().luma
        if len(self._videos) < 2:
            return "rgb"
        kinds = {video.facts.planes == "RGB" for video in self._videos}
        if self._settings.rgb:
            return "planes" if kinds == {True} else "rgb"
        if len(kinds) > 1 and not luma:
            self._notes.append("one video is RGB and the other YUV; both are compared as RGB")
        if kinds == {False}:
            return "luma" if luma else "planes"
        return "planes" if kinds == {True} and not luma else "rgb"

    def frames(self, frames: tuple[int, int | None, int]) -> Iterator[tuple[int, Matched | tuple[Picture, Picture]]]:
        """Yields each frame's number and pixels: matched planes, or two pictures.

        Raises:
            PairError: a frame cannot be read, decoded or matched, or the numbers of frames differ.

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
        """Returns the notes made since the last call, as sentences."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Stops the decoding threads."""
        for sequence in self._opened:
            sequence.close()

    def _shots(
        self, sequence: Video | Folder | Animation, span: tuple[int, int | None, int]
    ) -> Iterator[tuple[int, Shot]]:
        """Yields the frames. Any exception of a decoder becomes an error of the file, so that the run goes on."""
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
        # Next to pictures, a frame has the pixels that the ffmpeg program would have written to a picture file.
        return deep_rgb_of if len(self._videos) == 2 else rgb_of

    def _matched(self, first: Shot, second: Shot) -> Matched | tuple[Picture, Picture]:
        if first.frame is not None and second.frame is not None and self.mode != "rgb":
            return matched_planes(first.frame, second.frame, self.mode)
        return first.pixels, second.pixels

    def _clock(self) -> Clock:
        if len(self._videos) < 2:
            raise PairError("--align is pts, but folders and animations have no time stamps; use --align number")
        facts = [video.facts for video in self._videos]
        return Clock(facts[0].rate, facts[1].rate, max(f.tick for f in facts))

    def _unequal(self, frames: tuple[int, int | None, int], *counts: int) -> str:
        paths = [sequence.path for sequence in self._both]
        start, stop, step = frames
        whole = stop is None and step == 1 and (start == 0 or all(counts))
        within = "" if whole else " within --frames"
        left, right = (count + (start if whole else 0) for count in counts)
        told = f"{paths[0]} has {left} {'frame' if left == 1 else 'frames'}{within}, {paths[1]} has {right}"
        rates = [video.facts.rate for video in self._videos]
        if len(rates) < 2:
            return f"{told}; expected equal numbers of frames: a folder or an animation needs a picture for every frame"
        if rates[0] and rates[1] and rates[0] != rates[1]:
            told += f", at {_text(rates[0])} and {_text(rates[1])} frames per second"
        return f"{told}; expected equal numbers of frames, or use --align pts to match frames by time"


def planes_of(pair: Pair, settings: Settings) -> str:
    """Returns the planes that a pair's scores have columns for: ``"YUV"``, ``"RGB"``, or ``""``.

    Files are opened to find out. A stream is not; it is assumed to have the planes of the other file.
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
        return ""  # scoring the pair reports the reason
    if len(kinds) > 1 or kinds == {"Y"} or (settings.rgb and kinds == {"YUV"}):
        return ""
    return kinds.pop()


def _facts_of(video: Video) -> Facts:
    """Reads a header in another thread, because FFmpeg drops a keyboard interrupt while it waits for standard input."""
    try:
        return next(Ahead((opened.facts for opened in (video,)), 1))
    except Exception as error:
        raise reading(video.path, error) from error.__cause__


def _text(rate: Fraction) -> str:
    return f"{float(rate):.6g}"
