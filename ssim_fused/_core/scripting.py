"""What ``torch.jit.script`` is told: functions and losses here have no TorchScript form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def refuse(name: str) -> NoReturn:
    """Raises the error of something that cannot be scripted."""
    raise NotImplementedError(
        f"`{name}` cannot be compiled by torch.jit.script, which PyTorch no longer develops: use torch.compile, or "
        "torch.export to deploy without Python; torch.jit.trace works, too."
    )


def not_scriptable(function: F) -> F:
    """Decorates a function so that ``torch.jit.script`` of it, or of a function that calls it, says what to use."""
    # The hook that torch.jit.script calls before it compiles something.
    function.__prepare_scriptable__ = lambda: refuse(function.__name__)  # ty: ignore[missing-attribute]
    return function
