"""The pytest plugin: the fixture `image_snapshot`, `--ssim-update`, the report, and no cost for runs without it.

Each test runs pytest on a small project, without other installed plugins.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Imported before any in-process run, which drops the modules that it imports. A second import would register the
# operators twice.
import ssim_fused.testing.stored  # noqa: F401

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
MAKE = """
import numpy as np, os, pytest, torch
def picture(shade=0, seed=0):
    image = np.random.default_rng(seed).integers(0, 200, (40, 60, 3)).astype(np.uint8)
    image[10:30, 20:40] += np.uint8(shade)
    return image
SHADE = int(os.environ.get("SHADE", "0"))
"""


class Project:
    """A project on which pytest runs, in this process or in a separate one."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path

    def write(self, name: str = "test_page", body: str = "", head: str = MAKE) -> None:
        self.pytester.makepyfile(**{name: head + body})

    def run(self, *arguments: str, apart: bool = False) -> pytest.RunResult:
        run = self.pytester.runpytest_subprocess if apart else self.pytester.runpytest_inprocess
        return run("-p", "pytest_ssim_fused", *arguments)

    def pictures(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("__image_snapshots__/**/*.png"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return Project(pytester)


PAGE = """
def test_page(image_snapshot):
    image_snapshot(picture(SHADE))
"""


def test_missing_created_passed_changed_updated(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(body=PAGE)
    stored = project.path / "__image_snapshots__/test_page/test_page.png"

    missing = project.run()
    missing.assert_outcomes(failed=1)
    text = missing.stdout.str()
    assert f"no stored picture {stored}" in text
    assert "pytest test_page.py::test_page --ssim-update" in text
    assert Path(re.search(r"actual image: (.*\.png)", text)[1]).is_file()
    assert project.pictures() == []

    created = project.run("--ssim-update")
    created.assert_outcomes(passed=1)
    created.stdout.fnmatch_lines(["created: __image_snapshots__/test_page/test_page.png"])
    first = stored.read_bytes()
    again = project.run()
    again.assert_outcomes(passed=1)
    assert "image snapshots" not in again.stdout.str()

    monkeypatch.setenv("SHADE", "50")
    changed = project.run()
    changed.assert_outcomes(failed=1)
    text = changed.stdout.str()
    assert re.search(r"SSIM is 0\.\d+, expected at_least=0.99", text)
    assert re.search(r"worst region: x=20, y=10, w=20, h=20", text)
    assert f"expected: file {stored}" in text
    for kind in ("heat map", "actual image"):
        assert Path(re.search(rf"{kind}: (.*\.png)", text)[1]).is_file()
    assert stored.read_bytes() == first

    updated = project.run("--ssim-update")
    updated.assert_outcomes(passed=1)
    updated.stdout.fnmatch_lines(["updated: __image_snapshots__/test_page/test_page.png"])
    assert stored.read_bytes() != first
    project.run().assert_outcomes(passed=1)


def test_an_update_keeps_similar_images(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(body=PAGE)
    project.run("--ssim-update")
    stored = project.path / project.pictures()[0]
    first = stored.read_bytes()
    monkeypatch.setenv("SHADE", "1")
    project.run("--ssim-update").assert_outcomes(passed=1)
    assert stored.read_bytes() == first


def test_names(project: Project) -> None:
    project.write(
        body="""
@pytest.mark.parametrize("mode", ["dark", "a/b", "a_b", "x" * 300])
def test_modes(mode, image_snapshot):
    image_snapshot(picture(seed=len(mode)))
    image_snapshot(picture(seed=1), name="menu")
    image_snapshot(picture(seed=2))

class TestPage:
    def test_modes(self, image_snapshot):
        image_snapshot(picture())
"""
    )
    project.run("--ssim-update").assert_outcomes(passed=5)
    names = [Path(path).name for path in project.pictures()]
    assert len(names) == len(set(names)) == 13
    assert {"test_modes[dark].png", "test_modes[dark].menu.png", "test_modes[dark].1.png"} <= set(names)
    assert "TestPage.test_modes.png" in names
    assert max(map(len, names)) < 200
    project.run().assert_outcomes(passed=5)
    assert [Path(path).name for path in project.pictures()] == names


def test_one_name_for_two_images_is_refused(project: Project) -> None:
    project.write(
        body="""
def test_twice(image_snapshot):
    image_snapshot(picture(), name="menu")
    image_snapshot(picture(), name="menu")

@pytest.mark.parametrize("name", ["", "1", 1])
def test_wrong(image_snapshot, name):
    image_snapshot(picture(), name=name)
"""
    )
    result = project.run("--ssim-update")
    result.assert_outcomes(failed=4)
    assert result.stdout.str().count("E       ValueError: `name` is") == 4


def test_every_form_of_image_is_stored_unchanged(project: Project) -> None:
    project.write(
        body="""
from PIL import Image
page = np.zeros((40, 60, 4), np.uint8)
page[..., :3] = 255
page[10:30, 20:40, 3] = 255
IMAGES = {
    "grey": picture()[..., 0], "rgb": picture(), "rgba": page, "float": picture() / 255,
    "tensor": torch.from_numpy(picture()).permute(2, 0, 1), "deep": picture()[..., 0].astype(np.uint16) * 300,
    "pil": Image.fromarray(picture()), "bool": picture()[..., 0] > 99,
    "bfloat16": torch.full((3, 20, 20), 0.3).bfloat16(),
}

@pytest.mark.parametrize("kind", IMAGES)
def test_kind(kind, image_snapshot):
    image_snapshot(IMAGES[kind], at_least=1)

def test_range(image_snapshot):
    image_snapshot(picture() / 127.5 - 1, at_least=1, data_range=(-1, 1))

def test_nan(image_snapshot):
    image = picture() / 255
    image[:5] = np.nan
    image_snapshot(image, at_least=1, ignore=[(0, 0, 60, 5)])
"""
    )
    project.run("--ssim-update").assert_outcomes(passed=11)
    project.run().assert_outcomes(passed=11)


def test_images_that_cannot_be_stored_are_refused(project: Project) -> None:
    project.write(
        body="""
def test_deep(image_snapshot):
    image_snapshot(picture().astype(np.uint16))

def test_range(image_snapshot):
    image_snapshot(picture().astype(float))

def test_ignore(image_snapshot):
    image_snapshot(picture(), ignore=[(0, 0, 61, 1)])
"""
    )
    result = project.run("--ssim-update")
    result.assert_outcomes(failed=3)
    assert result.stdout.str().count("E       ValueError: `") == 3
    assert project.pictures() == []


def test_equality_as_in_syrupy(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(
        body="""
from PIL import Image

def test_pil(image_snapshot):
    assert Image.fromarray(picture()) == image_snapshot

def test_equal(image_snapshot):
    assert picture(SHADE) == image_snapshot
    assert torch.from_numpy(picture()) .permute(2, 0, 1) == image_snapshot
    assert image_snapshot(name="pil", at_least=0.5) == Image.fromarray(picture())

def test_unequal(image_snapshot):
    assert picture() != image_snapshot
"""
    )
    project.run("--ssim-update").assert_outcomes(passed=1, failed=2)
    assert len(project.pictures()) == 3
    monkeypatch.setenv("SHADE", "50")
    result = project.run()
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    for part in (
        "worst region: x=20, y=10, w=20, h=20",
        "TypeError: image_snapshot does not support `!=`",
        "use image_snapshot(im",
    ):
        assert part in text


def test_another_size_fails_and_can_be_accepted(project: Project) -> None:
    project.write(body=PAGE)
    project.run("--ssim-update")
    project.write(body=PAGE.replace("picture(SHADE)", "picture()[:30]"))
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*`actual` has 60x30 pixels and `expected` 60x40*", "*expected: *test_page.png"])
    project.run("--ssim-update").assert_outcomes(passed=1)
    project.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("how", ["option", "ini"])
def test_results_path(project: Project, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(body=PAGE + "\ndef test_plain():\n    from ssim_fused.testing import assert_similar\n"
                  "    with pytest.raises(AssertionError):\n        assert_similar(picture(50), picture())\n"
                  "    assert_similar(picture(90), picture())\n")  # fmt: skip
    project.run("--ssim-update")
    monkeypatch.setenv("SHADE", "50")
    if how == "ini":
        project.pytester.makeini("[pytest]\nssim_results_path = failed\n")
    project.run(*(["--ssim-results-path", "failed"] if how == "option" else [])).assert_outcomes(failed=2)
    assert sorted(str(path.relative_to(project.path)) for path in (project.path / "failed").rglob("*.png")) == [
        "failed/test_page/test_page.actual.png",
        "failed/test_page/test_page.heatmap.png",
        "failed/test_page/test_plain-2.png",
        "failed/test_page/test_plain.png",
    ]


def test_the_threshold_of_a_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(body=PAGE + "\ndef test_own(image_snapshot):\n    image_snapshot(picture(SHADE), at_least=0.1)\n")
    project.run("--ssim-update")
    monkeypatch.setenv("SHADE", "2")
    project.run().assert_outcomes(passed=2)
    project.pytester.makeini("[pytest]\nssim_at_least = 0.99999\n")
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "expected at_least=0.99999." in result.stdout.str()
    project.write(body=PAGE.replace("SHADE)", "SHADE), at_least=0, region_at_least=0.9999"))
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "in a region, expected region_at_least=0.9999" in result.stdout.str()
    project.write(body=PAGE)
    project.pytester.makeini("[pytest]\nssim_at_least = 99\n")
    result = project.run()
    assert "`at_least` is 99" in result.stdout.str()


TWO = """
def test_one(image_snapshot):
    image_snapshot(picture(seed=1))

def test_two(image_snapshot):
    image_snapshot(picture(seed=2))
    image_snapshot(picture(seed=3))
"""


@pytest.mark.parametrize("workers", [[], ["-p", "xdist.plugin", "-n2"]], ids=["alone", "xdist"])
def test_unused_images_are_reported_and_deleted(project: Project, workers: list[str]) -> None:
    project.write(body=TWO)
    project.write("test_gone", PAGE)
    created = project.run("--ssim-update")
    created.assert_outcomes(passed=3)
    assert created.stdout.str().count("created: __image") == len(project.pictures()) == 4
    (project.path / "test_gone.py").unlink()
    project.write(body=TWO.replace("    image_snapshot(picture(seed=3))\n", "").replace("test_one", "test_uno"))
    unused = project.run(*workers, apart=bool(workers))
    unused.assert_outcomes(passed=1, failed=1)
    found = re.findall(r"^unused: __image_snapshots__/(.*)", unused.stdout.str(), re.MULTILINE)
    assert found == ["test_gone/test_page.png", "test_page/test_one.png", "test_page/test_two.1.png"]
    assert len(project.pictures()) == 4
    project.run("--ssim-update").assert_outcomes(passed=2)
    assert [Path(path).name for path in project.pictures()] == ["test_two.png", "test_uno.png"]


@pytest.mark.parametrize(
    "arguments", [["-k", "one"], ["test_page.py::test_one"], ["--deselect", "test_page.py::test_two"], ["-x"], ["--lf"]]
)
def test_a_partial_run_reports_no_unused_images_of_other_tests(project: Project, arguments: list[str]) -> None:
    project.write(body="def test_first():\n    pass\n" + TWO + "\ndef test_three():\n    assert False\n")
    project.run("--ssim-update").assert_outcomes(passed=3, failed=1)
    if arguments == ["-x"]:
        project.write(body="def test_first():\n    assert False\n" + TWO)
    result = project.run("--ssim-update", *arguments)
    assert "image snapshots" not in result.stdout.str()
    assert len(project.pictures()) == 3


def test_skipped_and_failed_tests_use_their_images(project: Project) -> None:
    project.write(body=TWO)
    project.run("--ssim-update")
    project.write(
        body="""
@pytest.mark.skip
def test_one(image_snapshot):
    image_snapshot(picture(seed=1))

def test_two(image_snapshot):
    assert False
"""
    )
    result = project.run("--ssim-update")
    result.assert_outcomes(skipped=1, failed=1)
    assert len(project.pictures()) == 3


def test_xdist_compares_and_names_in_the_same_way(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(body=TWO.replace("def", '@pytest.mark.xdist_group("g")\ndef') + PAGE)
    project.run("--ssim-update").assert_outcomes(passed=3)
    monkeypatch.setenv("SHADE", "50")
    result = project.run("-p", "xdist.plugin", "-n2", "--dist", "loadgroup", apart=True)
    result.assert_outcomes(passed=2, failed=1)
    heat_map = Path(re.search(r"heat map: (.*)", result.stdout.str())[1])
    assert heat_map.is_file()
    assert "popen" not in str(heat_map.relative_to(project.path))


def test_runs_without_the_fixture_do_not_import_torch(project: Project) -> None:
    project.write(
        head="",
        body="""
def test_nothing():
    pass

def test_fixture(image_snapshot):
    import sys
    assert not {"torch", "numpy", "PIL", "ssim_fused"} & set(sys.modules)
""",
    )
    project.run("--ssim-update", apart=True).assert_outcomes(passed=2)
    assert not (project.path / "__image_snapshots__").exists()


def test_the_entry_point_is_the_plugin() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^\[project\.entry-points\.pytest11\]\nssim_fused = "pytest_ssim_fused"$', text, re.MULTILINE)
    code = "import sys, pytest; before = set(sys.modules); import pytest_ssim_fused; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"torch", "numpy", "PIL", "matplotlib", "ssim_fused"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


def test_the_example_on_the_page_runs(project: Project) -> None:
    page = (ROOT / "docs/guides/image_regression.md").read_text()
    (block,) = re.findall(r"^```python\n(# test_page\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    project.write(head="", body=block)
    missing = project.run()
    missing.assert_outcomes(failed=2)
    assert "pytest 'test_page.py::test_page[light]' --ssim-update" in missing.stdout.str()
    project.run("--ssim-update").assert_outcomes(passed=2)
    for picture in project.pictures():
        assert Path(picture).name in page or "dark" in picture
    project.run().assert_outcomes(passed=2)
