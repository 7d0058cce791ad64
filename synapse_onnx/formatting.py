"""Shapes, scales and ranges as text, for tables and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

__all__ = ["scale_text", "shape_text", "span_text", "weights_text"]


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Write a shape as Python does: the names of open axes without quotes, "?" for one without."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def weights_text(shape: Sequence[int]) -> str:
    """Write the shape of weights."""
    return "x".join(map(str, shape))


def scale_text(scales: Sequence[Sequence[float]]) -> str:
    """Write one quantisation scale as a number, several as a range."""
    values = sorted({float(value) for part in scales for value in part})
    if len(values) > 1:
        return f"{values[0]:.3g}..{values[-1]:.3g}"
    exact = Fraction(values[0])
    return str(exact) if exact.denominator <= 1 << 15 else f"{values[0]:.4g}"


def span_text(value: Any) -> str:
    """Write one value as a number, several as a range; nothing where there is none."""
    if value is None or value == []:
        return ""
    values = sorted(value) if isinstance(value, list) else [value]
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:.3g}..{values[-1]:.3g}"
