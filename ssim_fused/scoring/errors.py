"""What goes wrong while scoring: one pair's trouble, which leaves the others alone, and a wrong call."""

from __future__ import annotations


class PairError(Exception):
    """Why one pair cannot be scored; its message stands in the results, and the next pair is scored."""


class UsageError(ValueError):
    """A call that cannot be meant: options that contradict each other, or an argument that does not exist."""
