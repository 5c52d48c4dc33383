"""Wrong arguments of every kind raise an exception at once, and it names the argument."""

from __future__ import annotations

import time
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from ssim_fused import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss, fitting_betas, metrics
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

FUNCTIONS = {"ssim": ssim, "msssim": lambda *images, **k: msssim(*images, **({"betas": (0.5, 0.5)} | k))}


BETAS = (0.5, 0.5)
# The functions, and the classes that take their arguments at construction.
CALLABLES: dict[str, Any] = FUNCTIONS | {
    "SSIMLoss": lambda *pair, **k: SSIMLoss(**k)(*pair),
    "MultiScaleSSIMLoss": lambda *pair, **k: MultiScaleSSIMLoss(BETAS, **k)(*pair),
    "PixelSSIMLoss": lambda *pair, **k: PixelSSIMLoss("l2", **k)(*pair),
    "L1SSIMLoss": lambda *pair, **k: L1SSIMLoss(**k)(*pair),
    "metric": lambda *pair, **k: metrics.StructuralSimilarityIndexMeasure(**k)(*pair),
    "multiscale metric": lambda *pair, **k: metrics.MultiScaleStructuralSimilarityIndexMeasure(
        **({"betas": BETAS} | k)
    )(*pair),
}


@pytest.fixture(params=CALLABLES)
def callable_(request: pytest.FixtureRequest) -> Any:
    return CALLABLES[request.param]


@pytest.fixture(params=FUNCTIONS)
def function(request: pytest.FixtureRequest) -> Any:
    return FUNCTIONS[request.param]


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)


WRONG: dict[str, tuple[type[Exception], list[Any]]] = {
    "data_range": (
        (ValueError, TypeError, RuntimeError, IndexError, OverflowError),
        [0, -1.0, float("nan"), float("inf"), 10**400, (0.0, float("inf")),
         torch.rand(3), torch.rand(2, 2), torch.tensor(1.0, device="meta"), torch.tensor(True), torch.tensor(1j), "1",
         [0, 1], (1.0, 0.0), ("a", "b"), (1.0,), (0.0, 0.5, 1.0), b"1", {}],
    ),
    "kernel_size": (
        (ValueError, TypeError, OverflowError),
        [float("nan"), float("inf"), 2**70 + 1, 0, -3, 4, "11", None, (11,), (11, 11, 11), (11, 4), (11, None), 1j],
    ),
    "sigma": (
        (ValueError, TypeError, OverflowError),
        [float("nan"), float("inf"), 10**400, 0.0, -1.0, "x", None, (1.5,), (), (1.5, 0.0), (1.5, None), 1j],
    ),
    "k1": ((TypeError, OverflowError), ["a", None, 1j, (0.01,), 10**400]),
    "k2": ((TypeError,), ["a", None, 1j]),
    "reduction": ((ValueError,), ["x", ["none"], [], {}, 1, True]),
    "padding": ((ValueError,), ["same", None, [], 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_argument_is_named(callable_: Any, name: str) -> None:
    kinds, values = WRONG[name]
    for value in values:
        for gaussian in (True, False):
            arguments = {"data_range": 1.0, "kernel_size": 3, "gaussian_kernel": gaussian} | {name: value}
            with pytest.raises(kinds) as raised:
                callable_(*images(), **arguments)
            assert name in str(raised.value), value
            assert "_Loss" not in str(raised.value)


@pytest.mark.parametrize("wrong", [1, 1.0, "uniform", None, [], 255])
def test_flags_are_booleans(callable_: Any, wrong: Any) -> None:
    for name in ("gaussian_kernel",) if callable_ in _of_losses() else ("gaussian_kernel", "per_channel"):
        with pytest.raises(TypeError, match=f"`{name}` is "):
            callable_(*images(), **({"data_range": 1.0, "kernel_size": 3} | {name: wrong}))
    for name in ("return_full_image", "return_contrast_sensitivity"):
        for make in (lambda **k: ssim(*images(), **k), metrics.StructuralSimilarityIndexMeasure):
            with pytest.raises(TypeError, match=f"`{name}` is "):
                make(data_range=1.0, **{name: wrong})


def _of_losses() -> list[Any]:
    return [made for name, made in CALLABLES.items() if name.endswith("Loss")]


@pytest.mark.parametrize("wrong", ["x", None, 1, []])
def test_the_mask_mode_is_checked_where_it_is_given(wrong: Any) -> None:
    for make in (metrics.StructuralSimilarityIndexMeasure, metrics.MultiScaleStructuralSimilarityIndexMeasure):
        with pytest.raises(ValueError, match="`mask_mode` is"):
            make(mask_mode=wrong)
    for call in (FUNCTIONS["ssim"], SSIMLoss()):
        with pytest.raises(ValueError, match="`mask_mode` is"):
            call(*images(), mask_mode=wrong)


@pytest.mark.parametrize("sides", [("x", 1), (1.5, 64), (64, None), (64, torch.tensor(64)), ([64], 64)], ids=str)
def test_sides_that_are_not_integers_are_named(sides: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match=r"`(height|width)` is"):
        fitting_betas(*sides)
    with pytest.raises(TypeError, match="`depth` is 'x'"):
        fitting_betas(64, 64, depth="x")
    with pytest.raises(TypeError, match="`gaussian_kernel`"):
        fitting_betas(64, 64, gaussian_kernel=1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("betas", [None, (), [0.5], 0.5, (1,), ("a",), (0.5, None), torch.rand(2), (0.1,) * 40]),
        ("normalize", ["ReLU", 1, "mean"]),
    ],
)
def test_the_arguments_of_pyramids_are_named(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"`{name}`"):
            msssim(*images(), **({"data_range": 1.0, "kernel_size": 3, "betas": (0.5,)} | {name: value}))


def test_an_empty_batch_has_no_range(function: Any) -> None:
    with pytest.raises(RuntimeError, match="`data_range`"):
        function(torch.rand(0, 1, 32, 32), torch.rand(0, 1, 32, 32), kernel_size=3)


@pytest.mark.parametrize("sigma", [50.0, 1e9, 1e300], ids=str)
@pytest.mark.parametrize("sides", [(32, 32), (8, 32, 32)], ids=str)
def test_windows_larger_than_any_image_are_refused_before_they_are_built(
    function: Any, sides: tuple[int, ...], sigma: float
) -> None:
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match="too small for the window"):
        function(torch.rand(1, 1, *sides), torch.rand(1, 1, *sides), data_range=1.0, sigma=sigma, kernel_size=3)
    with pytest.raises((RuntimeError, ValueError), match=r"too small|must be at least"):
        function(*images(), data_range=1.0, kernel_size=1000000001, gaussian_kernel=False)
    assert time.perf_counter() - start < 5  # building them first would take minutes


def test_unsupported_tensors(function: Any) -> None:
    x, y = images()
    nested = torch.nested.nested_tensor([torch.rand(1, 32, 32)] * 2)
    for wrong in (nested, x.to_sparse(), x.to_mkldnn(), x.to(torch.complex64)):
        for pair in ((wrong, wrong), (x, wrong), (wrong, x)):
            for data_range in (1.0, None, (0.0, 1.0)):
                with pytest.raises((NotImplementedError, RuntimeError), match=r"`(preds|target)`"):
                    function(*pair, data_range=data_range, kernel_size=3)
    for wrong in (x.int(), x > 0.5, x.to(torch.float8_e4m3fn)):
        with pytest.raises(NotImplementedError, match="`preds` has the dtype"):
            function(wrong, wrong, data_range=1.0, kernel_size=3)
    for dtype in (torch.float16, torch.float32):
        empty = torch.rand(1, 0, 32, 32).to(dtype)
        with pytest.raises(RuntimeError, match="at least one channel"):
            function(empty, empty, data_range=1.0, kernel_size=3)
    with pytest.raises(RuntimeError, match=r"device|`preds` is on"):
        function(x.to("meta"), y, data_range=1.0, kernel_size=3)


@given(data=st.data())
def test_random_arguments_are_served_or_explained(data: st.DataObject) -> None:
    """Random arguments give a result of the right kind or a documented exception, and nothing else."""
    numbers = st.one_of(
        st.floats(allow_nan=True, allow_infinity=True),
        st.integers(-3, 40),
        st.none(),
        st.text(max_size=2),
        st.booleans(),
    )
    several = st.one_of(numbers, st.tuples(numbers, numbers), st.lists(numbers, max_size=3))
    arguments = {
        "sigma": data.draw(st.one_of(st.just(1.5), several)),
        "kernel_size": data.draw(st.one_of(st.just(3), several)),
        "data_range": data.draw(st.one_of(st.just(1.0), several)),
        "k1": data.draw(st.one_of(st.just(0.01), numbers)),
        "reduction": data.draw(st.sampled_from(["elementwise_mean", "sum", "none", None, "median", 3])),
        "gaussian_kernel": data.draw(st.booleans()),
    }
    sides = data.draw(st.sampled_from([(9, 11), (32, 16), (6, 7, 8)]))
    shape = (2, 1, *sides)
    name = data.draw(st.sampled_from(list(FUNCTIONS)))
    message = ""
    try:
        value = FUNCTIONS[name](torch.rand(shape), torch.rand(shape), **arguments)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError, IndexError) as error:
        message = str(error)
    if message:
        assert "`" in message, arguments  # an exception of ours, which names an argument
    else:
        assert value.shape == ((2,) if arguments["reduction"] in ("none", None) else ())
