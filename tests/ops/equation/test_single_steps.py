"""Streams whose chunks are one step: no loop."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import all_nodes
from node_forms import OMITS, compared, drive, equation, network, without

import synapse_onnx as so
from synapse_onnx import ops

SINGLE = ["Cuba", "CubaDynamics", "CubaLoihi", "Alif", "AlifLoihi", "Rf", "RfDynamics", "RfIz",
          "RfIzLoihi", "Adrf", "AdrfIz"]  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_step_needs_no_loop(name: str) -> None:
    """One step from any states, and a few in the same file, of void states and of others."""
    op = ops.get_op(name)
    count = len(equation(op).e.currents)
    for sample in op.samples():
        for void in (False, True) if name in OMITS else (False,):
            values = list(sample.args[: len(op.inputs)])
            values = without(op, sample, OMITS[name]) if void else values
            for steps in (1, 3):
                some = [*(x[..., :steps] for x in values[:count]), *values[count:]]
                compared(name, sample, some, sample.id == "graded", exact=True, streaming=True)
    function = op.function(21, streaming=True)
    choices = [
        {a.name: [n.op_type for n in all_nodes(a.g.node)] for a in node.attribute}
        for node in all_nodes(function.node)
        if node.op_type == "If"
    ]
    ways = [c for c in choices if "Unsqueeze" in c["then_branch"] and "Scan" in c["else_branch"]]
    assert any("Scan" not in way["then_branch"] for way in ways)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("decay", [1.0, 0.3])
def test_a_stream_of_one_size_loads(decay: float, steps: int) -> None:
    """All sizes are constants: what they settle in one another must not be lost."""
    net, x = network(decay, 0.5), drive(8)
    expected = net(x).detach().numpy()
    model = so.export(net, x[..., :steps], streaming=True, dynamic=False)
    stream = so.Session(model, native=False).stream(2)
    parts = [stream.run(x[..., t : t + steps].numpy()) for t in range(0, 8, steps)]
    np.testing.assert_array_equal(np.concatenate(parts, -1), expected)
