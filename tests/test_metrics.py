"""The metrics replace torchmetrics': the same results, states and uses, but without keeping graphs alive."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing
from torchmetrics import Metric, MetricCollection, MetricTracker, image

from ssim_fused import metrics, ms_ssim, ssim

OURS = {"ssim": metrics.StructuralSimilarityIndexMeasure, "ms_ssim": metrics.MultiScaleStructuralSimilarityIndexMeasure}
THEIRS = {"ssim": image.StructuralSimilarityIndexMeasure, "ms_ssim": image.MultiScaleStructuralSimilarityIndexMeasure}
SMALL: dict[str, dict[str, Any]] = {"ssim": {}, "ms_ssim": {"betas": (0.4, 0.6), "kernel_size": 7}}
FUNCTIONS: dict[str, Callable[..., Any]] = {"ssim": ssim, "ms_ssim": ms_ssim}


@pytest.fixture(params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def batches(count: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for size in range(1, count + 1):  # of different sizes
        target = torch.rand(size, 3, 24, 26, generator=generator, dtype=torch.float64)
        preds = target + 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
        pairs.append((preds.to(dtype), target.to(dtype)))
    return pairs


def both(name: str, **arguments: Any) -> tuple[Metric, Metric]:
    return OURS[name](**SMALL[name], **arguments), THEIRS[name](**SMALL[name], **arguments)


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the states are float32, as in torchmetrics


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"data_range": 1.0},
    {"data_range": (0.2, 0.8), "reduction": "sum"},
    {"data_range": 1.0, "reduction": "none"},
    {"data_range": 1.0, "reduction": None},
    {"data_range": 1.0, "gaussian_kernel": False, "k1": 0.02, "k2": 0.05},
    {"data_range": 1.0, "sigma": 1.0},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_results_and_states_match_torchmetrics(name: str, arguments: dict[str, Any]) -> None:
    ours, theirs = both(name, **arguments)
    for metric in (ours, theirs):
        for pair in batches(2):
            metric.update(*pair)
    assert_close(ours.compute(), theirs.compute())
    for pair in batches(2, seed=1):
        assert_close(ours(*pair), theirs(*pair))
    assert_close(ours.compute(), theirs.compute())
    assert ours.metric_state.keys() == theirs.metric_state.keys()
    assert_close(ours.similarity, theirs.similarity)
    if theirs.total > 0:  # torchmetrics' SSIM does not count without a reduction
        assert_close(ours.total, theirs.total)
    ours.reset()
    theirs.reset()
    assert ours.metric_state == theirs.metric_state
    assert isinstance(ours, THEIRS[name])


@pytest.mark.parametrize("reduction", ["elementwise_mean", "none"])
@pytest.mark.parametrize("picture", ["return_full_image", "return_contrast_sensitivity"])
def test_images(picture: str, reduction: str) -> None:
    ours, theirs = both("ssim", data_range=1.0, reduction=reduction, **{picture: True})
    for pair in batches():
        for found, expected in zip(ours(*pair), theirs(*pair), strict=True):
            assert_close(found, expected)
    for found, expected in zip(ours.compute(), theirs.compute(), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("reduction", ["elementwise_mean", "sum", "none"])
def test_a_batchs_value_has_a_gradient_and_no_state_has(name: str, reduction: str) -> None:
    metric = OURS[name](**SMALL[name], data_range=1.0, reduction=reduction)
    for step, (preds, target) in enumerate(batches(), start=1):
        preds.requires_grad_()
        value = metric(preds, target)
        value.sum().backward()
        expected = torch.autograd.grad(
            FUNCTIONS[name](preds, target, data_range=1.0, reduction=reduction, **SMALL[name]).sum(), preds
        )[0]
        torch.testing.assert_close(preds.grad, expected, rtol=1e-5, atol=1e-9)
        states = metric.metric_state.values()
        for state in states:
            assert not any(s.requires_grad for s in (state if isinstance(state, list) else [state]))
        assert sum(s.numel() for state in states for s in (state if isinstance(state, list) else [state])) <= (
            2 if reduction != "none" else 1 + step * (step + 1) // 2
        )
    metric.update(*(image.requires_grad_() for image in batches(1)[0]))
    assert not metric.compute().requires_grad


@pytest.mark.parametrize("reduction", ["elementwise_mean", "sum", "none"])
def test_options_of_the_functions(name: str, reduction: str) -> None:
    options = {"data_range": 1.0, "padding": "valid", "per_channel": True, **SMALL[name]}
    metric = OURS[name](reduction=reduction, **options)
    for pair in batches(2):
        metric.update(*pair)
    whole = [torch.cat(images) for images in zip(*batches(2), strict=True)]
    assert_close(metric.compute().double(), FUNCTIONS[name](*whole, reduction=reduction, **options))
    with pytest.raises(ValueError, match="`padding`"):
        OURS[name](padding="same")


@pytest.mark.parametrize("mask_mode", ["window", "map"])
@pytest.mark.parametrize("reduction", ["elementwise_mean", "none"])
def test_masks(name: str, reduction: str, mask_mode: str) -> None:
    metric = OURS[name](**SMALL[name], data_range=1.0, reduction=reduction, mask_mode=mask_mode)
    collection = MetricCollection({"masked": metric})
    pairs = batches(2)
    masks = [torch.rand(len(preds), 1, 24, 26, generator=torch.Generator().manual_seed(7)) > 0.3 for preds, _ in pairs]
    options = {"data_range": 1.0, "mask_mode": mask_mode, **SMALL[name]}
    for (preds, target), mask in zip(pairs, masks, strict=True):
        of_batch = collection(preds, target, mask=mask)["masked"]
        expected = FUNCTIONS[name](preds, target, mask=mask, reduction=reduction, **options)
        assert_close(of_batch.double(), expected.squeeze())  # torchmetrics returns a scalar for one element
    whole = [torch.cat(images) for images in zip(*pairs, strict=True)]
    expected = FUNCTIONS[name](*whole, mask=torch.cat(masks), reduction=reduction, **options)
    assert_close(collection.compute()["masked"].double(), expected)
    assert not torch.equal(expected, FUNCTIONS[name](*whole, reduction=reduction, data_range=1.0, **SMALL[name]))


def test_mistakes_are_explained(name: str) -> None:
    metric = OURS[name](data_range=1.0)
    with pytest.raises(RuntimeError, match="same shape"):
        metric.update(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17))
    with pytest.raises(ValueError, match="reduction"):
        OURS[name](reduction="mean")


def test_collection_tracker_clone_pickle_and_checkpoint(name: str) -> None:
    ours, theirs = both(name, data_range=1.0)
    collection = MetricCollection({"ours": ours, "theirs": theirs})
    tracker = MetricTracker(copy.deepcopy(ours), maximize=True)
    for pair in batches():
        collection.update(*pair)
        tracker.increment()
        tracker.update(*pair)
    results = collection.compute()
    assert_close(results["ours"], results["theirs"])
    assert tracker.best_metric() == pytest.approx(max(float(v) for v in tracker.compute_all()))
    metric = pickle.loads(pickle.dumps(collection["ours"].clone()))
    assert_close(metric.compute(), results["theirs"])
    metric.persistent(True)
    fresh = OURS[name](**SMALL[name], data_range=1.0)
    fresh.persistent(True)
    fresh.load_state_dict(metric.state_dict())
    fresh._update_count = 1
    assert_close(fresh.compute(), results["theirs"])


def test_it_can_be_scripted_and_hashed(name: str) -> None:
    """torchmetrics' own tests require this of every metric."""
    metric = OURS[name](**SMALL[name], data_range=1.0)
    torch.jit.script(metric)
    assert isinstance(hash(metric), int)
    with pytest.raises(RuntimeError, match="is_differentiable"):
        metric.is_differentiable = False


def test_plot(name: str) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    metric = OURS[name](**SMALL[name], data_range=1.0)
    values = [metric(*pair) for pair in batches()]
    for shown in (None, values):
        figure, axes = metric.plot(shown)
        assert figure is not None
        assert axes.lines or axes.collections


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(name: str, dtype: torch.dtype) -> None:
    ours, theirs = both(name, data_range=1.0)
    preds, target = batches(1, dtype=dtype)[0]
    with torch.autocast("cpu", dtype=dtype):
        value = ours(preds, target)
    assert value.dtype == torch.float32
    assert_close(value, theirs(preds.float(), target.float()))


# ----------------------------------------------------------------------------------------------------------------------
# Two processes


def shares(rank: int) -> list[tuple[Tensor, Tensor]]:
    """Of six images, one process gets one batch and the other two."""
    return batches()[2:] if rank == 0 else batches()[:2]


REDUCTIONS = ["elementwise_mean", "sum", "none"]


def run_process(rank: int, folder: str) -> None:
    """Computes every case of `test_two_processes`, since starting a process takes longer than all of them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    try:
        for name, reduction, on_step in itertools.product(OURS, REDUCTIONS, (False, True)):
            metric = OURS[name](**SMALL[name], data_range=1.0, reduction=reduction, dist_sync_on_step=on_step)
            steps = batches(1, seed=1 + rank) if on_step else shares(rank)  # a step covers both processes
            of_steps = [metric(*pair) for pair in steps]
            results[f"{name} {reduction} {on_step}"] = {"steps": of_steps, "result": metric.compute()}
        torch.save(results, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """The results of both processes, by case."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(run_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("on_step", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_two_processes(
    name: str, reduction: str, on_step: bool, two_processes: list[dict[str, dict[str, Any]]]
) -> None:
    of_processes = [results[f"{name} {reduction} {on_step}"] for results in two_processes]
    pairs = [batches(1, seed=1 + rank)[0] for rank in range(2)] if on_step else [*shares(0), *shares(1)]
    whole = [torch.cat(images) for images in zip(*pairs, strict=True)]
    expected = FUNCTIONS[name](*whole, data_range=1.0, reduction=reduction, **SMALL[name])
    for process in of_processes:
        assert_close(process["result"].double(), expected)
        if on_step:
            assert_close(process["steps"][0].double(), expected)
