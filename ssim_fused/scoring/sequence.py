"""Frames of a video, of a folder of frames, or of a stream, one after the other; decoded by PyAV.

With ``planes="Y"`` a frame is the luma plane where FFmpeg's decoder put it, without a copy or a conversion; with
``"RGB"`` FFmpeg converts. A video is cut into ranges by the time stamps of its packets, which are read without
decoding, so that several processes share one video, and ``--frames`` starts at the key frame before.
"""

from __future__ import annotations

import queue
import re
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from ssim_fused.scoring.errors import PairError, reading
from ssim_fused.scoring.pairs import STREAM, frames_of, is_video
from ssim_fused.scoring.picture import NO_LIMITS, Picture, channels_first, is_picture, opened_picture, read_picture
from ssim_fused.scoring.readers.samples import Limits

Planes = Literal["Y", "RGB"]

# Luma alone in the first plane, little-endian in the low bits; what is not is brought there without touching luma.
_PLANAR = re.compile(r"(yuv[aj]?4\d\dp|gray)(9|10|12|14|16)?(le)?|nv(12|16|21|24)")
_TO_PLANAR = {"yuyv422": "yuv422p", "uyvy422": "yuv422p", "p010le": "yuv420p10le", "p016le": "yuv420p16le",
              "p210le": "yuv422p10le", "p410le": "yuv444p10le"}  # fmt: skip
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class Video:
    """A video file, or a y4m stream on standard input."""

    def __init__(self, path: str, planes: Planes, threads: int) -> None:
        self.path, self._planes, self._threads = path, planes, threads
        self._index: list[int] | None = None

    def count(self) -> int | None:
        """How many frames there are, None where only decoding can tell."""
        return len(self._stamps()) or None

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Picture]]:
        """The frames ``start:stop:step`` with their numbers."""
        with self._opened() as (container, stream):
            stream.thread_type, stream.thread_count = "AUTO", self._threads
            number, first = 0, None
            if start and (stamps := self._stamps()):
                if start >= len(stamps):
                    return
                first = stamps[start]
                container.seek(first, stream=stream, backward=True)
            for frame in container.decode(stream):
                if first is not None:
                    if frame.pts is not None and frame.pts < first:
                        continue
                    number, first = start, None
                if stop is not None and number >= stop:
                    return
                if number >= start and (number - start) % step == 0:
                    yield number, self._picture(frame)
                number += 1

    def _stamps(self) -> list[int]:
        """The time stamps of all frames in the order of display; empty where packets do not tell them."""
        if self._index is None:
            self._index = []
            if self.path != STREAM:
                with self._opened() as (container, stream):
                    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
                    stamps = [p.pts for p in packets if p.pts is not None]
                    if len(stamps) == len(packets) == len(set(stamps)):
                        self._index = sorted(stamps)
        return self._index

    @contextmanager
    def _opened(self) -> Generator[tuple[Any, Any]]:
        import av

        try:
            stream = self.path == STREAM
            # The raw file has no lock, which a stalled read would hold while the interpreter ends.
            source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer) if stream else f"file:{self.path}"
            # Only files are opened: a name such as 12:30.mp4 is no protocol, and a playlist reaches no network.
            options = {} if stream else {"protocol_whitelist": "file"}
            with av.open(source, format="yuv4mpegpipe" if stream else None, options=options) as container:
                if not container.streams.video:
                    raise PairError(f"{self.path}: has no video in it")
                yield container, container.streams.video[0]
        except (av.FFmpegError, OSError) as error:
            raise PairError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error

    def _picture(self, frame) -> Picture:
        if self._planes == "Y" and not frame.format.is_rgb and frame.format.name != "pal8":
            return luma_plane(frame)
        deep = max(component.bits for component in frame.format.components) > 8
        # As FFmpeg writes frames to PNG files, so that these score 1 beside their video.
        array = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        return Picture(channels_first(array), 65535 if deep else 255)


def luma_plane(frame) -> Picture:
    """The luma of a frame of FFmpeg, a view of its memory where the format is planar."""
    import numpy as np

    name = frame.format.name
    if not _PLANAR.fullmatch(name):
        if name not in _TO_PLANAR:
            raise PairError(f"pixel format {name} has no luma plane that could be read; leave out --luma")
        frame = frame.reformat(format=_TO_PLANAR[name])
    bits = frame.format.components[0].bits
    # A view of the decoder's own memory, which the array keeps alive.
    plane = np.frombuffer(frame.planes[0], np.uint8 if bits == 8 else np.uint16)
    rows = plane.reshape(frame.planes[0].height, -1)[: frame.height, : frame.width]
    full = frame.color_range == _FULL_RANGE or name.startswith(("yuvj", "gray"))
    return Picture(torch.from_numpy(rows)[None], 2**bits - 1, full_range=full)


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


def open_sequence(path: str, planes: Planes, threads: int, limits: Limits = NO_LIMITS) -> Video | Folder | Animation:
    """The frames behind a path."""
    if path != STREAM and Path(path).is_dir():
        return Folder(path, limits)
    return Animation(path, limits) if has_pictures(path) else Video(path, planes, threads)


def has_pictures(path: str) -> bool:
    """Whether frames are read as pictures: those of a folder or of an animation."""
    return path != STREAM and (Path(path).is_dir() or (not is_video(path) and is_picture(path)))


class Ahead:
    """An iterator that runs in a thread of its own, at most ``depth`` elements ahead."""

    def __init__(self, elements: Iterator, depth: int) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
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
        element, error = self._queue.get()
        if error is not None:
            raise error
        return element

    def close(self) -> None:
        """Stops the thread; one that waits for standard input is left behind, and ends with the process."""
        self._stopped.set()
        self._thread.join(timeout=1)
