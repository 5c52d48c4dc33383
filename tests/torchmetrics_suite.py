"""Runs torchmetrics' own tests of SSIM and MS-SSIM on our metrics: a plugin for its test suite.

It needs a checkout of torchmetrics 1.9.0 and the packages that its tests import (pytorch-msssim, scikit-image). From
this repository:

    T=CHECKOUT/tests; USE_PYTEST_POOL=1 PYTHONPATH=.:tests:$T python -m pytest --rootdir $T -p torchmetrics_suite \
        $T/unittests/image/test_ssim.py $T/unittests/image/test_ms_ssim.py

The plugin replaces the classes and functions before the tests import them. The two processes of the tests' pool find
the classes by name. `test_ssim_invalid_inputs` is left out, because it compares the wording of torchmetrics' messages;
test_errors.py compares the exception types.
"""

from __future__ import annotations

import pytest
import torchmetrics.functional
import torchmetrics.functional.image
import torchmetrics.image

from ssim_fused import functional, metrics

FUNCTIONS = ("structural_similarity_index_measure", "multiscale_structural_similarity_index_measure")
CLASSES = ("StructuralSimilarityIndexMeasure", "MultiScaleStructuralSimilarityIndexMeasure")

for module in (
    torchmetrics,
    torchmetrics.functional,
    torchmetrics.functional.image,
    torchmetrics.functional.image.ssim,
):
    for name in FUNCTIONS:
        if hasattr(module, name):
            setattr(module, name, getattr(functional, name))
for module in (torchmetrics, torchmetrics.image, torchmetrics.image.ssim):
    for name in CLASSES:
        if hasattr(module, name):
            setattr(module, name, getattr(metrics, name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if not item.name.startswith("test_ssim_invalid_inputs")]
    config.hook.pytest_deselected(items=[item for item in items if item not in ours])
    items[:] = ours
