"""Geometry arguments: an int for both axes, or a pair (height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from synapse_onnx.errors import InputError

__all__ = ["IntOrPair", "check_groups", "count", "geometry"]

#: an int for height and width, or (height, width)
IntOrPair = int | Sequence[int]


def _pair(name: str, value: IntOrPair, least: int) -> tuple[int, int]:
    """Return (height, width)."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(_is_int(v) for v in values):
        raise InputError(f"{name} must be an int or a pair (height, width) of ints, got {value!r}")
    if min(values) < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}")
    return int(values[0]), int(values[1])


def geometry(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> dict[str, tuple[int, int, int]]:
    """Return the four by name, each (height, width, inert value for time).

    A stride of None is the kernel's size.

    Raises:
        InputError: one of them is neither an int nor a pair of ints, or too small.
    """
    stride = kernel_size if stride is None else stride
    return {
        "kernel_size": (*_pair("kernel_size", kernel_size, 1), 1),
        "stride": (*_pair("stride", stride, 1), 1),
        "padding": (*_pair("padding", padding, 0), 0),
        "dilation": (*_pair("dilation", dilation, 1), 1),
    }


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
