"""``reshape``, ``movedim`` and ``float`` of the user's code, traced as the operators that they are.

Torch traces them as composite operators, and its exporter traces a program with such an operator
once more to take it apart, which doubles the time of an export (``_translate``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx._view import moved, view
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["AsViews"]


#: functions that move axes
_MOVING = (Tensor.movedim, torch.movedim, Tensor.moveaxis, torch.moveaxis)

#: methods that convert a tensor to a type
_DTYPES = {
    Tensor.float: torch.float32,
    Tensor.double: torch.float64,
    Tensor.int: torch.int32,
    Tensor.long: torch.int64,
    Tensor.bool: torch.bool,
}


class AsViews(FunctionMode):
    """While it is active, these functions call ``view``, ``permute`` and a copy of another type."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        if function in (Tensor.reshape, torch.reshape) and not kwargs:
            x, *shape = args
            sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
            return view(x, *sizes)
        if function in (Tensor.flatten, torch.flatten):
            return _flatten(*args, **kwargs)
        if function in _MOVING:
            return moved(*args, **kwargs)
        if function in _DTYPES and len(args) == 1 and not kwargs:
            return _converted(args[0], _DTYPES[function])
        if function is Tensor.to and not kwargs and [*map(type, args[1:])] == [torch.dtype]:
            return _converted(*args)
        return function(*args, **kwargs)


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % max(x.dim(), 1), end_dim % max(x.dim(), 1)
    if start >= end:
        return torch.flatten(x, start_dim, end_dim)
    return view(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


def _converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else torch.ops.aten._to_copy.default(x, dtype=dtype)
