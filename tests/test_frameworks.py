"""The blocks of docs/frameworks.md, section by section, with the frameworks themselves."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ssim_fused.compat.fused_ssim import fused_ssim

PAGE = (Path(__file__).parent.parent / "docs" / "frameworks.md").read_text()
SECTIONS = {
    name: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def run(*blocks: str, **names: Any) -> dict[str, Any]:
    """Run the blocks in order; return the names that they define."""
    torch.manual_seed(0)
    names["__name__"] = "page"
    for block in blocks:
        exec(compile(block, "docs/frameworks.md", "exec"), names)
    return names


def test_the_sections_are_these() -> None:
    assert {name: len(blocks) for name, blocks in SECTIONS.items()} == {
        "Lightning": 2, "Accelerate": 1, "MONAI": 1, "gsplat": 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Lightning", "Accelerate", "MONAI"])
@pytest.mark.filterwarnings("ignore")  # of the frameworks
def test_a_section_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip(name.lower())
    pytest.importorskip("torchmetrics")
    monkeypatch.chdir(tmp_path)
    run(*SECTIONS[name])


def test_gsplat_rasterizes_into_the_loss() -> None:
    pytest.importorskip("gsplat")
    if not torch.cuda.is_available():
        pytest.skip("gsplat rasterizes on a GPU only")
    names = run(*SECTIONS["gsplat"])
    assert names["means"].grad.abs().sum() > 0


def test_the_arguments_of_gsplat_exist() -> None:
    gsplat = pytest.importorskip("gsplat")
    (arguments,) = re.findall(r"rasterization\(\n(.*?)\)", SECTIONS["gsplat"][0], re.DOTALL)
    words = [word.strip() for word in arguments.split(",")]
    given = {word.partition("=")[0]: word for word in words if "=" in word}
    inspect.signature(gsplat.rasterization).bind(*(word for word in words if "=" not in word), **given)


def test_the_loss_of_gsplat_is_its_trainers() -> None:
    """On the layout that the rasterizer returns: `[C, H, W, 3]`."""
    photographs = torch.rand(2, 40, 48, 3)
    rendered = (0.8 * photographs).requires_grad_()
    names = run(SECTIONS["gsplat"][1], rendered=rendered, photographs=photographs)
    given = rendered.detach().requires_grad_()
    x, y = given.permute(0, 3, 1, 2), photographs.permute(0, 3, 1, 2)
    expected = 0.8 * torch.nn.functional.l1_loss(x, y) + 0.2 * (1 - fused_ssim(x, y, padding="valid"))
    expected.backward()
    torch.testing.assert_close(names["loss"], expected)
    torch.testing.assert_close(rendered.grad, given.grad)
