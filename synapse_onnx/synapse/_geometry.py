"""Geometry arguments: an int for both axes, or a pair (height, width)."""

from __future__ import annotations

from collections.abc import Sequence

from synapse_onnx.errors import InputError

#: an int for height and width, or (height, width)
IntOrPair = int | Sequence[int]


def pair(name: str, value: IntOrPair, least: int) -> tuple[int, int]:
    """Return (height, width).

    Raises:
        InputError: neither an int nor two ints, or one below ``least``.
    """
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise InputError(f"{name} must be an int or a pair (height, width) of ints, got {value!r}")
    if min(values) < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}")
    return values[0], values[1]


def count(name: str, value: int) -> int:
    """Return a positive int.

    Raises:
        InputError: not an int, or below 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a positive int, got {value!r}")
    return value
