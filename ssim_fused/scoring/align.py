"""Which frame of one sequence meets which of the other: by number, or by time.

By time, both clocks start at the first frame. Each distorted frame meets the reference frame that is on display then:
the last one that begins no later than half a frame after it, at the higher of both frame rates.
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
    """Both sequences' frames in pairs ``(number, left, right)``.

    Raises:
        UnequalError: one has more frames; ``describe`` makes the message of how many each has, for which all are read.

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
    """How time is read off frames, and how exactly.

    Attributes:
        reference: frames a second.
        distorted: the same.
        tick: seconds by which rounding may have moved a time stamp.

    """

    reference: Fraction | None
    distorted: Fraction | None
    tick: Fraction

    @property
    def slack(self) -> Fraction:
        """How much later than the distorted frame its reference frame may begin."""
        rates = [rate for rate in (self.reference, self.distorted) if rate]
        half = Fraction(1, 2) / max(rates) if rates else Fraction(0)
        return half + (self.tick if self.tick * 4 < half else 0)


class ByTime:
    """Pairs ``(number, reference, distorted)``, the number being the distorted frame's.

    Args:
        reference: frames with numbers, from the first.
        distorted: the same.
        clock: their rates.
        frames: which frames of the distorted one are compared: start, stop and step.

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
        """Whether the frame after the reference's last one would be on display."""
        if not self._clock.reference:
            return False
        return now + self._clock.slack >= time_of(last, "reference") - zero + 1 / self._clock.reference

    def notes(self) -> Iterator[str]:
        """What remained without a partner."""
        left = self._passed - self._shown
        if left and self._frames == (0, None, 1):
            yield f"matched by time: {left} of the reference's {self._passed} frames met no distorted frame"
        if self._beyond:
            yield f"matched by time: after the reference's end, distorted frames were not scored: {self._beyond}"


def time_of(shot: Any, whose: str) -> Fraction:
    """Seconds on the clock of a shot's own video.

    Raises:
        PairError: the frame has no time stamp, as that of a folder or of bare H.264.

    """
    frame = shot.frame
    stamp = None if frame is None else frame.pts if frame.pts is not None else frame.dts
    if frame is None or stamp is None or not frame.time_base:
        raise PairError(f"the {whose} has no time stamps, so that --align pts cannot match its frames")
    return stamp * Fraction(frame.time_base)
