"""Tensors in another shape, in the operator that an export translates as it is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["view"]


def view(x: Tensor, *shape: int) -> Tensor:
    """Return ``x.reshape(shape)``: of the same memory if it is contiguous, else of a copy.

    A traced ``reshape`` or ``flatten`` is a composite operator. Torch's exporter traces the whole
    program once more to take such operators apart, which doubles the time of an export.
    """
    return (x if x.is_contiguous() else x.clone(memory_format=torch.contiguous_format)).view(shape)
