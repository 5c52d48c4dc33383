"""Decodes video files and y4m streams with PyAV, and numbers their frames exactly.

Frame k is the k-th frame obtained by decoding from the start. If ``packets.py`` can number frames by their packets,
decoding of a later range starts at a key frame; otherwise frames are counted from the first one. Files are opened here
and passed to FFmpeg as file objects. So no file name or playlist reaches FFmpeg's protocols, and the format of a file
follows from its content, not its extension.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from ssim_fused.scoring.complete import missing_bytes
from ssim_fused.scoring.errors import PairError, UsageError
from ssim_fused.scoring.packets import Entry, Index, LostError, read_index
from ssim_fused.scoring.stream import Stream, check_y4m, is_stream, name_of

if TYPE_CHECKING:
    from av import VideoFrame

# Extensions of raw video files, whose layout is given by --size and --pix-fmt.
RAW_ENDINGS = frozenset({".yuv", ".raw", ".i420", ".nv12", ".p010", ".uyvy", ".yuyv", ".v210"})

_READ = 1 << 20  # bytes that FFmpeg requests per call into Python
_CHECKED = 16  # the number of first frames whose time stamps must match those of the packets
_ALONE = {"protocol_whitelist": "none"}  # for demuxers that open other files without io_open, such as concat
# Formats that FFmpeg opens as videos although they are text, a single picture, or a list of other files.
_NO_VIDEOS = ("tty", "bin", "xbin", "adf", "idf", "image2", "gif", "apng", "webp", "concat", "hls", "dash", "sdp")


@dataclass(frozen=True)
class Raw:
    """The layout of a raw video file, which has no header.

    Attributes:
        width: pixels in a row.
        height: number of rows.
        pix_fmt: FFmpeg's name of the pixel format.

    """

    width: int
    height: int
    pix_fmt: str

    def __post_init__(self) -> None:
        from av import VideoFormat

        try:
            VideoFormat(self.pix_fmt, self.width, self.height)
        except ValueError as error:
            raise UsageError(
                f"pix_fmt is {self.pix_fmt!r}; expected a pixel format of FFmpeg, such as yuv420p or yuv420p10le."
            ) from error

    @property
    def options(self) -> dict[str, str]:
        """The options of FFmpeg's demuxer of raw video."""
        return {"video_size": f"{self.width}x{self.height}", "pixel_format": self.pix_fmt}

    def frame_bytes(self) -> int:
        """Returns the number of bytes of a frame, as FFmpeg's encoder of raw video writes it."""
        from av import CodecContext, VideoFrame

        encoder = CodecContext.create("rawvideo", "w")
        encoder.width, encoder.height, encoder.pix_fmt = self.width, self.height, self.pix_fmt
        encoder.time_base = Fraction(1, 25)
        return sum(packet.size for packet in encoder.encode(VideoFrame(self.width, self.height, self.pix_fmt)))


@dataclass(frozen=True)
class Facts:
    """The properties of a video in its header.

    Attributes:
        pix_fmt: FFmpeg's name of the pixel format, or None.
        planes: the planes compared between two such videos: ``"RGB"`` (also for palettes), ``"Y"`` for grey, otherwise
            ``"YUV"``.
        rate: the highest frame rate that the header states, in frames per second, or None.
        tick: the unit of time stamps in seconds.
        notes: sentences on what is not compared, for the results.

    """

    pix_fmt: str | None
    planes: str
    rate: Fraction | None
    tick: Fraction
    notes: tuple[str, ...]


_Decoded = tuple["VideoFrame", bool]


class Video:
    """A video file, or a y4m stream.

    Args:
        path: path of the file or FIFO, or ``-`` for standard input.
        threads: number of decoding threads.
        raw: the layout of raw video files.

    """

    def __init__(self, path: str, threads: int = 1, raw: Raw | None = None) -> None:
        self.path, self._threads = path, threads
        self._streamed = is_stream(path)
        bare = is_raw(path) and not self._streamed
        self._raw = raw if bare else None
        if bare and raw is None:
            raise PairError(f"{path}: raw video has no header; give --size WxH and --pix-fmt FORMAT")
        self._index: Index | None = None
        self._facts: Facts | None = None
        self._stream: Any = None

    @property
    def facts(self) -> Facts:
        """The properties of the video in its header, read once."""
        if self._facts is None:
            with self._opened() as (container, stream):
                self._facts = _facts_of(container, stream, self.path)
        return self._facts

    def count(self) -> int | None:
        """Returns the number of frames, or None if it is known only after decoding."""
        index = self._checked_index()
        return len(index.order) if index.regular else None

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, VideoFrame]]:
        """Yields the frames ``start:stop:step`` with their numbers.

        Raises:
            PairError: the file cannot be opened or decoded, or one of these frames is damaged.

        """
        for number, (frame, damaged) in self._from(start):
            if stop is not None and number >= stop:
                return
            if number >= start and (number - start) % step == 0:
                if damaged:
                    raise PairError(_damaged(self.path, number))
                yield number, frame

    def _from(self, start: int) -> Iterator[tuple[int, _Decoded]]:
        """Yields frames in order, from ``start`` or an earlier frame."""
        if start and (index := self._checked_index()).regular:
            if start >= len(index.order):
                return
            for entry in index.entries_before(start)[:2]:
                if entry.place == 0:
                    break
                entered = self._entered(index, entry, start)
                try:
                    first = next(entered)
                except (StopIteration, PairError):
                    continue  # decoding from the start reports what is wrong, if anything is
                yield first
                yield from entered
                return
        with self._opened() as (container, stream):
            yield from enumerate(self._decoded(container.demux(stream)))

    def _entered(self, index: Index, entry: Entry, start: int) -> Iterator[tuple[int, _Decoded]]:
        """Yields the frames from ``start`` on, decoded from a key frame.

        Raises:
            LostError: the decoded frames do not have the expected time stamps. Raised before the first frame.

        """
        with self._opened() as (container, stream):
            expected = index.number(entry.stamp)
            frames = self._decoded(index.packets_from(container, stream, entry))
            for frame in frames:
                number = index.number(frame[0].pts)
                if number is None or expected is None or number > expected:
                    raise LostError
                if number < expected:  # precedes the key frame, and may refer to frames that were not decoded
                    continue
                if number == start:
                    yield number, frame
                    break
                expected += 1
            yield from enumerate(frames, start + 1)

    def _checked_index(self) -> Index:
        """Returns the index of the packets. It is regular only if the first frames have the packets' time stamps."""
        if self._index is None:
            self._index = Index()
            if not self._streamed:
                with self._opened() as (container, stream):
                    self._index = read_index(container, stream)
                if self._index.regular:
                    with self._opened() as (container, stream):
                        first = islice(self._decoded(container.demux(stream)), _CHECKED)
                        stamps = [frame.pts for frame, _ in first]
                    self._index.regular = stamps == self._index.order[:_CHECKED]
        return self._index

    def _decoded(self, packets: Iterator[Any]) -> Iterator[_Decoded]:
        """Yields frames, each with whether it is damaged, or depends on a damaged frame."""
        import av

        started = damaged = False
        for packet in packets:
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                # A recording may start within a group of pictures. Packets before its first frame are not frames.
                if started or packet.is_keyframe:
                    raise
                continue
            started |= bool(frames)
            damaged |= packet.is_corrupt
            for frame in frames:
                damaged |= frame.is_corrupt
                damaged &= not frame.key_frame or frame.is_corrupt or packet.is_corrupt
                yield frame, damaged
        missing = 0 if self._streamed or self._raw else missing_bytes(self.path)
        if missing:
            raise PairError(
                f"{self.path}: the file is truncated by at least {missing} bytes, and its last frames are lost or "
                "damaged; use --frames A:B to compare the frames before them"
            )

    @contextmanager
    def _opened(self) -> Generator[tuple[Any, Any]]:
        import av

        if self._streamed:
            with _errors_of(self.path):
                if self._stream is None:  # opened once, for the header and the frames
                    self._stream = av.open(
                        Stream(self.path), "r", format="yuv4mpegpipe", options=_ALONE, io_open=_refused
                    )
                yield self._stream, self._prepared(self._stream)
            return
        with opened(self.path, self._raw) as container:
            yield container, self._prepared(container)

    def _prepared(self, container: Any) -> Any:
        stream = video_stream(container, self.path)
        stream.thread_type, stream.thread_count = "AUTO", self._threads
        return stream


def is_raw(path: str) -> bool:
    """Returns whether the extension is that of raw video."""
    return os.path.splitext(path)[1].lower() in RAW_ENDINGS


class _File:
    """A file object without a name, so that FFmpeg detects the format by content."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def opened(path: str, raw: Raw | None = None) -> Generator[Any]:
    """Opens a file as a container of FFmpeg.

    Raises:
        PairError: the file is missing, or FFmpeg cannot read it.

    """
    import av

    with _errors_of(path), open(path, "rb") as file:
        if raw is not None:
            _check_size(path, file, raw)
        else:
            check_y4m(path, file)
        form, options = ("rawvideo", raw.options) if raw else (None, {})
        with av.open(_File(file), "r", form, options | _ALONE, buffer_size=_READ, metadata_errors="replace",
                     io_open=_refused) as container:  # fmt: skip
            yield container


@contextmanager
def _errors_of(path: str) -> Generator[None]:
    """Converts errors of FFmpeg and the operating system to a :class:`PairError` that names the file."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise PairError(f"{name_of(path)}: {getattr(error, 'strerror', None) or error}") from error


def _refused(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(0, f"the file refers to {url!r}, but other files are not opened")


def _check_size(path: str, file: Any, raw: Raw) -> None:
    one = raw.frame_bytes()
    size = os.fstat(file.fileno()).st_size
    if size == 0 or size % one:
        raise PairError(
            f"{path}: the file has {size} bytes; expected a multiple of {one}, the bytes of a {raw.pix_fmt} frame of "
            f"{raw.width}x{raw.height} pixels; check --size and --pix-fmt"
        )


def video_stream(container: Any, path: str) -> Any:
    """Returns the largest video stream of a file, the first among equals. Cover art and thumbnails are skipped."""
    streams = _streams(container)
    if not streams:
        raise PairError(f"{path}: the file has no video stream")
    return max(streams, key=lambda stream: (_pixels(stream), -stream.index))


def _streams(container: Any) -> list[Any]:
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    return [s for s in container.streams.video if s.codec_context is not None and not s.disposition & stills]


def _pixels(stream: Any) -> int:
    return (stream.codec_context.width or 0) * (stream.codec_context.height or 0)


def _facts_of(container: Any, stream: Any, path: str) -> Facts:
    context = stream.codec_context
    notes = []
    others = len(_streams(container)) - 1
    if others:
        notes.append(
            f"{path} has {others + 1} video streams; stream {stream.index}, of {context.width}x{context.height} "
            "pixels, is compared"
        )
    rates = [rate for rate in (stream.base_rate, stream.average_rate) if rate]
    return Facts(
        context.pix_fmt,
        _planes_of(context.format),
        max(rates) if rates else None,
        Fraction(stream.time_base),
        tuple(notes),
    )


def _planes_of(form: Any) -> str:
    if form is not None and (form.is_rgb or form.has_palette):
        return "RGB"
    return "YUV" if form is None or len(form.components) > 2 else "Y"


def _damaged(path: str, number: int) -> str:
    return (
        f"{name_of(path)}: frame {number} is damaged, and the decoder has concealed the damage; skip it with --frames, "
        f"or compare the decoder's output: ffmpeg -i FILE -f yuv4mpegpipe - | ssim-fused compare REFERENCE -"
    )


def can_open(path: str) -> bool:
    """Returns whether FFmpeg finds a video in the content of a file."""
    try:
        with opened(path) as container:
            names = container.format.name.split(",")
            return not any(n in _NO_VIDEOS or n.endswith("_pipe") for n in names) and bool(_streams(container))
    except PairError:
        return False
