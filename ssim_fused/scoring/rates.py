"""Measures bit rates of videos, for the rate-distortion plot of the report."""

from __future__ import annotations

from ssim_fused.scoring.errors import lacks_extra
from ssim_fused.scoring.sequence import has_pictures
from ssim_fused.scoring.stream import is_stream
from ssim_fused.scoring.video import is_raw, opened, video_stream


def bit_rate(path: str) -> float | None:
    """Returns the bit rate of a file's video stream in kbit/s, from its packets, or None if it cannot be determined."""
    if is_stream(path) or has_pictures(path) or is_raw(path):
        return None
    try:
        return _bit_rate(path)
    except Exception as error:  # the file has been deleted since it was scored, or its packets cannot be listed
        if lacks_extra(error):
            raise
        return None


def _bit_rate(path: str) -> float | None:
    with opened(path) as container:
        stream = video_stream(container, path)
        packets = [(p.size, p.pts, p.duration or 0) for p in container.demux(stream) if p.size]
        size = sum(size for size, _, _ in packets)
        seconds = 0.0
        if packets and all(pts is not None for _, pts, _ in packets):
            begin, end = min(pts for _, pts, _ in packets), max(pts + length for _, pts, length in packets)
            seconds = float((end - begin) * stream.time_base)
        elif stream.average_rate:  # an elementary stream has no time stamps
            seconds = len(packets) / float(stream.average_rate)
        return 8 * size / seconds / 1000 if seconds > 0 else None
