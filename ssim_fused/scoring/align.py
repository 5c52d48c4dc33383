"""Matches the frames of two sequences, by number or by time.

When frames are matched by time, both clocks start at the first frame. Each distorted frame is compared with the
reference frame on display at that time: the last one that starts at most half a frame later, where a frame's duration
is that of the higher frame rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ssim_fused.scoring.errors import PairError

Numbered = tuple[int, Any]


class UnequalError(PairError):
    """One sequence ended before the other."""


def by_number(left: Iterator[Numbered], right: Iterator[Numbered], describe: Callable[[int, int], str]) -> Iterator:
    """Yields the frames of both sequences in pairs ``(number, left, right)``.

    Raises:
        UnequalError: one sequence has more frames. The rest is read to count them, and ``describe(left, right)``
            returns the message for the two counts.

    """
    met = 0
    while True:
        first, second = next(left, None), next(right, None)
        if first is None and second is None:
            return
        if first is None or second is None:
            more = sum(1 for _ in (left if second is None else right)) + 1
            counts = (met + more, met) if second is None else (met, met + more)
            raise UnequalError(describe(*counts))
        met += 1
        yield first[0], first[1], second[1]


@dataclass
class Clock:
    """The frame rates of two videos and the precision of their time stamps.

    Attributes:
        reference: frames per second of the reference, or None if unknown.
        distorted: frames per second of the distorted video, or None if unknown.
        tick: the largest rounding error of a time stamp, in seconds.

    """

    reference: Fraction | None
    distorted: Fraction | None
    tick: Fraction

    @property
    def slack(self) -> Fraction:
        """The time in seconds by which a reference frame may start later than the distorted frame it is matched to."""
        rates = [rate for rate in (self.reference, self.distorted) if rate]
        half = Fraction(1, 2) / max(rates) if rates else Fraction(0)
        return half + (self.tick if self.tick * 4 < half else 0)


class ByTime:
    """Iterates over pairs ``(number, reference, distorted)``, where ``number`` is that of the distorted frame.

    Args:
        reference: numbered frames of the reference, starting at the first.
        distorted: numbered frames of the distorted video, starting at the first.
        clock: the frame rates of both.
        frames: the distorted frames to compare, as start, stop and step.

    """

    def __init__(
        self,
        reference: Iterator[Numbered],
        distorted: Iterator[Numbered],
        clock: Clock,
        frames: tuple[int, int | None, int],
    ) -> None:
        self._reference, self._distorted, self._clock, self._frames = reference, distorted, clock, frames
        self._shown = self._met = self._beyond = self._passed = 0

    def __iter__(self) -> Iterator[tuple[int, Any, Any]]:
        start, stop, step = self._frames
        shown, upcoming = self._next(), self._next()
        zero: tuple[Fraction, Fraction] | None = None
        counted = -1
        for number, frame in self._distorted:
            if stop is not None and number >= stop:
                return
            if shown is None:
                break
            if zero is None:
                zero = time_of(shown[1], "reference"), time_of(frame, "distorted video")
            now = time_of(frame, "distorted video") - zero[1]
            while upcoming is not None and time_of(upcoming[1], "reference") - zero[0] <= now + self._clock.slack:
                shown, upcoming = upcoming, self._next()
            if number < start or (number - start) % step:
                continue
            if upcoming is None and self._is_over(shown[1], zero[0], now):
                self._beyond += 1
                continue
            self._shown += shown[0] != counted
            counted = shown[0]
            self._met += 1
            yield number, shown[1], frame
        self._passed += sum(1 for _ in self._reference)

    def _next(self) -> Numbered | None:
        frame = next(self._reference, None)
        self._passed += frame is not None
        return frame

    def _is_over(self, last: Any, zero: Fraction, now: Fraction) -> bool:
        """Returns whether the reference has ended, so that its last frame is no longer on display."""
        if not self._clock.reference:
            return False
        return now + self._clock.slack >= time_of(last, "reference") - zero + 1 / self._clock.reference

    def notes(self) -> Iterator[str]:
        """Yields a sentence about the frames of each video that were not compared."""
        left = self._passed - self._shown
        if left and self._frames == (0, None, 1):
            yield f"matched by time: {left} of the {self._passed} reference frames match no distorted frame"
        if self._beyond:
            yield f"matched by time: {self._beyond} distorted frames after the end of the reference were not scored"


def time_of(shot: Any, whose: str) -> Fraction:
    """Returns the time stamp of a frame in seconds, on the clock of its video.

    Raises:
        PairError: the frame has no time stamp, such as one from a folder or from an H.264 elementary stream.

    """
    frame = shot.frame
    stamp = None if frame is None else frame.pts if frame.pts is not None else frame.dts
    if frame is None or stamp is None or not frame.time_base:
        raise PairError(f"the {whose} has no time stamps, which --align pts needs; use --align number")
    return stamp * Fraction(frame.time_base)
