"""How a torch op becomes a time-major node: shared by the symbolic functions of all ops."""

from __future__ import annotations

import functools
from typing import Any

from onnxscript import opset18 as standard  # Transpose is the same from 13 to 22
from onnxscript.values import Op, Opset

from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.ops._registry import DOMAIN_VERSION, get_op


@functools.cache
def _opaque(name: str) -> Op:
    return Op(Opset(DOMAIN, DOMAIN_VERSION), name, get_op(name).schema())


def node(name: str, *inputs: Any, **attributes: Any) -> Any:
    """Emit one opaque node of our domain; returns its output, or a tuple of them."""
    return _opaque(name)(*inputs, **attributes)


def time_first(x: Any) -> Any:
    """(N, C[, H, W], T) -> (T, N, C[, H, W])."""
    rank = len(x.shape)
    return standard.Transpose(x, perm=[rank - 1, *range(rank - 1)])


def time_last(x: Any, rank: int) -> Any:
    """(T, N, C[, H, W]) -> (N, C[, H, W], T); the rank is given, for the value has no shape yet."""
    return standard.Transpose(x, perm=[*range(1, rank), 0])
