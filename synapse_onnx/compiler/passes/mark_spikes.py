"""Mark synapses whose input is 0 or 1 by construction, so that they need not test it at run time.

The neuron's output reaches the synapse through operators that only copy its elements:

    s = ai.synapse.Cuba <graded = 0> (...)      f = Flatten (s)
    y = ai.synapse.QuantizedDense <spikes = 1> (f, weight, step)
"""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.model.operators import operator_of
from synapse_onnx.ops import DOMAIN, get_op

AFTER = ("clean_up",)


def run(model: ir.Model) -> int:
    """Set ``spikes = 1`` on nodes that read spikes of 0 and 1; return how many were not yet."""
    changes = 0
    for node in model.graph:
        mark = node.attributes.get("spikes")
        if node.domain == DOMAIN and mark is not None and are_spikes(node.inputs[0]):
            node.attributes["spikes"] = ir.AttrInt64("spikes", 1)
            changes += mark.as_int() == 0
    return changes


def are_spikes(value: ir.Value | None) -> bool:
    """Whether a value is 0 or 1 wherever the graph gets its inputs from."""
    while value is not None:
        node = value.producer()
        if node is None:
            return False
        if node.domain == DOMAIN:
            graded = node.attributes.get("graded")
            first = value is node.outputs[0]
            return (
                first and get_op(node.op_type).spikes and graded is not None and not graded.as_int()
            )
        operator = operator_of(node)
        if not operator.copies:
            return False
        if operator.joins:
            return all(are_spikes(part) for part in node.inputs)
        value = node.inputs[0]
    return False
