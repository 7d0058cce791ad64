"""Names of a model's inputs, outputs and states."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from synapse_onnx.compiler._streaming import State

__all__ = ["name_inputs_and_outputs"]


def name_inputs_and_outputs(graph: ir.Graph, states: Sequence[State]) -> None:
    """Keep the names of the inputs, those of forward()'s arguments; name outputs and states.

    One output is ``output``, several are ``output_0``, ``output_1``. The states come last, among
    the inputs and among the outputs: ``fc.neuron.voltage`` and ``fc.neuron.voltage.next``.
    """
    inputs = [value.name or "" for value in graph.inputs]
    inputs[len(inputs) - len(states) :] = [state.name for state in states]
    stem = "output"
    taken = {*inputs, *graph.initializers}
    while any(name.startswith(stem) for name in taken):
        stem += "_"
    _separate(graph, stem)
    outputs = graph.outputs
    last = len(outputs) - len(states)
    for i, value in enumerate(outputs[:last]):
        value.name = stem if last == 1 else f"{stem}_{i}"
    for value, state in zip(outputs[last:], states, strict=True):
        value.name = state.output
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name


def _separate(graph: ir.Graph, stem: str) -> None:
    """Copy an output that is an input as well, or another output: each needs its own name."""
    seen = {id(value) for value in graph.inputs}
    for i, value in enumerate(list(graph.outputs)):
        if id(value) in seen:
            identity = ir.node("Identity", [value], name=f"{stem}_{i}/Identity")
            graph.append(identity)
            output = identity.outputs[0]
            output.shape, output.type = value.shape, value.type
            graph.outputs[i] = output
        seen.add(id(value))
