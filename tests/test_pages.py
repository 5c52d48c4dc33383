"""The Python blocks of the documentation's pages run as they stand, page by page, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    str(path.relative_to(DOCS)): blocks
    for path in sorted(DOCS.rglob("*.md"))
    if path.name not in ("training.md", "scoring.md")  # of one the tests stand beside, the other reads folders
    and (
        blocks := re.findall(r"^```python\n(?!>>>)(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )  # no sessions
}


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    for block in PAGES[page]:
        exec(compile(block, f"docs/{page}", "exec"), names)


def test_the_user_pages_have_blocks() -> None:
    expected = {
        "quickstart.md",
        *(f"guides/{name}.md" for name in ("restoration", "splatting", "volumes", "evaluation")),
    }
    assert expected <= set(PAGES)
