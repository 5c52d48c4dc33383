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
        *(f"guides/{name}.md" for name in ("restoration", "splatting", "volumes", "video", "evaluation")),
    }
    assert expected <= set(PAGES)


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    listed = {DOCS / f"{line}.md" for tree in trees for line in tree.splitlines() if line and line[0] != ":"}
    pages = {path for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    assert listed | {DOCS / "index.md"} == pages | {DOCS / "tour.md"}  # the last is a notebook
    assert (DOCS / "tour.ipynb").resolve() == DOCS.parent / "examples" / "tour.ipynb"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())]
    broken = [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert len(links) > 20
    assert not broken
