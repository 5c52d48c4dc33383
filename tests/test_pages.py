"""The Python blocks of each documentation page run as they are, in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    str(path.relative_to(DOCS)): blocks
    for path in sorted(DOCS.rglob("*.md"))
    if path.name not in ("frameworks.md", "training.md", "scoring.md")  # these have tests of their own
    and (
        blocks := re.findall(r"^```python\n(?!>>>)(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )  # no interactive sessions
}


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    for block in PAGES[page]:
        exec(compile(block, f"docs/{page}", "exec"), names)


def test_the_blocks_of_the_readme_run() -> None:
    text = (DOCS.parent / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_the_targets_and_extras_on_the_pages_exist() -> None:
    """Every `make TARGET` and `pip install '.[EXTRA]'`."""
    root = DOCS.parent
    text = "\n".join(path.read_text() for path in [*DOCS.rglob("*.md"), *root.glob("*.md"), *root.glob("*/README.md")])
    code = re.findall(r"^```bash\n(.*?)^```|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL)
    commands = "\n".join(block or inline for block, inline in code)
    targets = set(re.findall(r"^make ([a-z][a-z-]*)", commands, re.MULTILINE))
    assert {"demo", "test"} <= targets
    makefile = (root / "Makefile").read_text()
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    extras = set(re.findall(r"pip install [\"']?\.\[(\w+)\]", commands))
    assert "scoring" in extras
    project = (root / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert extras <= set(re.findall(r"^(\w+) = ", project, re.MULTILINE))


def test_the_blocks_of_the_scoring_page_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("av")
    image = pytest.importorskip("PIL.Image")
    for folder, ending in (("original", "png"), ("jpeg20", "jpg")):
        (tmp_path / folder).mkdir()
        image.effect_noise((64, 48), 30).convert("RGB").save(tmp_path / folder / f"cat.{ending}")
    monkeypatch.chdir(tmp_path)
    printed: list[object] = []
    names = {"__name__": "page", "print": printed.append}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "scoring.md").read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/scoring.md", "exec"), names)
    assert [type(outcome).__name__ for outcome in printed] == ["Scored"]


def test_the_commands_on_the_pages_are_valid() -> None:
    """The command's own parser accepts every `ssim-fused compare`."""
    from ssim_fused.scoring.cli import make_parser

    paths = [*DOCS.rglob("*.md"), DOCS.parent / "README.md", *DOCS.parent.glob("examples/*.md")]
    commands = [
        command
        for path in paths
        for text in [re.sub(r"<\([^)]*\)", "/dev/fd/63", path.read_text())]  # the shell's process substitution
        for command in re.findall(r"(?:ssim-fused|-m ssim_fused) (compare [^#`\n>]+)", text)
        if "..." not in command
    ]
    assert len(commands) >= 7
    for command in commands:
        options = make_parser().parse_args(shlex.split(command))
        assert options.reference, command
        assert options.distorted, command


def test_the_user_pages_have_blocks() -> None:
    expected = {
        "index.md",
        "quickstart.md",
        *(
            f"guides/{name}.md"
            for name in ("restoration", "splatting", "volumes", "video", "evaluation", "image_regression")
        ),
    }
    assert expected <= set(PAGES)


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    listed = {DOCS / f"{line}.md" for tree in trees for line in tree.splitlines() if line and line[0] != ":"}
    pages = {path for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    assert listed | {DOCS / "index.md"} == pages | {DOCS / "tour.md"}  # the last is a notebook
    assert (DOCS / "tour.ipynb").resolve() == DOCS.parent / "examples" / "tour.ipynb"


def test_links_between_pages_lead_somewhere() -> None:
    root = DOCS.parent
    pages = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    pages += [*root.glob("*.md"), *root.glob("examples/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())]
    broken = [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert len(links) > 20
    assert not broken
