"""Readouts that keep all: sums instead of loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from graphs import all_nodes
from node_forms import drive, plain, said
from onnx import helper, numpy_helper

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.ops.arithmetic import fixed

pytestmark = pytest.mark.usefixtures("compiled_once")


def readout(regime: str, current: float, voltage: float) -> Any:
    """A CUBA neuron that never spikes, with some fractions lost every step."""
    neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.5, regime=regime, persistent_state=True).eval()
    neuron.as_readout()
    neuron.current_decay.data = torch.tensor([4096 * current])
    neuron.voltage_decay.data = torch.tensor([4096 * voltage])
    return neuron


def sums(nodes: Iterable[onnx.NodeProto], branch: str = "") -> Iterator[tuple[str, Any]]:
    """Every CumSum, with the name of the branch that it is in."""
    for node in nodes:
        if node.op_type == "CumSum":
            yield branch, node
        for attribute in node.attribute:
            yield from sums(attribute.g.node, attribute.g.name)


def dynamics(model: onnx.ModelProto) -> onnx.FunctionProto:
    (function,) = (f for f in model.functions if f.name.startswith("CubaDynamics"))
    return function


def reversed_sums(model: onnx.ModelProto, narrow: bool) -> bytes:
    """The file with the sums of 32 or 64 bits taken from the end of time."""
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    for branch, node in sums(dynamics(copied).node):
        if (branch == "narrow") == narrow:
            node.attribute.append(helper.make_attribute("reverse", 1))
    return copied.SerializeToString()


#: fractions lost of current and voltage -> states without a loop, states of the loop that is left
SUMS = {
    (1.0, 0.0): (["voltage"], set()),
    (0.0, 0.0): (["current", "voltage"], set()),
    (0.0, 0.25): (["current"], {"voltage"}),
    (0.0, 1.0): (["current"], set()),
    (0.25, 0.0): ([], {"current", "voltage"}),  # a sum of what a loop gives stays in the loop
}


@pytest.mark.parametrize(
    ("regime", "lost"), [*(("slayer", lost) for lost in SUMS), ("loihi", (1.0, 0.0))]
)
def test_a_readout_that_keeps_all_is_a_sum(regime: str, lost: tuple[float, float]) -> None:
    """In the graph and in numbers: 32 bits, 64, and beyond what products with 4096 hold."""
    neuron = readout(regime, *lost)
    x = torch.randint(-64, 65, (2, 3, 12), generator=torch.Generator().manual_seed(6)) / 64
    model = so.export(neuron, x, streaming=True)
    parts = dict(zip(("current", "voltage"), lost, strict=True))
    left_out = [f"no_{name}" for name, part in parts.items() if part == 1] + ["never_threshold"]
    left_out += [f"sum_of_{name}" for name, part in parts.items() if part == 0]
    prefix = "_".join([*sorted(left_out), "narrow_step"])
    loops = {
        a.g.name: {plain(i.name).removesuffix("_before") for i in a.g.input}
        for node in all_nodes(dynamics(model).node)
        if node.op_type == "Scan"
        for a in node.attribute
        if a.name == "body"
    }
    summed, left = SUMS[lost]
    assert {"narrow_step", "wide_step"} <= loops.keys()  # the body of all
    assert (prefix in loops) == bool(left)
    assert loops.get(prefix, set()) & {"current", "voltage"} == left
    branches = [branch for branch, _ in sums(dynamics(model).node)]
    assert branches.count("narrow") == len(summed)

    op = neuron.equation.op("dynamics", regime)
    decays = neuron.current_decay.data, neuron.voltage_decay.data
    sessions = [
        ort.InferenceSession(data)
        for data in (
            model.SerializeToString(), reversed_sums(model, True), reversed_sums(model, False)
        )
    ]  # fmt: skip
    bias = (torch.tensor([0.0]),) if regime == "loihi" else ()
    names = [info.name for info in sessions[0].get_inputs()]
    taken = []
    for size, start in ((1.0, 5), (2.0**13 + 1, 7), (1.0, (1 << 52) + 9)):
        if regime == "loihi" and start > 1 << 24:
            continue  # no state is beyond 24 bits
        state = torch.full((2, 3), start)
        level = fixed.NO_THRESHOLD
        expected = op(x * size, *decays, *bias, state, state + 1, neuron.s_scale, level)[1:]
        values = [(x * size).numpy(), state.numpy(), (state + 1).numpy()]
        found = [session.run(None, dict(zip(names, values, strict=True))) for session in sessions]
        for got, want in zip(found[0], expected, strict=True):
            np.testing.assert_array_equal(got, want.numpy())
        taken.append([not np.array_equal(found[0][0], other[0]) for other in found[1:]])
    exact = bool(summed)
    wide = [False, exact and regime == "slayer"]  # beyond 24 bits a sum of Loihi's wraps round
    assert taken == [[exact, False], wide, [False, False]][: len(taken)]


def test_a_file_says_what_it_sums_up_and_streams_it() -> None:
    """A readout behind a layer, in chunks, and with another decay than at export."""
    torch.manual_seed(3)
    block = so.block.cuba.Affine(
        {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0}, 6, 4,
        pre_hook_fx=so.quantize.q8,
    ).eval()  # fmt: skip
    x = drive(20)
    model = so.export(block, x, streaming=True)
    (text,) = said(model)
    assert "keeps no current" in text
    assert "sums voltage up, without a loop" in text
    expected = block(x).detach().numpy()
    assert expected.any()
    for native in (False, None):
        stream = so.Session(model, native=native).stream(2)
        parts = [stream.run(x[..., a:b].numpy()) for a, b in ((0, 1), (1, 2), (2, 9), (9, 20))]
        np.testing.assert_array_equal(np.concatenate(parts, -1), expected)
    assert so.verify(block, model, x).ok
    (decay,) = (i for i in model.graph.initializer if i.name.endswith("voltage_decay"))
    decay.CopyFrom(numpy_helper.from_array(np.array([1000.0], np.float32), decay.name))
    block.neuron.voltage_decay.data = torch.tensor([1000.0])
    other = block(x).detach().numpy()
    assert not np.array_equal(other, expected)
    np.testing.assert_array_equal(so.Session(model, native=False).run(x.numpy()), other)


def test_a_threshold_that_can_be_reached_is_no_readout() -> None:
    """Traces of a neuron that spikes are reset."""
    op = ops.get_op("CubaDynamics")
    decays = {
        name: numpy_helper.from_array(np.array([0.0], np.float32))
        for name in ("current_decay", "voltage_decay")
    }
    sums = {"sum_of_current", "sum_of_voltage"}
    assert op.omits is not None
    assert op.omits({"threshold": 1 << 51}, decays) == {"never_threshold", *sums}
    assert op.omits({"threshold": (1 << 51) - 1}, decays) == frozenset()
    spikes = ops.get_op("Cuba")
    assert spikes.omits is not None
    assert spikes.omits({"threshold": 1 << 51, "graded": 0}, decays) == {"graded"}
