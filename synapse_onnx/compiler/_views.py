"""``reshape`` and ``flatten`` of the user's code, traced as the ``view`` that they are.

Torch traces them as composite operators, and its exporter traces a program with such an operator
once more to take it apart, which doubles the time of an export (``_translate``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx._view import view
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["AsViews"]


class AsViews(FunctionMode):
    """While it is active, these functions call ``view``, of a copy where one is needed."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        if function in (Tensor.reshape, torch.reshape) and not kwargs:
            x, *shape = args
            sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
            return view(x, *sizes)
        if function in (Tensor.flatten, torch.flatten):
            return _flatten(*args, **kwargs)
        return function(*args, **kwargs)


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % max(x.dim(), 1), end_dim % max(x.dim(), 1)
    if start >= end:
        return torch.flatten(x, start_dim, end_dim)
    return view(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
