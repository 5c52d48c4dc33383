"""What a scoring run was asked for, checked once, and the presets of other libraries' definitions."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from ssim_fused.scoring import ignored
from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.luma import Luma
from ssim_fused.scoring.readers.samples import MAX_PIXELS, Limits
from ssim_fused.scoring.video import Raw

Metric = Literal["ssim", "ms-ssim", "psnr"]
Padding = Literal["reflect", "zero", "valid"]
WindowShape = Literal["gaussian", "uniform"]

METRICS: tuple[str, ...] = get_args(Metric)
PADDINGS: tuple[str, ...] = get_args(Padding)
WINDOWS: tuple[str, ...] = get_args(WindowShape)
LUMAS: tuple[str, ...] = get_args(Luma)
LARGEST_SIDE = 2**31 - 1  # of a window; no picture is larger
MOST_WORKERS = 1024  # threads, each with a pair of pictures in memory
ALIGNMENTS = ("number", "pts")


def cores() -> int:
    """How many this process may use; macOS, which has no affinity, says how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What another library computes, where that is not torchmetrics'.

    Attributes:
        padding: what lies beyond the borders; ``"valid"``: nothing, windows stay inside.
        window: the window's shape, with ``sigma`` or ``kernel_size``.
        sample_covariance: variances with n - 1 in the denominator, as scikit-image's default.
        luma: the formula of luma where the library takes one channel only.
        multiscale: whether the library has an MS-SSIM that is computed here as there.
        padded_pooling: whether its levels are multiplied in each channel, and made from pictures padded by zeros.
        blocks: FFmpeg's filter, which takes windows of 8x8 at every fourth pixel and has constants of its own.

    """

    padding: Padding = "valid"
    window: WindowShape = "gaussian"
    sigma: float = 1.5
    kernel_size: int = 11
    sample_covariance: bool = False
    luma: Luma | None = None
    multiscale: bool = False
    padded_pooling: bool = False
    blocks: bool = False


CONVENTIONS = {
    "torchmetrics": Convention(padding="reflect", multiscale=True),
    "pytorch-msssim": Convention(multiscale=True, padded_pooling=True),
    "skimage": Convention(window="uniform", kernel_size=7, sample_covariance=True),
    "matlab": Convention(luma="bt601"),  # Wang's ssim_index.m, of rgb2gray
    "basicsr": Convention(),
    "ffmpeg": Convention(window="uniform", kernel_size=8, blocks=True),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Arguments of a scoring run; those that are None are the convention's.

    Attributes:
        metric: what is computed, the first being the one that ranks pairs and that ``fail_under`` looks at.
        convention: a name of ``CONVENTIONS``, or None, which is torchmetrics'.
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``.
        window: ``"gaussian"`` of ``sigma``, or ``"uniform"`` of ``kernel_size``.
        sigma: standard deviation of the Gaussian in pixels; its size is ``2 int(3.5 sigma + 0.5) + 1``.
        kernel_size: side of the uniform window, odd.
        luma: score luma alone: the formula for RGB pixels, True being bt601. That of two videos is their plane Y.
        rgb: score two videos by RGB instead of their planes.
        crop: pixels cut off each side first.
        ignore: rectangles ``(x, y, w, h)`` that don't count, in pixels of the picture before it is cropped.
        resize: scale the distorted picture to the size of the reference instead of refusing another size.
        frames: of a video, ``(start, stop, step)``; with ``align="pts"`` of the distorted one.
        align: which frames of two videos meet: those of the same ``"number"``, or by ``"pts"``, their time.
        size: width and height of files of bare pixels, as ``"1920x1080"``.
        pix_fmt: FFmpeg's name of their pixel format.
        data_range: the value of white of pictures of floating point, and of more than 8 bits where the file stores
            fewer bits than its samples have.
        max_pixels: pictures with more pixels are refused before they are decoded.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        batch: pairs of equal size that one call of the kernel takes, at most.
        workers: threads that decode.
        channels: keep each channel's SSIM, too.
        keep: hand the pixels on with the scores, for maps and reports.

    Raises:
        UsageError: options that contradict each other, or words and numbers that are not as above.

    Example:
        >>> from ssim_fused.scoring import Settings
        >>> Settings(convention="skimage", luma="bt601").resolved().kernel_size
        7

    """

    metric: tuple[str, ...] = ("ssim",)
    convention: str | None = None
    padding: str | None = None
    window: str | None = None
    sigma: float | None = None
    kernel_size: int | None = None
    luma: str | bool | None = None
    rgb: bool = False
    crop: int = 0
    ignore: tuple[ignored.Rectangle, ...] = ()
    resize: bool = False
    frames: tuple[int, int | None, int] = (0, None, 1)
    align: str = "number"
    size: str | None = None
    pix_fmt: str | None = None
    data_range: float | None = None
    max_pixels: int = MAX_PIXELS
    device: str = "auto"
    batch: int = 8
    workers: int = field(default_factory=cores)
    channels: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.luma, bool):
            object.__setattr__(self, "luma", "bt601" if self.luma else None)
        _check_choices("metric", self.metric, METRICS)
        if not self.metric or len(set(self.metric)) < len(self.metric):
            raise UsageError(
                f"metric is {','.join(self.metric)!r}; each of {', '.join(METRICS)} is named once at most."
            )
        for name, choices in (("convention", tuple(CONVENTIONS)), ("padding", PADDINGS), ("window", WINDOWS),
                              ("luma", LUMAS), ("align", ALIGNMENTS)):  # fmt: skip
            if getattr(self, name) is not None:
                _check_choices(name, (getattr(self, name),), choices)
        for name, least in (("crop", 0), ("max_pixels", 1), ("batch", 1), ("workers", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.workers > MOST_WORKERS:
            raise UsageError(f"workers is {self.workers}; expected at most {MOST_WORKERS}.")
        if self.data_range is not None and not (self.data_range > 0 and math.isfinite(self.data_range)):
            raise UsageError(f"data_range is {self.data_range}; expected a number above 0.")
        object.__setattr__(self, "ignore", tuple(tuple(rectangle) for rectangle in self.ignore))
        ignored.check(self.ignore)
        start, stop, step = self.frames
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise UsageError(f"frames is {start}:{stop}:{step}; expected 0 <= A < B and STEP >= 1.")
        if self.rgb and self.luma:
            raise UsageError("rgb and luma are both given; leave out one of the two.")
        self._check_window()
        self.raw  # noqa: B018 - says what is wrong with size and pix_fmt

    @property
    def raw(self) -> Raw | None:
        """What files of bare pixels hold, or None.

        Raises:
            UsageError: one of ``size`` and ``pix_fmt`` is missing, or means nothing.

        """
        if self.size is None and self.pix_fmt is None:
            return None
        if self.size is None or self.pix_fmt is None:
            raise UsageError(
                f"size is {self.size!r} and pix_fmt is {self.pix_fmt!r}; a file of bare pixels needs both, as size "
                "1920x1080 and pix_fmt yuv420p."
            )
        sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", self.size)
        if sides is None:
            raise UsageError(f"size is {self.size!r}; expected WIDTHxHEIGHT, as 1920x1080.")
        return Raw(int(sides[1]), int(sides[2]), self.pix_fmt)

    def _check_window(self) -> None:
        preset = self._preset()
        window = self.window or preset.window
        if preset.blocks and any(
            value is not None for value in (self.padding, self.window, self.sigma, self.kernel_size)
        ):
            raise UsageError("convention ffmpeg has its own windows; leave out padding, window, sigma and kernel_size.")
        if preset.blocks and self.ignore:
            raise UsageError("ignore is given, and convention ffmpeg weighs no pixels; leave out one of the two.")
        if self.sigma is not None and window == "uniform":
            raise UsageError("sigma is the Gaussian's; the window is uniform: give kernel_size, or window gaussian.")
        if self.kernel_size is not None and window == "gaussian":
            raise UsageError(
                "kernel_size is the uniform window's; the Gaussian's size follows from sigma: give sigma, or window "
                "uniform."
            )
        if self.kernel_size is not None and (self.kernel_size < 1 or self.kernel_size % 2 == 0):
            raise UsageError(f"kernel_size is {self.kernel_size}; expected an odd number.")
        if self.sigma is not None and not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise UsageError(f"sigma is {self.sigma}; expected a number above 0.")
        if max(self.kernel_size or 0, 7 * (self.sigma or 0)) > LARGEST_SIDE:
            name = "sigma" if self.sigma else "kernel_size"
            raise UsageError(f"{name} is {getattr(self, name)}; expected a window that a picture can hold.")
        if "ms-ssim" in self.metric and not preset.multiscale:
            raise UsageError(f"convention {self.convention} has no ms-ssim here; leave out one of the two.")

    def limits(self) -> Limits:
        """What readers of pictures are told."""
        return Limits(self.data_range, self.max_pixels)

    def _preset(self) -> Convention:
        return CONVENTIONS[self.convention or "torchmetrics"]

    def resolved(self) -> Convention:
        """The definition that is computed: the convention's, where nothing else was asked for."""
        preset = self._preset()
        given = {f.name: getattr(self, f.name, None) for f in fields(preset)}
        return replace(preset, **{name: value for name, value in given.items() if value is not None})

    def k2(self) -> float:
        """The contrast constant.

        With sample covariances, n/(n - 1) times larger, both parts of the quotient are divided by n/(n - 1).
        """
        convention = self.resolved()
        if not convention.sample_covariance:
            return 0.03
        gaussian = convention.window == "gaussian"
        side = 2 * int(3.5 * convention.sigma + 0.5) + 1 if gaussian else convention.kernel_size
        return 0.03 * math.sqrt((side**2 - 1) / side**2)


def _check_choices(name: str, given: Any, choices: tuple[str, ...]) -> None:
    for value in given:
        if value not in choices:
            raise UsageError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")
