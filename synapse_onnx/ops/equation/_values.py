"""Brings the inputs and attributes of a node to what a step computes with, before all loops."""

from __future__ import annotations

from synapse_onnx.ops._neuron import per_channel_value, per_neuron_value
from synapse_onnx.ops._writer import FLOAT, INT32, INT64, Writer
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.equation._arithmetic import Arithmetic, Narrow, Operand
from synapse_onnx.ops.equation._declaration import Parameter
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._loop import Feedback, Values

__all__ = ["narrow_values", "write_values"]


def write_values(op: Interface, w: Writer) -> Values:
    """Write parameters in the shape and the unit of the states, levels, and feedback."""
    dtype = INT64 if op.fixed else FLOAT
    a = Arithmetic(w, dtype)
    states = [a.operand(w.input(name, dtype)) for name in op.states]
    p = {parameter.name: _parameter(op, a, parameter) for parameter in op.table}
    kind = int if op.fixed else float
    return Values(
        currents=[a.operand(w.input(name, FLOAT)) for name in op.e.currents],
        states=states,
        p=p,
        c={name: a.operand(w.attribute(name, kind)) for name in op.e.constants},
        feedback=[_feedback(a, name) for name in op.e.currents] if op.weights else (),
    )


def narrow_values(op: Interface, n: Narrow, values: Values) -> Values:
    """Bring states, parameters and levels to 32 bits."""
    p = {
        parameter.name: values.p[parameter.name]
        if parameter.real
        else n.level(values.p[parameter.name])
        if parameter.level
        else n.fraction(values.p[parameter.name])
        for parameter in op.table
    }
    states = [n.cast(state, INT32) for state in values.states]
    return values._replace(p=p, states=states, c={k: n.level(v) for k, v in values.c.items()})


def _parameter(op: Interface, a: Arithmetic, parameter: Parameter) -> Operand:
    name, state = parameter.name, op.states[0]
    if parameter.level or parameter.real:
        value = a.operand(per_neuron_value(a.w, name, state))
        if not parameter.real:
            return a.take(value)
        return value * a.scale if parameter.level else value
    value = a.operand(per_channel_value(a.w, name, state, a.dtype))
    if not parameter.kept:
        return value
    one = DECAY_ONE if op.fixed else 1
    return a.op("Sub", one, value, name=f"kept_by_{name}")


def _feedback(a: Arithmetic, current: str) -> Feedback:
    """Bring a recurrent weight (C, C, 1, 1, 1) to a matrix of floats, and its scale to (C,). ::

    matrix_x = Transpose<perm = [1, 0]>(Flatten<axis = 1>(Cast<to = 1>(weight_x)))
    gain_x = Expand(Reshape(weight_scale_x, flat), width_x)
    """
    w = a.w
    # cast first: ONNX Runtime reshapes no int4, nor asks for its shape
    weight = w.op("Cast", w.input(f"weight_{current}"), to=int(FLOAT), dtype=FLOAT)
    flat = w.op("Flatten", weight, axis=1)
    matrix = w.op("Transpose", flat, perm=[1, 0], name=f"matrix_{current}")
    # a scale an output neuron: ONNX Runtime would fold a single one into the product
    # (MatMulScaleFusion), whose kernel rounds once a block of the sum
    single = w.op("Reshape", w.input(f"weight_scale_{current}", FLOAT), w.ints(-1, name="flat"))
    width = w.op("Shape", weight, start=0, end=1, name=f"width_{current}")
    gain = w.op("Expand", single, width, name=f"gain_{current}")
    return Feedback(a.operand(matrix), a.operand(gain))
