"""The numbers that an equation's step computes with, and the rules of each.

Every class here has the methods that a step calls (``scaled``, ``where``, ``reset`` and so on, see
:meth:`synapse_onnx.ops.Equation.step`), on tensors; :mod:`synapse_onnx.ops.equation` has the same
on ONNX values.

=============================  =====================================================================
``Float``                      float tensors; autograd differentiates them as they are
``Fixed``, ``Loihi``           int64 tensors in units of 1 / scale, in 64 bits and in 24
``Normed``                     those of ``Fixed``, with a norm in float32 between two states
``Dual``, ``LoihiDual``, ...   integers beside the real numbers that they stand for, with a gradient
``ErrorBound``, ...            integers beside a bound of how many units each may be off
=============================  =====================================================================
"""

from synapse_onnx.ops.arithmetic._error_bounds import BoundedInteger, ErrorBound, LoihiErrorBound
from synapse_onnx.ops.arithmetic._gradients import Dual, LoihiDual, NormedDual, Pair
from synapse_onnx.ops.arithmetic._tensors import Fixed, Float, Loihi, Normed

__all__ = [
    "BoundedInteger",
    "Dual",
    "ErrorBound",
    "Fixed",
    "Float",
    "Loihi",
    "LoihiDual",
    "LoihiErrorBound",
    "Normed",
    "NormedDual",
    "Pair",
]
