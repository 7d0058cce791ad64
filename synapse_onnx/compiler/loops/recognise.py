"""Neurons are recognised in loops, and become neurons of this package.

A loop and the elementwise operators after it are evaluated as polynomials. If these are those of a
neuron of this package, whatever its reset, and nothing but what the neuron gives is read, the
neuron takes the place of the loop: it has a native kernel, a name in reports, and states with
names. :mod:`.neurons` has a file for each.

The match holds over the reals. The neuron may sum in another order than the network, so that a
value differs by a rounding.
"""

from __future__ import annotations

from synapse_onnx.compiler.loops import neurons
from synapse_onnx.compiler.loops.form import Family, Form, Layer, Leaf, parts_of
from synapse_onnx.compiler.loops.groups import grouped
from synapse_onnx.compiler.loops.step import Step, UnknownNeuronError
from synapse_onnx.compiler.loops.terms import PARAMETER
from synapse_onnx.neuron import base

__all__ = ["recognise"]


def recognise(form: Form) -> dict[str, base.Neuron]:
    """Put neurons in the place of a form's loops, where they are known.

    Returns:
        Path -> neuron, each at the path of the module that it stands for.
    """
    layers: dict[str, base.Neuron] = {}
    groups = grouped(form)
    for group in dict.fromkeys(groups.values()):
        if not group.recurrent:
            continue
        path = form.path_of(group.families) or "neuron"
        try:
            found = neurons.find(Step(form, group, groups))
        except UnknownNeuronError:
            continue
        if found is None:
            continue
        name, number = path, 1
        while name in layers:
            number += 1
            name = f"{path}_{number}"
        layers[name] = found.neuron
        before = [(family, family.node) for family in found.outputs]
        for family in found.outputs:
            family.node = Layer(name, found.slot)
        if any(now.recurrent for family, now in grouped(form).items() if family in group.families):
            for family, node in before:  # something else still follows from the steps before
                family.node = node
            del layers[name]
    return _beside_parameters(form, layers)


def _beside_parameters(form: Form, layers: dict[str, base.Neuron]) -> dict[str, base.Neuron]:
    """Give a neuron another path where parameters of its module are read elsewhere."""
    values = list(parts_of(form.outputs))
    read = [str(v.term.args[0]) for v in values if isinstance(v, Leaf) and v.term.op == PARAMETER]
    moved = {
        path: f"{path}.neuron" for path in layers if any(r.startswith(f"{path}.") for r in read)
    }
    for value in values:
        if isinstance(value, Family) and isinstance(value.node, Layer):
            value.node.path = moved.get(value.node.path, value.node.path)
    return {moved.get(path, path): neuron for path, neuron in layers.items()}
