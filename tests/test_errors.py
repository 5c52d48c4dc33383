"""Each mistake raises the exception type of torchmetrics, with a message that names the argument and its value.

The expected type is not listed here, because each case makes the mistake with the reference, too. A subclass is
accepted, since an `except` written for the reference catches it.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import time
import warnings
from typing import Any

import pytest
import torch
from support import reference, ssim

from ssim_fused import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss, fitting_betas, ms_ssim
from ssim_fused.metrics import StructuralSimilarityIndexMeasure

PREDS = torch.rand(2, 1, 16, 18, generator=torch.Generator().manual_seed(3))
TARGET = PREDS.flip(-1)


VOLUME = torch.rand(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(4))


def both(change: Any) -> dict[str, Any]:
    return {"preds": change(PREDS), "target": change(TARGET)}


def volumes(change: Any = lambda x: x, **arguments: Any) -> dict[str, Any]:
    return {"preds": change(VOLUME), "target": change(VOLUME.flip(-1)), **arguments}


# (name, arguments, what the message must contain)
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
    # The width is padded for `kernel_size`, whatever the Gaussian window.
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

# Here the reference computes something that nobody means: it ignores the last of three numbers, and a reversed range
# clamps every pixel to one value, which scores 1.
SILENT: list[tuple[str, dict[str, Any], type[Exception], list[str]]] = [
    ("three numbers", {"data_range": (0.0, 0.5, 1.0)}, ValueError, ["`data_range`", r"\(0.0, 0.5, 1.0\)"]),
    ("reversed", {"data_range": (1.0, 0.0)}, ValueError, ["`data_range`", r"\(1.0, 0.0\)"]),
]


@pytest.mark.parametrize(("arguments", "expected"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_same_exception_as_the_reference(arguments: dict[str, Any], expected: list[str]) -> None:
    arguments = {"preds": PREDS, "target": TARGET, **arguments}
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - the reference's exception is the expectation
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
def test_images_on_two_devices() -> None:
    with pytest.raises(RuntimeError, match=r"`target`.*cuda"):
        ssim(PREDS, TARGET.cuda())


def test_an_error_does_not_affect_the_next_call() -> None:
    before = ssim(PREDS, TARGET)
    with pytest.raises(ValueError, match="sigma"):
        ssim(PREDS, TARGET, sigma=-1)
    assert torch.equal(ssim(PREDS, TARGET), before)


# ----------------------------------------------------------------------------------------------------------------------
# The advice in messages


def told(function: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises((ValueError, RuntimeError, TypeError, NotImplementedError)) as raised:
        function(*arguments, **keywords)
    return str(raised.value)


@pytest.mark.parametrize("call", [lambda x, y: ssim(x, y, data_range=1.0), SSIMLoss(), ms_ssim, MultiScaleSSIMLoss()])
def test_errors_suggest_the_permutation_for_other_layouts(call: Any) -> None:
    x = torch.rand(2, 3, 40, 44)
    assert "`preds.permute(0, 3, 1, 2)`" in told(call, *[x.permute(0, 2, 3, 1)] * 2)
    volumes = torch.rand(1, 1, 40, 44, 48).permute(0, 2, 3, 4, 1)
    assert "`preds.permute(0, 4, 1, 2, 3)`" in told(call, volumes, volumes)
    assert "`preds.unsqueeze(0)`" in told(call, x[0], x[0])
    assert "`preds.permute(2, 0, 1).unsqueeze(0)`" in told(call, *[x[0].permute(1, 2, 0)] * 2)
    assert "`preds[None, None]`" in told(call, x[0, 0], x[0, 0])
    assert "permute" not in told(ssim, x[..., :3], x[..., :3], data_range=1.0)


def test_errors_name_the_axis_that_a_mask_lacks() -> None:
    x, mask = torch.rand(2, 3, 40, 44), torch.rand(2, 1, 40, 44) > 0.5
    for call in (ssim, SSIMLoss(), ms_ssim):
        assert "`mask.unsqueeze(1)`" in told(call, x, x, mask=mask[:, 0])
    fixes = {
        "mask.expand(len(preds), 1, *mask.shape)": mask[0, 0],
        "mask.expand(len(preds), *mask.shape)": mask[0],
        "mask.permute(0, 3, 1, 2)": mask.permute(0, 2, 3, 1),
    }
    for fix, wrong in fixes.items():
        assert f"`{fix}`" in told(ssim, x, x, mask=wrong)
        assert ssim(x, x, mask=eval(fix, {"mask": wrong, "preds": x})) == 1


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((1, 1, 40, 44), {}),
        ((1, 1, 40, 44), {"kernel_size": 7, "gaussian_kernel": False}),
        ((1, 1, 50, 44), {"sigma": (1.0, 2.0), "padding": "valid"}),
        ((1, 1, 24, 40, 44), {"kernel_size": (3, 5, 5), "sigma": 0.8}),
        ((1, 1, 44, 180, 190), {}),
        ((1, 1, 180, 190), {"sigma": 4.0}),
    ],
    ids=str,
)
def test_errors_suggest_betas_for_small_images(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    x = torch.rand(shape)
    for call in (ms_ssim, lambda x, y, **k: MultiScaleSSIMLoss(**k)(x, y)):
        message = told(call, x, x, **arguments)
        (advised,) = re.findall(r"`betas=(fitting_betas\(.*?\))`,", message)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            betas = eval(advised, {"fitting_betas": fitting_betas})
        assert 1 <= len(betas) < 5
        assert call(x, x, betas=betas, **arguments) == (1 if call is ms_ssim else 0)


def test_errors_suggest_no_betas_if_no_level_fits() -> None:
    x = torch.rand(1, 1, 5, 5)
    assert "fitting_betas" not in told(ms_ssim, x, x)


def test_thousands_of_levels_are_refused_at_once() -> None:
    start = time.perf_counter()
    assert "fitting_betas" in told(ms_ssim, PREDS, PREDS, betas=(0.01,) * 60, kernel_size=3, sigma=0.5)
    assert time.perf_counter() - start < 1


LOSSES = [SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, L1SSIMLoss]


@pytest.mark.parametrize("loss", LOSSES)
def test_errors_suggest_the_spelling_of_arguments(loss: Any) -> None:
    for wrong, meant in {"datarange": "data_range", "kernelsize": "kernel_size", "reducton": "reduction"}.items():
        with pytest.raises(TypeError) as raised:
            loss(**{wrong: 1})
        assert f"{loss.__name__}() got an unexpected keyword argument `{wrong}`" in str(raised.value)
        assert f"did you mean `{meant}`?" in str(raised.value)
    with pytest.raises(TypeError, match="unexpected keyword argument `zzz`"):
        loss(zzz=1)

    class Own(loss):
        pass

    with pytest.raises(TypeError, match="Own"):
        Own(datarange=1)


def test_losses_take_keywords_and_repr_shows_them() -> None:
    with pytest.raises(TypeError, match=r"SSIMLoss\(\) takes keywords only"):
        SSIMLoss(1.0)  # ty: ignore[too-many-positional-arguments]
    with pytest.raises(TypeError, match=r"L1SSIMLoss\(\) has no argument `pixel`"):
        L1SSIMLoss(pixel="l2")
    assert inspect.signature(SSIMLoss).parameters["data_range"].default == 1.0
    assert str(inspect.signature(SSIMLoss)).startswith("(*, data_range: 'DataRange' = 1.0,")


def test_non_tensors_raise_type_error_for_keywords_too() -> None:
    for kind in (TypeError, AttributeError):
        with pytest.raises(kind) as raised:
            ssim([1.0], TARGET)
        assert type(raised.value).__qualname__ == "TypeError"
        assert type(raised.value).__module__ == "builtins"
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


class Model(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(x, y)


def of_a_user(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ssim(x, y, data_range=1.0)


SCRIPTED = {"ssim": ssim, "ms_ssim": ms_ssim, "of_a_user": of_a_user}
SCRIPTED |= {loss.__name__: loss() for loss in LOSSES} | {f"Model of {loss.__name__}": Model(loss()) for loss in LOSSES}


@pytest.mark.parametrize("thing", SCRIPTED.values(), ids=SCRIPTED)
def test_scripting_says_what_to_use(thing: Any) -> None:
    with pytest.raises(
        NotImplementedError, match=r"`\w+` cannot be compiled by torch.jit.script.*use torch.compile, or"
    ):
        torch.jit.script(thing)


# ----------------------------------------------------------------------------------------------------------------------
# Integers and ranges


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_a_loss_s_default_range_is_that_of_floats_alone(dtype: torch.dtype) -> None:
    whole = float(torch.iinfo(dtype).max)
    x, y = ((whole * image).to(dtype) for image in (PREDS, TARGET))
    for loss in LOSSES:
        loss = loss(betas=(0.5, 0.5), kernel_size=3) if loss is MultiScaleSSIMLoss else loss()
        before = repr(loss)
        given = copy.deepcopy(loss)
        given.data_range = whole
        assert torch.equal(loss(x, y), given(x, y))
        for _ in range(3):  # a prepared call on floats keeps its own range
            assert loss(PREDS, TARGET) != given(PREDS, TARGET)
        assert torch.equal(loss(x, y), given(x, y))
        assert torch.equal(pickle.loads(pickle.dumps(loss))(x, y), given(x, y))
        assert repr(loss) == before
        given.data_range = 1.0  # from here on the range is given explicitly
        if not isinstance(loss, PixelSSIMLoss):  # whose value is mostly the pixel term
            assert not torch.equal(given(x, y), loss(x, y))
    assert SSIMLoss()(x, y) == pytest.approx(1 - ssim(x, y).item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_a_range_that_cannot_be_that_of_both_names_the_fix(dtype: torch.dtype) -> None:
    whole = torch.iinfo(dtype).max
    target = (whole * TARGET).to(dtype)
    calls = {
        "number": lambda x: ssim(x, target, data_range=1.0),
        "bounds": lambda x: ssim(x, target, data_range=(0.0, 1.0)),
        "pyramid": lambda x: ms_ssim(x, target, data_range=1, betas=(0.5, 0.5), kernel_size=3),
        "metric": lambda x: StructuralSimilarityIndexMeasure(data_range=1.0)(x, target),
        "default": lambda x: L1SSIMLoss()(x, target),
        "given": lambda x: SSIMLoss(data_range=1.0)(x, target),
    }
    for call in calls.values():
        message = told(call, PREDS)
        assert f"`target.float() / {whole}`" in message
        assert f"`data_range={whole}.0`" in message
    fixed = ssim(PREDS, target.float() / whole, data_range=1.0)
    assert ssim(whole * PREDS, target, data_range=float(whole)) == pytest.approx(fixed.item(), abs=1e-5)
    for wide in (torch.int32, torch.int64, torch.bool):
        for data_range in (None, 255.0, (0.0, 255.0)):
            assert "`target.to(preds.dtype)`" in told(ssim, PREDS, TARGET.to(wide), data_range=data_range)
            assert "`preds` has the dtype" in told(ssim, PREDS.to(wide), TARGET.to(wide), data_range=data_range)
