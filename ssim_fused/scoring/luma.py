"""Converts RGB pixels to luma. The luma of a video is its Y plane, which is not converted."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ssim_fused.scoring.picture import Picture

Luma = Literal["bt601", "bt709", "matlab"]

# Weights of red, green and blue, and an offset, relative to a white of 1.
WEIGHTS = {
    "bt601": ((0.299, 0.587, 0.114), 0.0),  # ITU-R BT.601, full range; MATLAB's rgb2gray
    "bt709": ((0.2126, 0.7152, 0.0722), 0.0),  # ITU-R BT.709, full range
    # MATLAB's rgb2ycbcr and BasicSR's test_y_channel: BT.601 in limited range, black at 16 and white at 235 of 255.
    "matlab": ((65.481 / 255, 128.553 / 255, 24.966 / 255), 16 / 255),
}


def to_luma(picture: Picture, formula: Luma) -> Picture:
    """Returns luma as one float32 channel in 0..peak, not rounded. A limited-range video plane is returned as it is."""
    weights, offset = WEIGHTS[formula]
    if not picture.full_range:
        return picture
    if picture.pixels.shape[0] == 1:
        if formula != "matlab":
            return picture
        grey = picture.pixels.float() * sum(weights) + offset * picture.peak
        return replace(picture, pixels=grey)
    red, green, blue = (channel.float() for channel in picture.pixels)
    luma = weights[0] * red + weights[1] * green + weights[2] * blue
    return replace(picture, pixels=(luma + offset * picture.peak)[None])
