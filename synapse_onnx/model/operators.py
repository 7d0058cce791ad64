"""Properties of ONNX's standard operators, and the bound of exact integers in float32.

A pass, a report or a page that asks what an operator does to its values asks here. An operator
without a row has none of the properties.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

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


class _Node(Protocol):
    """A node of ``onnx`` or of ``onnx_ir``."""

    @property
    def domain(self) -> str: ...
    @property
    def op_type(self) -> str: ...


def operator_of(node: _Node) -> Operator:
    """Return the properties of a node's operator."""
    return _OPERATORS.get(node.op_type, _UNKNOWN) if node.domain == "" else _UNKNOWN


_, x = False, True

_UNKNOWN: Final = Operator(_, _, _)

_OPERATORS: Final = {
    #                       elementwise  copies  exact
    "Abs":                Operator(x,      _,      x),
    "Add":                Operator(x,      _,      x),
    "And":                Operator(x,      _,      x),
    "ArgMax":             Operator(_,      _,      x),
    "ArgMin":             Operator(_,      _,      x),
    "Cast":               Operator(x,      _,      x),  # a float that becomes int8 is another value
    "CastLike":           Operator(_,      _,      x),
    "Ceil":               Operator(x,      _,      x),
    "Clip":               Operator(x,      _,      x),
    "Concat":             Operator(_,      x,      x, joins=True),
    "Constant":           Operator(_,      _,      x),
    "ConstantOfShape":    Operator(_,      _,      x),
    "DepthToSpace":       Operator(_,      x,      x),
    "Div":                Operator(x,      _,      x),
    "Elu":                Operator(x,      _,      _),
    "Equal":              Operator(x,      _,      x),
    "Exp":                Operator(x,      _,      _),
    "Expand":             Operator(_,      x,      x),
    "Flatten":            Operator(_,      x,      x),
    "Floor":              Operator(x,      _,      x),
    "Gather":             Operator(_,      x,      x),
    "GatherElements":     Operator(_,      x,      x),
    "GatherND":           Operator(_,      x,      x),
    "Greater":            Operator(x,      _,      x),
    "GreaterOrEqual":     Operator(x,      _,      x),
    "HardSigmoid":        Operator(x,      _,      _),
    "Identity":           Operator(x,      x,      x),
    "LeakyRelu":          Operator(x,      _,      _),
    "Less":               Operator(x,      _,      x),
    "LessOrEqual":        Operator(x,      _,      x),
    "Log":                Operator(x,      _,      _),
    "Max":                Operator(x,      _,      x),
    "MaxPool":            Operator(_,      _,      x),
    "Min":                Operator(x,      _,      x),
    "Mod":                Operator(x,      _,      x),
    "Mul":                Operator(x,      _,      x),
    "Neg":                Operator(x,      _,      x),
    "Not":                Operator(x,      _,      x),
    "Or":                 Operator(x,      _,      x),
    "Pad":                Operator(_,      _,      x),  # what it pads with is no element
    "Pow":                Operator(x,      _,      _),
    "Range":              Operator(_,      _,      x),
    "Reciprocal":         Operator(x,      _,      _),
    "ReduceMax":          Operator(_,      _,      x),
    "ReduceMin":          Operator(_,      _,      x),
    "Relu":               Operator(x,      _,      x),
    "Reshape":            Operator(_,      x,      x),
    "Round":              Operator(x,      _,      x),
    "ScatterElements":    Operator(_,      _,      x),
    "ScatterND":          Operator(_,      _,      x),
    "Shape":              Operator(_,      _,      x),
    "Sigmoid":            Operator(x,      _,      _),
    "Sign":               Operator(x,      _,      x),
    "Size":               Operator(_,      _,      x),
    "Slice":              Operator(_,      x,      x),
    "Softplus":           Operator(x,      _,      _),
    "SpaceToDepth":       Operator(_,      x,      x),
    "Split":              Operator(_,      x,      x),
    "Sqrt":               Operator(x,      _,      _),
    "Squeeze":            Operator(_,      x,      x),
    "Sub":                Operator(x,      _,      x),
    "Sum":                Operator(x,      _,      _),  # of several inputs, in no fixed order
    "Tanh":               Operator(x,      _,      _),
    "Tile":               Operator(_,      x,      x),
    "TopK":               Operator(_,      _,      x),
    "Transpose":          Operator(_,      x,      x),
    "Unsqueeze":          Operator(_,      x,      x),
    "Where":              Operator(x,      _,      x),
    "Xor":                Operator(x,      _,      x),
}  # fmt: skip
