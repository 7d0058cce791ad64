"""Ops that are stated as an equation."""

from __future__ import annotations

import pytest

from synapse_onnx import ops
from synapse_onnx.ops.equation import NeuronOp

OPS = ops.all_ops()


def is_of_an_equation(op: ops.OpDef) -> bool:
    return isinstance(getattr(op.symbolic, "__self__", None), NeuronOp)


TWINS = [
    pytest.param(op.symbolic.__self__, id=name)  # type: ignore[attr-defined]
    for name, op in OPS.items()
    if is_of_an_equation(op) and op.symbolic.__self__.fixed  # type: ignore[attr-defined]
]
