"""Formatting that several rooms share: names, shapes, quantisation scales and ranges as text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

__all__ = ["scale_text", "shape_text", "snake_case", "span_text", "weights_text"]


def snake_case(name: str) -> str:
    """Write a CamelCase name in snake_case: ``CubaFloat`` is ``cuba_float``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Write a shape, as in (N, 2, 8, 8, T); an open axis without a name is "?"."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def weights_text(shape: Sequence[int]) -> str:
    """Write the shape of weights, as in 5x64."""
    return "x".join(map(str, shape))


def scale_text(scales: Sequence[Sequence[float]]) -> str:
    """Write one quantisation scale as a number or fraction, several as a range."""
    values = sorted({float(value) for part in scales for value in part})
    if len(values) > 1:
        return f"{values[0]:.3g}..{values[-1]:.3g}"
    exact = Fraction(values[0])
    return str(exact) if exact.denominator <= 1 << 15 else f"{values[0]:.4g}"


def span_text(value: Any) -> str:
    """Write one value as a number, several as a range, none as an empty text."""
    if value is None or value == []:
        return ""
    values = sorted(value) if isinstance(value, list) else [value]
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:.3g}..{values[-1]:.3g}"
