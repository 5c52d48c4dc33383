"""The CUDA kernels for images, run on the host by tests/simt with AddressSanitizer and UBSan, compared with float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_program import ORDERS, Program, program_fixture
from simt_cases import C1, C2, Case, check, exact, pictures, terms
from simt_host import Host
from simt_image_cases import cases
from simt_operators import check_operators, is_operators
from suite import blurred
from torchmetrics.functional.image import structural_similarity_index_measure as reference

driver = program_fixture("images")


@pytest.fixture
def host(driver: Program, tmp_path: Path) -> Host:
    return Host(driver, tmp_path)


@pytest.mark.parametrize("case", cases(), ids=Case.id)
def test_kernels_on_the_host(case: Case, host: Host) -> None:
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    if case.strip_columns > 64:  # the case tests these strips
        assert (host.plan["strip_columns"], host.plan["single"]) == (case.strip_columns, case.single_strip)


@pytest.mark.parametrize("gradients", ["", "preds target"])
def test_the_order_of_threads_does_not_matter(gradients: str, host: Host) -> None:
    """Results are the same bits in every order of threads and copies. The nightly run tests this in all cases."""
    case = Case((1, 2, 37, 61), gradients=gradients, split_rows=12)
    preds, target = pictures(case)
    first, *others = [host.run(case, preds, target, order) for order in ORDERS]
    assert all(torch.equal(results[name], first[name]) for results in others for name in first)


# Blocks that process a part of a strip, a whole strip, or parts of consecutive strips and images.
ABREAST = {"split": {"split_rows": 16}, "whole": {}, "crossing": {"split_rows": 29, "crossing": True}}


@pytest.mark.parametrize("channels", [2, 3, 8])
@pytest.mark.parametrize("gradients", ["", "preds", "preds target"])
@pytest.mark.parametrize("way", ABREAST)
def test_interleaved_channels_side_by_side(way: str, gradients: str, channels: int, host: Host) -> None:
    """Each channel has the same number of blocks, and results equal those of separate planes."""
    case = Case((2, channels, 37, 130), gradients=gradients, layout="channels_last", **ABREAST[way])
    preds, target = pictures(case)
    results = host.run(case, preds, target)
    assert host.plan["abreast"] == channels
    assert host.plan["launched"] % channels == 0
    check(case, results, preds, target)
    planes = host.run(replace(case, layout="contiguous"), preds, target)
    assert host.plan["abreast"] == 1
    if way != "crossing":  # blocks that begin in other rows may have other pivots
        assert all(torch.equal(results[name], planes[name]) for name in planes)


def test_more_channels_than_fit_a_sector_run_plane_by_plane(host: Host) -> None:
    case = Case((1, 9, 20, 30), layout="channels_last")
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert host.plan["abreast"] == 1


@pytest.mark.parametrize("sizes", [(11, 11), (7, 7), (7, 3), (13, 13), (23, 23)])
@pytest.mark.parametrize("asked", [{"gradients": "preds target", "want_map": True}, {}], ids=["all", "gradient"])
@pytest.mark.parametrize("pad", [None, (0, 0)], ids=["same", "valid"])
@pytest.mark.parametrize("place", [(14, 50), (0, 3), (29, 63), (5, 5)])
def test_nan_reaches_its_windows_only(
    sizes: tuple[int, int],
    asked: dict[str, object],
    pad: tuple[int, int] | None,
    place: tuple[int, int],
    host: Host,
) -> None:
    case = Case((1, 1, 30, 64), sizes=sizes, pad=pad, split_rows=12, **asked)
    preds, target = pictures(case)
    row, column = place
    preds[0, 0, row, column] = torch.nan
    check(case, host.run(case, preds, target), preds, target)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_the_pivot_is_neither_nan_nor_outlier(bad: float, host: Host) -> None:
    """The pivot is sampled at the quarters of the image. A bad image must not affect the next one."""
    case = Case((2, 1, 16, 48), want_map=True, offset=100.0)
    preds, target = pictures(case)
    clean = host.run(case, preds, target)
    target[0, 0, 8, 24] = bad
    spoilt = host.run(case, preds, target)
    assert all(torch.equal(clean[name][1], spoilt[name][1]) for name in clean if name != "batch_similarity")
    # Rows that the bad pixel does not reach have another pivot, so they are only nearly equal.
    assert (clean["map"][0, 0, :2] - spoilt["map"][0, 0, :2]).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(11, 11), (5, 5), (7, 7), (13, 13), (23, 23)])
@pytest.mark.parametrize("gradients", ["preds", "preds target"])
def test_identical_images_score_exactly_one(
    gradients: str, dtype: torch.dtype, sizes: tuple[int, int], host: Host
) -> None:
    case = Case((2, 1, 25, 40), sizes=sizes, dtype=dtype, gradients=gradients)
    _, target = pictures(case)
    results = host.run(case, target, target)
    assert (results["similarity"] == 1).all()
    assert (results["contrast_sensitivity"] == 1).all()
    assert all((results[f"grad_{name}"] == 0).all() for name in gradients.split())


@pytest.mark.parametrize("sizes", [(11, 11), (7, 7), (13, 13), (23, 23)])
def test_a_tiny_distance_keeps_its_precision(sizes: tuple[int, int], host: Host) -> None:
    """A distance of 1e-9, which `1 - ssim` in float32 would round to 0 or 6e-8."""
    case = Case((1, 1, 40, 44), sizes=sizes, gradients="", as_distance=True)
    _, target = pictures(case)
    preds = (target.float() + torch.linspace(-1e-5, 1e-5, 44)).double()
    expected = exact(case, preds, target)["similarity"]
    assert 1e-12 < expected < 1e-8
    torch.testing.assert_close(host.run(case, preds, target)["similarity"], expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("sizes", [(11, 11), (7, 7), (13, 13), (23, 23)])
def test_scores_stay_within_their_bounds(sizes: tuple[int, int], host: Host) -> None:
    """At a step of 1000 times the data range, the covariance of some windows is nothing but rounding errors.

    The error of the map must be at most that of the textbook formula in float32.
    """
    case = Case((1, 1, 30, 64), sizes=sizes, want_map=True, gradients="preds")
    _, target = pictures(case)
    target[..., 32:] += 1000
    preds = blurred(target)
    results = host.run(case, preds, target)
    assert results["map"].abs().max() <= 1 + 1e-6
    assert results["grad_preds"].isfinite().all()
    expected, textbook = (exact(case, *images)["map"] for images in ((preds, target), (preds.float(), target.float())))
    ours, theirs = ((image - expected).square().mean().sqrt() for image in (results["map"], textbook))
    assert ours <= theirs


def test_the_planner_divides_the_image(host: Host) -> None:
    """Without overrides, the planner uses several splits on a device with four SMs, and results are right."""
    case = Case((1, 1, 70, 70), strip_columns=0)
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert host.plan["blocks"] > host.plan["strips"]


@pytest.mark.parametrize(
    ("shape", "asked", "marches"),
    [
        ((1, 1, 64, 64), {}, True),
        ((1, 1, 63, 70), {}, False),
        ((1, 1, 70, 63), {"gradients": ""}, False),
        ((1, 1, 64, 64), {"dtype": torch.float16}, False),
        ((1, 1, 64, 64), {"gradients": "preds target"}, False),
    ],
    ids=str,
)
def test_small_images_run_long_windows_one_axis_at_a_time(
    shape: tuple[int, ...], asked: dict[str, object], marches: bool, host: Host
) -> None:
    case = Case(shape, sizes=(23, 23), strip_columns=0, **asked)
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert ("strip_columns" in host.plan) == marches


def test_the_oracle_agrees_with_torchmetrics() -> None:
    case = Case((2, 3, 24, 30))
    preds, target = pictures(case)
    position = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-0.5 * (position / 1.5) ** 2)
    window = window / window.sum()
    constants = torch.tensor([C1, C2], dtype=torch.float64)
    preds.requires_grad_()
    ours, _ = terms(preds, target, [window, window], (5, 5), "reflect", constants)
    theirs = reference(preds, target, data_range=1.0)
    assert torch.allclose(ours.mean(), theirs, rtol=0, atol=1e-12)
    (our_gradient,) = torch.autograd.grad(ours.mean(), preds)
    (their_gradient,) = torch.autograd.grad(theirs, preds)
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------------------------------------
# On a GPU


@pytest.mark.parametrize("case", [*filter(is_operators, cases())], ids=Case.id)
def test_operators(case: Case, device: str) -> None:
    """The same cases through torch.ops: the kernels for the CPU, and those for CUDA if a GPU is present."""
    check_operators(case, device)
