"""Ops: each file declares torch ops of namespace ``synapse`` with their ONNX twins."""

from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.ops._contiguous import blank_like, contiguous_results
from synapse_onnx.ops._recurrence import (
    Example,
    LoopRun,
    Recurrence,
    loop_of,
    loops_seen,
    recurrence,
)
from synapse_onnx.ops._registry import (
    DOMAIN_VERSION,
    TORCH_NAMESPACE,
    OpDef,
    Sample,
    add_package,
    all_ops,
    get_op,
    iter_used,
    register,
)
from synapse_onnx.ops._writer import Writer
from synapse_onnx.ops.equation import REGIMES, Equation, Parameter, State, register_equation

__all__ = [
    "DOMAIN",
    "DOMAIN_VERSION",
    "REGIMES",
    "TORCH_NAMESPACE",
    "Equation",
    "Example",
    "LoopRun",
    "OpDef",
    "Parameter",
    "Recurrence",
    "Sample",
    "State",
    "Writer",
    "add_package",
    "all_ops",
    "blank_like",
    "contiguous_results",
    "get_op",
    "iter_used",
    "loop_of",
    "loops_seen",
    "recurrence",
    "register",
    "register_equation",
]
