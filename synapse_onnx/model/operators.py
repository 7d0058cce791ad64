"""Properties of ONNX's standard operators, and the bound of exact integers in float32.

A pass, a report or a page that asks what an operator does to its values asks here. An operator
that is not listed has none of the properties.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

__all__ = ["FLOAT32_EXACT", "Operator", "operator_of"]

#: integers up to this magnitude are exact in float32, and so are their sums while they stay below
FLOAT32_EXACT = 1 << 24


class Operator(NamedTuple):
    """What a standard operator does to its values.

    Attributes:
        elementwise: an element of the output depends only on the elements at its place in the
            inputs, and on inputs of one element. So the operator commutes with a Transpose.
        copies: every element of the output is an element of the first input, or of any input
            if the operator joins; the rest (indices, sizes) only selects. So spikes stay 0 or 1.
        joins: takes any number of tensors of data.
        exact: exact inputs give the same output, to the last bit, in every runtime: it moves
            data, computes with integers, or rounds each element once as IEEE 754 prescribes. A
            float sum in no fixed order (MatMul) and a transcendental function (Exp) are not exact.
    """

    elementwise: bool
    copies: bool
    exact: bool
    joins: bool = False


def operator_of(node: Any) -> Operator:
    """Return the properties of the operator of a node of ``onnx`` or of ``onnx_ir``."""
    return _OPERATORS.get(node.op_type, _UNKNOWN) if node.domain == "" else _UNKNOWN


_UNKNOWN: Final = Operator(elementwise=False, copies=False, exact=False)

#: properties -> operators that have them. A Cast may make another value of a float, a Pad adds
#: values, a Sum adds its inputs in no fixed order.
_GROUPS: Final = {
    Operator(elementwise=True, copies=False, exact=True): (
        "Abs Add And Cast Ceil Clip Div Equal Floor Greater GreaterOrEqual Less LessOrEqual Max "
        "Min Mod Mul Neg Not Or Relu Round Sign Sub Where Xor"
    ),
    Operator(elementwise=True, copies=False, exact=False): (
        "Elu Exp HardSigmoid LeakyRelu Log Pow Reciprocal Sigmoid Softplus Sqrt Sum Tanh"
    ),
    Operator(elementwise=True, copies=True, exact=True): "Identity",
    Operator(elementwise=False, copies=True, exact=True): (
        "DepthToSpace Expand Flatten Gather GatherElements GatherND MaxPool Reshape Slice "
        "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
    ),
    Operator(elementwise=False, copies=True, exact=True, joins=True): "Concat",
    Operator(elementwise=False, copies=False, exact=True): (
        "ArgMax ArgMin CastLike Constant ConstantOfShape Pad Range ReduceMax ReduceMin "
        "ScatterElements ScatterND Shape Size TopK"
    ),
}

_OPERATORS: Final = dict(
    sorted((name, operator) for operator, names in _GROUPS.items() for name in names.split())
)
