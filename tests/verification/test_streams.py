"""verify runs a streaming model in chunks too."""

from __future__ import annotations

import onnx
import pytest
from networks import spikes
from streamed import NETWORKS, network

import synapse_onnx as so

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("compiled_once")]


@pytest.mark.parametrize("name", ["cuba", "rf", "sigma_delta", "decimated", "images"])
@pytest.mark.matrix
def test_verify_runs_the_stream_in_chunks(name: str) -> None:
    _, shape = NETWORKS[name]
    x = spikes(2, *shape, 20, rate=0.4)
    model = so.export(network(name), x, streaming=True)
    report = so.verify(network(name), model, x)
    assert report.ok, str(report)
    assert [row.name for row in report.outputs] == ["output", "output (in chunks)"]
    assert all(row.exact for row in report.outputs)


def test_verify_finds_a_state_that_is_lost() -> None:
    x = spikes(2, 12, 20, rate=0.4)
    model = so.export(network("cuba"), x, streaming=True)
    voltage = next(v for v in model.graph.output if v.name == "1.neuron.voltage.next")
    voltage.name = "lost"
    for node in model.graph.node:
        node.output[:] = ["lost" if n == "1.neuron.voltage.next" else n for n in node.output]
    # the state starts afresh with every chunk
    model.graph.node.append(
        onnx.helper.make_node("Sub", ["lost", "lost"], ["1.neuron.voltage.next"])
    )
    voltage.name = "1.neuron.voltage.next"
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("lost", onnx.TensorProto.INT64, ["N", 10])
    )
    report = so.verify(network("cuba"), model, x)
    assert not report.ok
    assert [row.ok for row in report.outputs] == [True, False]
