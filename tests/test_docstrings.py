"""What is public has a docstring that names every argument and whose example runs; the site's API pages list it."""

from __future__ import annotations

import csv
import doctest
import importlib
import inspect
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PACKAGES = ("pytorch_msssim", "fused_ssim", "piq", "kornia", "monai", "skimage", "matlab", "ffmpeg")
MODULES = ["ssim_fused", "ssim_fused.losses", "ssim_fused.metrics", "ssim_fused.scoring", "ssim_fused.testing"]
MODULES += [f"ssim_fused.compat.{package}" for package in PACKAGES]
# The modules of extras that a module cannot be imported without.
NEEDED = {
    "ssim_fused.metrics": ["torchmetrics"],
    "ssim_fused.scoring": ["av", "PIL"],
    "ssim_fused.compat.skimage": ["numpy"],
}
API = "\n".join((Path(__file__).parent.parent / "docs" / name).read_text() for name in ("api.md", "api_compat.md"))


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    for needed in NEEDED.get(request.param, []):
        pytest.importorskip(needed)
    return importlib.import_module(request.param)


def public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a module exports, except exceptions."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    values = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if inspect.isfunction(value) or (inspect.isclass(value) and not issubclass(value, Exception))
    }


def test_the_examples_run(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if module.__name__ == "ssim_fused.scoring":
        write_pictures()
    torch.manual_seed(0)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    members = public(module)
    assert members
    for name, value in members.items():
        tests = [test for test in finder.find(value, name) if test.examples]
        assert len(tests) == 1, f"{module.__name__}.{name} has no example"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `fitting_betas` warns that scores of other levels differ
            result = runner.run(tests[0])
        assert result.failed == 0, f"the example of {module.__name__}.{name} fails"


def write_pictures() -> None:
    """Writes the files that the examples of scoring name."""
    from PIL import Image

    for folder, shade in (("clean", 200), ("restored", 190)):
        Path(folder).mkdir()
        for name in ("cat", "dog"):
            Image.effect_noise((48, 40), 30).convert("RGB").point(lambda v, shade=shade: min(v, shade)).save(
                f"{folder}/{name}.png"
            )
    with open("pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("reference", "distorted"), ("clean/cat.png", "restored/cat.png")])


def test_every_argument_is_described(module: ModuleType) -> None:
    """In the docstring itself, or in one that it references with a role, such as ``:func:`ssim```."""
    for name, value in public(module).items():
        documentation = described(module, value)
        for parameter in inspect.signature(value).parameters:
            pattern = rf"^\s*\*{{0,2}}{parameter}: |`{parameter}`"
            assert re.search(pattern, documentation, re.MULTILINE), f"{module.__name__}.{name}: {parameter}"


def described(module: ModuleType, value: Any) -> str:
    """A docstring together with those that it references."""
    own = inspect.getdoc(value) or ""
    texts = [own]
    for name in re.findall(r":(?:func|class):`~?(?:[\w.]+\.)?(\w+)`", own):
        other = getattr(module, name, None)
        if other is not None and other is not value:
            texts.append(described(module, other))
    return "\n".join(texts)


def test_the_site_lists_it(module: ModuleType) -> None:
    whole = re.search(rf"automodule:: {module.__name__}\n *:members:", API)
    for name in public(module):
        if not whole:
            assert re.search(rf"(autofunction|autoclass|function):: (ssim_fused\.losses\.)?{name}\b", API), name
