"""Whether a tensor that the forward saved is referred to by nobody but its autograd node.

Such a tensor may be overwritten: the backward scales the stored gradient in place and returns it. The reference counts
of a tensor in that situation differ between versions of PyTorch and Python, so they are measured once, at import.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch
from torch import Tensor

# These are not public in torch. Without one of them nothing is ever donated.
_tensor_uses = getattr(Tensor, "_use_count", None)
_storage_uses = getattr(torch._C, "_storage_Use_Count", None)
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)

References = tuple[int, int, int, int]


def references_of(tensor: Tensor) -> References:
    """Reference counts of a tensor and its storage: those of Python's objects, and those of C++'s.

    The storage's Python object counts, too: whoever holds it shares the one reference that it has in C++.
    """
    storage = tensor.untyped_storage()
    return sys.getrefcount(tensor), tensor._use_count(), sys.getrefcount(storage), _storage_uses(storage._cdata)


class _Held(torch.autograd.Function):
    """Saves a tensor that nobody else refers to, and counts its references in the backward."""

    references: References | None = None

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.detach().clone())
        return x.sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (*stored,) = ctx.saved_tensors
        gradient, _Held.references = _take(stored)
        return gradient


def _take(stored: list[Tensor]) -> tuple[Tensor, References]:
    """The first saved tensor, out of the list, and its reference counts while nothing here holds it."""
    tensor = stored.pop(0)
    return tensor, references_of(tensor)


def _measure() -> References | None:
    """The reference counts of a tensor that only its node holds; None if this torch does not tell them.

    The measurement is in a thread of its own, which has none of the importing thread's modes: grad mode, inference
    mode, hooks on saved tensors, dispatch modes.
    """
    if _tensor_uses is None or _storage_uses is None:
        return None
    thread = threading.Thread(target=lambda: _Held.apply(torch.ones(1, requires_grad=True)).backward())
    try:
        thread.start()
    except RuntimeError:  # the process has no room for one more thread
        return None
    thread.join()
    return _Held.references


held_by_node_only: References | None = _measure()


def may_donate() -> bool:
    """Whether the backward that is running may overwrite what was saved: its graph is not kept."""
    return held_by_node_only is not None and not _keeps_graph()


def take(stored: list[Tensor]) -> tuple[Tensor, bool]:
    """The first saved tensor, out of the list, and whether nobody but its node and the list referred to it."""
    tensor, references = _take(stored)
    return tensor, references == held_by_node_only
