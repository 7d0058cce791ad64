"""``reshape`` and ``flatten`` of the user's code, traced as the ``view`` that they are.

Torch traces them as composite operators, and its exporter traces a program with such an operator
once more to take it apart, which doubles the time of an export (``_translate``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from synapse_onnx._view import view

__all__ = ["AsViews"]


class AsViews(TorchFunctionMode):
    """While it is active, these functions call ``view``, of a copy where one is needed."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func in (Tensor.reshape, torch.reshape) and not kwargs:
            x, *shape = args
            sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
            return view(x, *sizes)
        if func in (Tensor.flatten, torch.flatten):
            return _flatten(*args, **kwargs)
        return func(*args, **kwargs)


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % max(x.dim(), 1), end_dim % max(x.dim(), 1)
    if start >= end:
        return torch.flatten(x, start_dim, end_dim)
    return view(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
