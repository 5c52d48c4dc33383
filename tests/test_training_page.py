"""The blocks of docs/training.md run as they are, in order, and the tests that the page names exist."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_promises import missing_tests

from ssim_fused import structural_similarity_index_measure as ssim

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.nightly)])
def test_the_blocks_run(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, Any] = {"__name__": "training"}
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), names)
    assert names["gradients"].shape == names["noisy"].shape
    assert names["loss"].isfinite()
    network = FakeDistributed(names["network"])
    before = [parameter.clone() for parameter in network.parameters()]
    names["train_step"](network, names["optimizer"], [(names["noisy"].detach(), names["clean"])] * 3)
    assert network.waited == 1
    assert not any(map(torch.equal, before, network.parameters()))


class FakeDistributed(torch.nn.Module):
    """Stands in for DistributedDataParallel with a single process."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.waited = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)

    def no_sync(self) -> Any:
        self.waited += 1
        return torch.enable_grad()


def test_the_tests_that_the_page_names_exist() -> None:
    assert not missing_tests(PAGE)
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) >= 7
    for section in sections:
        assert re.search(r"^Tests?: `test_", section, re.MULTILINE), f"no test is named: {section[:40]}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_graph_repeats() -> None:
    target = torch.rand(2, 3, 64, 64, device="cuda")
    preds = torch.rand(2, 3, 64, 64, device="cuda", requires_grad=True)
    step = torch.cuda.make_graphed_callables(lambda x, y: 1 - ssim(x, y, data_range=1.0), (preds, target))
    for _ in range(3):
        (found,) = torch.autograd.grad(step(preds, target), preds)
        (expected,) = torch.autograd.grad(1 - ssim(preds, target, data_range=1.0), preds)
        assert torch.equal(found, expected)
