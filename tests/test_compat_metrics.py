"""MONAI's cumulative metrics against the package: scores, reductions, buffers, and several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compat_support import assert_signature, peer, pictures
from torch import Tensor

from ssim_fused.compat import monai

REDUCTIONS = ["none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel"]
METRICS: list[tuple[str, dict[str, Any]]] = [
    ("SSIMMetric", {"spatial_dims": 2, "win_size": 5}),
    ("SSIMMetric", {"spatial_dims": 3, "win_size": (3, 4, 5), "kernel_type": "uniform", "data_range": 2.0}),
    ("MultiScaleSSIMMetric", {"spatial_dims": 2, "kernel_size": 5, "weights": (0.4, 0.6)}),
    ("MultiScaleSSIMMetric", {"spatial_dims": 3, "kernel_size": 3, "weights": (0.4, 0.6), "k2": 0.1}),
]


def batches(axes: int) -> list[tuple[Tensor, Tensor]]:
    shapes = [(2, 1), (1, 1), (3, 1)]
    return [
        tuple(image.float() for image in pictures(*shape, *(13, 14, 15)[:axes], seed=i))
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(("name", "arguments"), METRICS, ids=str)
def test_signatures_match_the_package(name: str, arguments: dict[str, Any]) -> None:
    assert_signature(getattr(monai, name), getattr(peer("monai.metrics.regression"), name))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "arguments"), METRICS, ids=str)
def test_scores_and_reductions(name: str, arguments: dict[str, Any], reduction: str) -> None:
    """Scores of batches, of a list of images, and of an image with NaN."""
    given = arguments | {"reduction": reduction, "get_not_nans": True}
    metrics = [getattr(module, name)(**given) for module in (monai, peer("monai.metrics.regression"))]
    images = batches(arguments["spatial_dims"])
    images[1][0][:] = float("nan")
    for x, y in images:
        close(*(metric(x, y) for metric in metrics))
    close(*(metric(list(images[2][0]), list(images[2][1])) for metric in metrics))
    assert len(metrics[0]) == len(metrics[1]) == 9
    close(*(metric.get_buffer() for metric in metrics))
    for found, expected in zip(*(metric.aggregate() for metric in metrics), strict=True):
        close(found, expected)
    for found, expected in zip(*(metric.aggregate("mean") for metric in metrics), strict=True):
        close(found, expected)
    for metric in metrics:
        metric.reset()
        assert len(metric) == 0
        assert metric.get_buffer() is None
        with pytest.raises(ValueError, match=r"no scores|must be"):
            metric.aggregate()
    assert str(metrics[0]) == str(metrics[1])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_a_metric_keeps_no_graph_and_no_view_of_its_scores() -> None:
    metric = monai.SSIMMetric(2, win_size=5)
    x, y = batches(2)[0]
    scores = metric(x.requires_grad_(), y)
    assert not scores.requires_grad
    metric.get_buffer().fill_(0)
    before = metric.aggregate()
    assert before > 0
    metric.append(torch.tensor([1.0]))
    metric.extend(torch.ones(2, 1))
    assert len(metric) == 5
    assert metric.aggregate() > before


def test_mistakes() -> None:
    metric = monai.SSIMMetric(2, win_size=5)
    x, y = batches(2)[0]
    for images in ((x, None), (None, y), (list(x), None), (list(x), list(y)[:1]), ([], []), ("x", y)):
        with pytest.raises(ValueError, match=r"`(y_pred|y)`"):
            metric(*images)
    assert len(metric) == 0
    for other in ({"reduction": "batch"}, {"spatial_dims": 1}, {"win_size": (3, 3, 3)}):
        with pytest.raises(ValueError, match=f"`{next(iter(other))}`"):
            monai.SSIMMetric(**{"spatial_dims": 2} | other)
    metric(x, y)
    with pytest.raises(ValueError, match="`reduction`"):
        metric.aggregate("batch")


def run_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    try:
        metric = monai.SSIMMetric(2, win_size=5)
        for x, y in batches(2)[:rank]:  # no batch, one and two batches
            metric(x, y)
        torch.save((metric.get_buffer(), metric.aggregate()), Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_scores_are_gathered_from_all_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_process, (str(tmp_path),), nprocs=3)
    metric = monai.SSIMMetric(2, win_size=5)
    for rank in range(3):
        for x, y in batches(2)[:rank]:
            metric(x, y)
    for rank in range(3):
        found, score = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, metric.get_buffer())
        torch.testing.assert_close(score, metric.aggregate())
