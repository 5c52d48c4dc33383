"""Frames of a video, of a folder of frames, or of a stream, one after the other."""

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
    """One frame of a sequence.

    Attributes:
        picture: its pixels, or None as long as it is planes of a video.
        frame: as FFmpeg decoded it, or None for a picture of a folder.

    """

    picture: Picture | None
    frame: VideoFrame | None = None

    @property
    def pixels(self) -> Picture:
        """The pixels, which have been converted."""
        assert self.picture is not None
        return self.picture


class Folder:
    """A folder of pictures as the frames of a video, in the order of the numbers in their names."""

    def __init__(self, path: str, limits: Limits = NO_LIMITS) -> None:
        self.path, self._limits, self._files = path, limits, frames_of(path)
        if not self._files:
            raise PairError(f"{path}: has no pictures in it")

    def count(self) -> int:
        return len(self._files)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Picture]]:
        for number in range(*slice(start, stop, step).indices(len(self._files))):
            try:
                picture = read_picture(self._files[number], self._limits)
            except Exception as error:  # whatever a decoder raises, of this file
                raise reading(self._files[number], error) from error.__cause__
            yield number, picture


class Animation:
    """A picture file's frames: of a GIF, an APNG, a WebP, a TIFF of several pages, or the one of a still picture."""

    def __init__(self, path: str, limits: Limits = NO_LIMITS) -> None:
        self.path, self._limits = path, limits

    def count(self) -> int:
        with opened_picture(self.path, self._limits) as file:
            return file.count

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Picture]]:
        with opened_picture(self.path, self._limits) as file:
            for number in range(*slice(start, stop, step).indices(file.count)):
                yield number, file.frame(number)


def open_sequence(
    path: str, threads: int = 1, limits: Limits = NO_LIMITS, raw: Raw | None = None
) -> Video | Folder | Animation:
    """The frames behind a path."""
    if path != STREAM and Path(path).is_dir():
        return Folder(path, limits)
    return Animation(path, limits) if has_pictures(path) else Video(path, threads, raw)


def has_pictures(path: str) -> bool:
    """Whether frames are read as pictures: those of a folder or of an animation."""
    return path != STREAM and (Path(path).is_dir() or (not is_video(path) and is_picture(path)))


class Ahead:
    """An iterator that runs in a thread of its own, at most ``depth`` elements ahead."""

    def __init__(self, elements: Iterator, depth: int) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
        self._over: BaseException | None = None  # what ended it, which is raised again by every later call
        self._thread = threading.Thread(target=self._run, args=(elements,), daemon=True)
        self._thread.start()

    def _run(self, elements: Iterator) -> None:
        try:
            for element in elements:
                if not self._put((element, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # handed to whoever asks for the next element
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
        """Stops the thread; one that waits for standard input is left behind, and ends with the process."""
        self._stopped.set()
        self._thread.join(timeout=1)
