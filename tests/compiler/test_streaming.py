"""Streaming exports: states of layers are inputs and outputs of the graph."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from networks import spikes
from streamed import CUBA, NETWORKS, network, whole
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler._dynamic import steps_per_bin
from synapse_onnx.compiler._streaming import Streamed
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "decimated"])
def test_torch_in_chunks_gives_the_whole(name: str) -> None:
    """The same states, kept by the layers themselves."""
    _, shape = NETWORKS[name]
    x = spikes(2, *shape, 23, rate=0.4)
    module = copy.deepcopy(network(name))
    for layer in module.modules():
        if hasattr(layer, "persistent_state"):
            layer.persistent_state = True
    with torch.no_grad():
        parts = [module(chunk).numpy() for chunk in x.split([1, 9, 2, 11], dim=-1)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole(name, x))


def test_states_are_named_inputs_and_outputs() -> None:
    model = so.export(network("alif"), spikes(2, 12, 9), streaming=True)
    metadata = Metadata.read(model)
    assert metadata.streaming
    names = [state["input"] for state in metadata.states]
    assert names[:6] == [
        "0.neuron.current", "0.neuron.voltage", "0.neuron.threshold", "0.neuron.refractory",
        "0.step.line", "0.delay.line",
    ]  # fmt: skip
    assert "1.neuron.spikes" in names
    assert metadata.exact == ("output",)  # states are no outputs
    assert metadata.chunk == 1
    current, line = metadata.states[0], metadata.states[4]
    assert (current["dtype"], current["shape"]) == ("int64", [None, 10])
    assert (line["dtype"], line["shape"]) == ("float32", [None, 10, 1])
    assert [value.name for value in model.graph.input] == ["input", *names]
    assert [value.name for value in model.graph.output] == [
        "output", *(f"{name}.next" for name in names)
    ]  # fmt: skip
    starts = {state["input"]: state["start"] for state in metadata.states}
    threshold = so.neuron.alif.Neuron(**so.neuron.alif.Neuron.example).threshold
    assert starts["0.neuron.threshold"] == threshold * 4096
    assert starts["0.neuron.current"] == 0
    shapes = {v.name: v.type.tensor_type.shape for v in model.graph.input}
    assert [d.dim_param or d.dim_value for d in shapes["0.neuron.current"].dim] == ["N", 10]
    assert [d.dim_param or d.dim_value for d in shapes["input"].dim] == ["N", 12, "T"]


def test_the_streaming_graph_does_not_grow_with_time_either() -> None:
    sizes = {
        len(so.export(network("cuba"), spikes(1, 12, t), streaming=True).SerializeToString())
        for t in (3, 200)
    }
    assert len(sizes) == 1


class Watching(nn.Module):
    """Code that keeps the longest sequence that it was run on."""

    longest = 0

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            Watching.longest = max(Watching.longest, x.shape[-1])
        return self.neuron(x)


def test_a_long_example_costs_no_more_than_a_short_one() -> None:
    Watching.longest = 0
    long = so.export(Watching(), spikes(1, 3, 2000), streaming=True)
    assert Watching.longest == 64
    assert long == so.export(Watching(), spikes(1, 3, 20), streaming=True)


def test_the_states_of_a_network_and_what_a_look_at_them_leaves() -> None:
    module = so.freeze(network("alif"))
    streamed = Streamed(module, [spikes(2, 12, 9)])
    assert streamed.chunk == 1
    layers = [layer for layer in module.modules() if getattr(layer, "state_starts", None)]
    assert len({id(state.layer) for state in streamed.states}) == len(layers)
    for layer in layers:
        assert not layer.persistent_state
        assert not layer._forward_pre_hooks
        assert layer.carried is None
    for state in streamed.states:
        assert state.output == f"{state.name}.next"
        assert state.example.shape[0] == 2
        assert (state.example == state.start).all()
        assert getattr(state.layer, f"{state.key}_state").dim() == 1, "nothing is kept"
    threshold = next(state for state in streamed.states if state.key == "threshold")
    assert threshold.start > 0
    assert steps_per_bin(so.freeze(network("decimated"))) == 8


def test_a_network_with_its_states_as_arguments() -> None:
    module, x = so.freeze(network("cuba")), spikes(2, 12, 20, rate=0.4)
    streamed = Streamed(module, [x])
    whole = module(x)
    states = [state.example for state in streamed.states]
    parts = []
    with streamed.traced():
        names = list(inspect.signature(module.forward).parameters)
        assert names == ["input", *(f"carried_state_{i}" for i in range(len(states)))]
        for chunk in x.split([7, 13], dim=-1):
            y, *states = module(chunk, *states)
            parts.append(y)
    assert torch.equal(torch.cat(parts, -1), whole)
    assert torch.equal(module(x), whole)


def test_a_stream_of_fixed_chunks_has_whole_bins() -> None:
    binned = so.block.cuba.TimeDecimation(4)
    with pytest.raises(so.ShapeError, match=r"chunks of 9 steps.*no multiple of 4.*dynamic=True"):
        so.export(binned, spikes(2, 12, 9), streaming=True, dynamic=False)
    so.export(binned, spikes(2, 12, 9), dynamic=False)
    x = spikes(2, 12, 8)
    stream = so.Session(so.export(binned, x, streaming=True, dynamic=False)).stream(2)
    np.testing.assert_array_equal(stream.run(x.numpy()), binned(x).numpy())
