"""Tells whether only its autograd node refers to a tensor that the forward saved.

Such a tensor may be overwritten: the backward scales the stored gradient in place and returns it. The reference counts
of a tensor held only by its node differ between versions of PyTorch and Python, so they are measured once, at import.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch
from torch import Tensor

# These functions of torch are private. If a version lacks one of them, no tensor is ever donated.
_tensor_uses = getattr(Tensor, "_use_count", None)
_storage_uses = getattr(torch._C, "_storage_Use_Count", None)
_keeps_graph = getattr(getattr(torch._C, "_autograd", None), "_get_current_graph_task_keep_graph", lambda: True)

References = tuple[int, int, int, int]


def references_of(tensor: Tensor) -> References:
    """Returns the reference counts of a tensor and of its storage, each in Python and in C++.

    The Python count of the storage matters because all holders of its Python object share one reference in C++.
    """
    storage = tensor.untyped_storage()
    of_tensor = sys.getrefcount(tensor), tensor._use_count()  # ty: ignore[missing-attribute]
    return *of_tensor, sys.getrefcount(storage), _storage_uses(storage._cdata)  # ty: ignore[not-callable]


class _Held(torch.autograd.Function):
    """Records the reference counts of a tensor held only by its autograd node."""

    references: References | None = None

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.detach().clone())
        return x.sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (*stored,) = ctx.saved_tensors
        gradient, _Held.references = _take(stored)
        return gradient


def _take(stored: list[Tensor]) -> tuple[Tensor, References]:
    """Removes the first saved tensor from the list; returns it and its reference counts without the list's own."""
    tensor = stored.pop(0)
    return tensor, references_of(tensor)


def _measure() -> References | None:
    """Returns the reference counts of a tensor held only by its node, or None if this torch does not tell them.

    It measures in a separate thread, because the modes of the importing thread would change the counts: grad mode,
    inference mode, hooks on saved tensors, dispatch modes.
    """
    if _tensor_uses is None or _storage_uses is None:
        return None
    thread = threading.Thread(target=lambda: _Held.apply(torch.ones(1, requires_grad=True)).backward())
    try:
        thread.start()
    except RuntimeError:  # the process cannot start another thread
        return None
    thread.join()
    return _Held.references


held_by_node_only: References | None = _measure()


def may_donate() -> bool:
    """Returns whether the running backward may overwrite saved tensors, because its graph is not retained."""
    return held_by_node_only is not None and not _keeps_graph()


def take(stored: list[Tensor]) -> tuple[Tensor, bool]:
    """Removes the first saved tensor from the list; returns it and whether only its node referred to it."""
    tensor, references = _take(stored)
    return tensor, references == held_by_node_only
