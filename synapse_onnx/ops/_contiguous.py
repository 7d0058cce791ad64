"""Results of ops are contiguous, on numbers and where an export traces shapes alone.

Whether ``y.flatten()`` or ``y.contiguous()`` copies depends on strides. If it copies on numbers and
does not in a trace, ``y.flatten().add_(1)`` changes ``y`` in the file, and not in torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["blank_like", "contiguous_results"]


def contiguous_results(compute: Callable[P, R]) -> Callable[P, R]:
    """Let a function return contiguous tensors: one, or a tuple or list of them."""

    @functools.wraps(compute)
    def contiguous(*args: P.args, **kwargs: P.kwargs) -> R:
        result: Any = compute(*args, **kwargs)
        if isinstance(result, Tensor):
            return result.contiguous()  # type: ignore[return-value]
        return type(result)(y.contiguous() for y in result)  # type: ignore[no-any-return]

    return contiguous


def blank_like(x: Tensor) -> Tensor:
    """Return a contiguous tensor of the shape and type of another one, for fake kernels."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
