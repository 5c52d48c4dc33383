"""Refuses ``torch.jit.script`` with a message that names the alternatives: the package has no TorchScript form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def refuse(name: str) -> NoReturn:
    """Raises the error for a function or module called ``name``, which cannot be scripted."""
    raise NotImplementedError(
        f"`{name}` cannot be compiled by torch.jit.script, which PyTorch no longer develops: use torch.compile, or "
        "torch.export to deploy without Python; torch.jit.trace also works."
    )


def not_scriptable(function: F) -> F:
    """Decorates a function so that ``torch.jit.script`` of it, or of a function that calls it, is refused."""
    # torch.jit.script calls this hook before it compiles a function.
    function.__prepare_scriptable__ = lambda: refuse(function.__name__)  # ty: ignore[missing-attribute]
    return function
