"""Ops: each file declares torch ops of namespace ``synapse`` with their ONNX twins."""

from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.ops._equation import REGIMES, Equation, Parameter, State, register_equation
from synapse_onnx.ops._registry import (
    DOMAIN_VERSION,
    OpDef,
    Sample,
    all_ops,
    get_op,
    iter_used,
    register,
)

__all__ = [
    "DOMAIN",
    "DOMAIN_VERSION",
    "REGIMES",
    "Equation",
    "OpDef",
    "Parameter",
    "Sample",
    "State",
    "all_ops",
    "get_op",
    "iter_used",
    "register",
    "register_equation",
]
