"""Tensors in another shape, in operators that an export translates as they are.

A traced ``reshape`` or ``movedim`` is a composite operator. Torch's exporter traces the
whole program once more to take such operators apart, which doubles the time of an export.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["contiguous", "moved", "view"]


def contiguous(x: Tensor) -> Tensor:
    """Return ``x.contiguous()``."""
    return x if x.is_contiguous() else x.clone(memory_format=torch.contiguous_format)


def view(x: Tensor, *shape: int) -> Tensor:
    """Return ``x.reshape(shape)``: of the same memory if it is contiguous, else of a copy."""
    return contiguous(x).view(shape)


def moved(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Return ``x.movedim(source, destination)``."""
    sources, targets = (
        [axis % x.dim() for axis in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    rest = iter(axis for axis in range(x.dim()) if axis not in sources)
    places = dict(zip(targets, sources, strict=True))
    return x.permute([places[i] if i in places else next(rest) for i in range(x.dim())])
