"""Iterates over the frames of a video, a folder of frames, an animation, or a stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssim_fused.scoring.errors import PairError, reading
from ssim_fused.scoring.pairs import frames_of, is_video
from ssim_fused.scoring.picture import NO_LIMITS, Picture, is_picture, opened_picture, read_picture
from ssim_fused.scoring.readers.samples import Limits
from ssim_fused.scoring.stream import STREAM
from ssim_fused.scoring.video import Raw, Video

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame of a sequence.

    Attributes:
        picture: the pixels, or None for a video that is compared by plane.
        frame: the frame decoded by FFmpeg, or None for a picture in a folder.

    """

    picture: Picture | None
    frame: VideoFrame | None = None

    @property
    def pixels(self) -> Picture:
        """The pixels of a shot that has a picture."""
        assert self.picture is not None
        return self.picture


class Folder:
    """A folder of pictures as the frames of a video, in the order of the numbers in their names."""

    def __init__(self, path: str, limits: Limits = NO_LIMITS) -> None:
        self.path, self._limits, self._files = path, limits, frames_of(path)
        if not self._files:
            raise PairError(f"{path}: the folder has no pictures; expected frames")

    def count(self) -> int:
        """Returns the number of frames."""
        return len(self._files)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Picture]]:
        """Yields the frames ``start:stop:step`` with their numbers."""
        for number in range(*slice(start, stop, step).indices(len(self._files))):
            try:
                picture = read_picture(self._files[number], self._limits)
            except Exception as error:  # decoders raise exceptions of any type
                raise reading(self._files[number], error) from error.__cause__
            yield number, picture


class Animation:
    """The frames of a picture file: a GIF, APNG, WebP or multi-page TIFF, or the single frame of a still picture."""

    def __init__(self, path: str, limits: Limits = NO_LIMITS) -> None:
        self.path, self._limits = path, limits

    def count(self) -> int:
        """Returns the number of frames."""
        with opened_picture(self.path, self._limits) as file:
            return file.count

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Picture]]:
        """Yields the frames ``start:stop:step`` with their numbers."""
        with opened_picture(self.path, self._limits) as file:
            for number in range(*slice(start, stop, step).indices(file.count)):
                yield number, file.frame(number)


def open_sequence(
    path: str, threads: int = 1, limits: Limits = NO_LIMITS, raw: Raw | None = None
) -> Video | Folder | Animation:
    """Opens a path as a sequence of frames."""
    if path != STREAM and Path(path).is_dir():
        return Folder(path, limits)
    return Animation(path, limits) if has_pictures(path) else Video(path, threads, raw)


def has_pictures(path: str) -> bool:
    """Returns whether the frames of a path are pictures, as those of a folder or an animation are."""
    return path != STREAM and (Path(path).is_dir() or (not is_video(path) and is_picture(path)))


class Ahead:
    """An iterator that runs in its own thread, at most ``depth`` elements ahead."""

    def __init__(self, elements: Iterator, depth: int) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
        self._over: BaseException | None = None  # the exception that ended it; every later call raises it again
        self._thread = threading.Thread(target=self._run, args=(elements,), daemon=True)
        self._thread.start()

    def _run(self, elements: Iterator) -> None:
        try:
            for element in elements:
                if not self._put((element, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # raised again by __next__ in the consumer's thread
            self._put((None, error))

    def _put(self, entry: tuple) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Ahead:
        return self

    def __next__(self):
        if self._over is not None:
            raise self._over
        element, self._over = self._queue.get()
        if self._over is not None:
            raise self._over
        return element

    def close(self) -> None:
        """Stops the thread. A thread that is blocked on standard input keeps running until the process exits."""
        self._stopped.set()
        self._thread.join(timeout=1)
