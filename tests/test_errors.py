"""Every mistake raises what torchmetrics raises for it, with a message that names the argument and its value.

The expected exception type is not written down here: each case makes the mistake with the reference too. A
subclass will do: an `except` written for the reference works for ours.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from support import reference, ssim

PREDS = torch.rand(2, 1, 16, 18, generator=torch.Generator().manual_seed(3))
TARGET = PREDS.flip(-1)


VOLUME = torch.rand(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(4))


def both(change: Any) -> dict[str, Any]:
    return {"preds": change(PREDS), "target": change(TARGET)}


def volumes(change: Any = lambda x: x, **arguments: Any) -> dict[str, Any]:
    return {"preds": change(VOLUME), "target": change(VOLUME.flip(-1)), **arguments}


# (name, arguments, what the message has to say)
MISTAKES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("shapes differ", {"target": TARGET[..., 1:]}, ["`target`", "2, 1, 16, 18", "2, 1, 16, 17"]),
    ("batches differ", {"preds": PREDS[:1]}, ["`preds`", "1, 1, 16, 18", "2, 1, 16, 18"]),
    ("dimensions differ", {"target": TARGET[0]}, ["`target`", "1, 16, 18"]),
    ("three dimensions", both(lambda x: x[0]), ["`preds`", r"\(1, 16, 18\)", r"\[B, C, H, W\]"]),
    ("two dimensions", both(lambda x: x[0, 0]), ["`preds`", r"\(16, 18\)", r"\[B, C, H, W\]"]),
    ("six dimensions", both(lambda x: x[None, None]), ["`preds`", "1, 1, 2, 1, 16, 18", r"\[B, C, H, W\]"]),
    ("devices differ", {"target": TARGET.to("meta")}, ["`target`", "meta"]),
    *(
        (f"{dtype}", {**both(lambda x, dtype=dtype: (255 * x).to(dtype)), "data_range": 255}, ["`preds`", f"{dtype}"])
        for dtype in (torch.int32, torch.int64, torch.bool, torch.complex64)
    ),
    ("uint8 preds", {"preds": (255 * PREDS).to(torch.uint8), "data_range": 255}, ["`preds`", "uint8"]),
    ("list as preds", {"preds": PREDS.tolist()}, ["`preds`", "list"]),
    ("list as target", {"target": TARGET.tolist()}, ["`target`", "list"]),
    ("None as preds", {"preds": None}, ["`preds`", "None"]),
    ("None as target", {"target": None}, ["`target`", "None"]),
    ("number as preds", {"preds": 1.0}, ["`preds`", "float"]),
    ("array as preds", {"preds": PREDS.numpy()}, ["`preds`", "ndarray"]),
    ("array as target", {"target": TARGET.numpy()}, ["`target`", "ndarray"]),
    ("arrays", both(lambda x: x.numpy()), ["`preds`", "ndarray"]),
    *(
        (f"kernel_size={size!r} {kind}", {"kernel_size": size, "gaussian_kernel": kind == "gaussian"}, expected)
        for kind in ("gaussian", "uniform")
        for size, expected in [
            (4, ["`kernel_size`", "4", "odd"]),
            (0, ["`kernel_size`", "0", "odd"]),
            (-3, ["`kernel_size`", "-3", "positive"]),
            ((11, 4), ["`kernel_size`", r"\(11, 4\)", "odd"]),
            ([-1, 11], ["`kernel_size`", r"\[-1, 11\]", "positive"]),
            ((11,), ["`kernel_size`", r"\(11,\)", "2"]),
            ((11, 11, 11), ["`kernel_size`", r"\(11, 11, 11\)", "2"]),
            ((), ["`kernel_size`", r"\(\)", "2"]),
            (None, ["`kernel_size`", "None"]),
            ("11", ["`kernel_size`", "11"]),
        ]
    ),
    *(
        (
            f"kernel_size={size} uniform",
            {"kernel_size": size, "gaussian_kernel": False},
            ["`kernel_size`", re.escape(f"{size}")],
        )
        for size in (2.5, 3.0, (3, 5.0))
    ),
    *(
        (f"sigma={sigma!r} {kind}", {"sigma": sigma, "gaussian_kernel": kind == "gaussian"}, expected)
        for kind in ("gaussian", "uniform")
        for sigma, expected in [
            (0, ["`sigma`", "0", "positive"]),
            (-1.5, ["`sigma`", "-1.5", "positive"]),
            ((1.5, 0.0), ["`sigma`", r"\(1.5, 0.0\)", "positive"]),
            ([-1, 2], ["`sigma`", r"\[-1, 2\]", "positive"]),
            ((1.5,), ["`sigma`", r"\(1.5,\)", "2"]),
            ([1.5, 1.5, 1.5], ["`sigma`", r"\[1.5, 1.5, 1.5\]", "2"]),
            ((), ["`sigma`", r"\(\)", "2"]),
            (None, ["`sigma`", "None"]),
            ("1.5", ["`sigma`", "1.5"]),
        ]
    ),
    ("sigma=nan", {"sigma": float("nan")}, ["`sigma`", "nan"]),
    ("sigma=inf", {"sigma": float("inf")}, ["`sigma`", "inf"]),
    ("reduction='mean'", {"reduction": "mean"}, ["`reduction`", "'mean'", "'elementwise_mean'"]),
    ("reduction='NONE'", {"reduction": "NONE"}, ["`reduction`", "'NONE'", "'none'"]),
    ("reduction=1", {"reduction": 1}, ["`reduction`", "1"]),
    (
        "both returns",
        {"return_full_image": True, "return_contrast_sensitivity": True},
        ["`return_full_image`", "`return_contrast_sensitivity`", "True"],
    ),
    ("too narrow", both(lambda x: x[..., :5]), ["`preds`", "2, 1, 16, 5", r"width .*\b5\b", "padding is 5"]),
    ("too low", both(lambda x: x[..., :5, :]), ["`preds`", "2, 1, 5, 18", r"height .*\b5\b", "padding is 5"]),
    (
        "too small for a uniform window",
        {"gaussian_kernel": False, "kernel_size": (3, 37)},
        ["`preds`", r"width .*\b18\b", "padding is 18"],
    ),
    ("too small for a wide Gaussian", {"sigma": (8.0, 1.0)}, ["`preds`", r"height .*\b16\b", "padding is 28"]),
    ("too shallow", volumes(lambda x: x[:, :, :5]), ["`preds`", "2, 1, 5, 9, 10", r"depth .*\b5\b", "padding is 5"]),
    ("volume too low", volumes(lambda x: x[..., :5, :]), ["`preds`", r"height .*\b5\b", "padding is 5"]),
    ("volume too narrow", volumes(lambda x: x[..., :5]), ["`preds`", r"width .*\b5\b", "padding is 5"]),
    ("too shallow for a wide Gaussian", volumes(sigma=(4.0, 1.0, 1.0)), [r"depth .*\b8\b", "padding is 14"]),
    ("too low for a wide Gaussian", volumes(sigma=(1.0, 4.0, 1.0)), [r"height .*\b9\b", "padding is 14"]),
    # The width is padded for `kernel_size`, whatever the Gaussian.
    (
        "too narrow for a wide Gaussian",
        volumes(sigma=(1.0, 1.0, 4.0)),
        ["`preds`", r"width .*\b10\b", "by 5", "`kernel_size`", "29 taps"],
    ),
    ("too narrow for the padding", volumes(sigma=0.5, kernel_size=(3, 3, 21)), [r"width .*\b10\b", "padding is 10"]),
    (
        "too shallow for a uniform window",
        volumes(gaussian_kernel=False, kernel_size=(17, 3, 3)),
        ["`preds`", r"depth .*\b8\b", "padding is 8"],
    ),
    ("two numbers for three axes", volumes(kernel_size=(11, 11)), ["`kernel_size`", r"\(11, 11\)", "3"]),
    ("two sigmas for three axes", volumes(sigma=[1.5, 1.5]), ["`sigma`", r"\[1.5, 1.5\]", "3"]),
    ("even depth of the window", volumes(kernel_size=(4, 11, 11)), ["`kernel_size`", r"\(4, 11, 11\)", "odd"]),
    ("a volume and an image", volumes(target=PREDS), ["`target`", "2, 1, 8, 9, 10", "2, 1, 16, 18"]),
    ("integer volumes", volumes(lambda x: (9 * x).int(), data_range=9), ["`preds`", "torch.int32"]),
    ("no slice", volumes(lambda x: x[:, :, :0], data_range=1.0), ["`preds`", "2, 1, 0, 9, 10", "depth"]),
    ("no channel", {**both(lambda x: x[:, :0]), "data_range": 1.0}, ["preds", "2, 0, 16, 18"]),
    ("no row", {**both(lambda x: x[..., :0, :]), "data_range": 1.0}, ["preds", "2, 1, 0, 18"]),
    *(
        (f"data_range={value!r}", {"data_range": value}, ["`data_range`", re.escape(repr(value))])
        for value in ([0, 1], [0.0, 1.0], "1", {}, (0.0,), (), ("0", "1"))
    ),
    ("k1='a'", {"k1": "a", "data_range": 1.0}, ["`k1`", "a"]),
    ("k2=None", {"k2": None, "data_range": 1.0}, ["`k2`", "None"]),
]

# The reference computes something here that nobody means: of three numbers it drops the last; a reversed
# range clamps every pixel to one value, which scores 1.
SILENT: list[tuple[str, dict[str, Any], type[Exception], list[str]]] = [
    ("three numbers", {"data_range": (0.0, 0.5, 1.0)}, ValueError, ["`data_range`", r"\(0.0, 0.5, 1.0\)"]),
    ("reversed", {"data_range": (1.0, 0.0)}, ValueError, ["`data_range`", r"\(1.0, 0.0\)"]),
]


@pytest.mark.parametrize(("arguments", "expected"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_same_exception_as_the_reference(arguments: dict[str, Any], expected: list[str]) -> None:
    arguments = {"preds": PREDS, "target": TARGET, **arguments}
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever the reference raises is the expectation
        reference(**arguments)
    with pytest.raises(theirs.type) as ours:
        ssim(**arguments)
    for part in expected:
        assert re.search(part, str(ours.value)), f"{part!r} is not in: {ours.value}"


@pytest.mark.parametrize(("arguments", "error", "expected"), [m[1:] for m in SILENT], ids=[m[0] for m in SILENT])
def test_nonsense_that_the_reference_accepts(
    arguments: dict[str, Any], error: type[Exception], expected: list[str]
) -> None:
    reference(PREDS, TARGET, **arguments)
    with pytest.raises(error) as raised:
        ssim(PREDS, TARGET, **arguments)
    for part in expected:
        assert re.search(part, str(raised.value)), f"{part!r} is not in: {raised.value}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_pictures_on_two_devices() -> None:
    with pytest.raises(RuntimeError, match=r"`target`.*cuda"):
        ssim(PREDS, TARGET.cuda())


def test_an_error_leaves_the_next_call_alone() -> None:
    before = ssim(PREDS, TARGET)
    with pytest.raises(ValueError, match="sigma"):
        ssim(PREDS, TARGET, sigma=-1)
    assert torch.equal(ssim(PREDS, TARGET), before)
