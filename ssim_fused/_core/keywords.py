"""Explains wrong arguments of a constructor that takes keywords only, in the name of the class that was called."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")


def keywords_only(initialize: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Decorates the ``__init__`` of a base class whose subclasses pass their other keywords on to it.

    Positional and unknown arguments raise a TypeError that names the class of the object and, for a misspelt keyword,
    the nearest one among those of the class and its bases.
    """
    own = frozenset(inspect.signature(initialize).parameters)

    @functools.wraps(initialize)
    def checked(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        name = type(self).__name__
        if len(args) > 0:
            raise TypeError(f"{name}() takes keywords only, got {args[0]!r}: pass for instance `data_range=...`.")
        for unknown in kwargs.keys() - own:
            near = difflib.get_close_matches(unknown, _keywords_of(type(self), checked), 1)
            meant = f"; did you mean `{near[0]}`?" if near else "."
            raise TypeError(f"{name}() got an unexpected keyword argument `{unknown}`{meant}")
        initialize(self, *args, **kwargs)

    return checked


def _keywords_of(kind: type, last: Callable[..., None]) -> list[str]:
    """Returns the names of all arguments of a class, up to the base class whose ``__init__`` is ``last``."""
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    names: dict[str, None] = {}
    for base in kind.__mro__:
        initialize = vars(base).get("__init__")
        if initialize is not None:
            names |= {p.name: None for p in inspect.signature(initialize).parameters.values() if p.kind in kinds}
        if initialize is last:
            break
    return [name for name in names if name != "self"]
