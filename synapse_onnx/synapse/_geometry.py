"""Geometry arguments: an int for both axes, or a pair (height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from synapse_onnx.errors import InputError

__all__ = ["Axes", "IntOrPair", "check_groups", "count", "geometry", "pair"]

#: an int for height and width, or (height, width)
IntOrPair = int | Sequence[int]


#: (height, width, inert value for time)
Axes = tuple[int, int, int]


def pair(name: str, value: IntOrPair, least: int) -> tuple[int, int]:
    """Return (height, width).

    Raises:
        InputError: neither an int nor two ints, or one below ``least``.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(_is_int(v) for v in values):
        raise InputError(f"{name} must be an int or a pair (height, width) of ints, got {value!r}")
    if min(values) < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}")
    return int(values[0]), int(values[1])


def geometry(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> tuple[Axes, Axes, Axes, Axes]:
    """Return kernel, stride, padding, dilation, each (height, width, inert value for time).

    A stride of None is the kernel's size.

    Raises:
        InputError: one of them is neither an int nor a pair, or too small.
    """
    kernel = pair("kernel_size", kernel_size, 1)
    return (
        (*kernel, 1),
        (*(kernel if stride is None else pair("stride", stride, 1)), 1),
        (*pair("padding", padding, 0), 0),
        (*pair("dilation", dilation, 1), 1),
    )


def count(name: str, value: int) -> int:
    """Return a positive int.

    Raises:
        InputError: not an int, or below 1.
    """
    if not _is_int(value) or value < 1:
        raise InputError(f"{name} must be a positive int, got {value!r}")
    return int(value)


def check_groups(in_features: int, out_features: int, groups: int) -> None:
    """Check the channels of a grouped convolution.

    Raises:
        InputError: a number is no positive int, or the groups do not divide the channels.
    """
    count("groups", groups)
    for name, value in (("in_features", in_features), ("out_features", out_features)):
        if count(name, value) % groups:
            raise InputError(f"{name} must be divisible by groups, got {value} and {groups}")


def _is_int(value: object) -> bool:
    """Take NumPy's integers too, but not True and False."""
    return isinstance(value, Integral) and not isinstance(value, bool)
