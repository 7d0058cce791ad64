"""Values of traces by trace and step, as families hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_onnx.compiler.loops.terms import Size, Term

__all__ = ["agree", "by_size", "identity"]


def agree(one: Mapping[tuple[Size, int], Term], other: Mapping[tuple[Size, int], Term]) -> bool:
    """Whether two families have the same value wherever both have one."""
    return all(other.get(key, term) is term for key, term in one.items())


def by_size(values: Mapping[tuple[Size, int], Any]) -> dict[Size, dict[int, Any]]:
    """Return values by trace, and in each by step."""
    steps: dict[Size, dict[int, Any]] = {}
    for (size, t), value in values.items():
        steps.setdefault(size, {})[t] = value
    return steps


def identity(value: Any) -> Any:
    """Return what is equal of equal values."""
    return id(value) if isinstance(value, Term) else repr(value)
