"""Cycles of several nodes: loops over time whose edges that lead back are a step late."""

from __future__ import annotations

import warnings
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_graphs import DT, STEPS, TAU, drive, lif, many, read
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers._nir.cycle import Cycle, late_edges

pytestmark = pytest.mark.usefixtures("compiled_once")

SHAPE = (2, 4, 4)
RNG = np.random.default_rng(5)
FIRST, SECOND = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 3))


def ring(bias: float = 0.0, first: Any = None, second: Any = None) -> nir.NIRGraph:
    """input -> a -> w1 -> b -> w2 -> a, and both neurons are outputs."""
    parts = {
        "input": nir.Input(np.array([4])),
        "a": first or lif(),
        "w1": nir.Linear(3 * FIRST),
        "b": second or lif(3),
        "w2": nir.Affine(SECOND, np.full(4, bias)),
        "one": nir.Output(np.array([4])),
        "two": nir.Output(np.array([3])),
    }
    edges = [("input", "a"), ("a", "w1"), ("w1", "b"), ("b", "w2"), ("w2", "a"), ("a", "one"),
             ("b", "two")]  # fmt: skip
    return nir.NIRGraph(parts, edges, type_check=False)


def neuron(v: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A step of lif(): the voltage after it, and its spikes."""
    v = v + DT / TAU * (9 * x - v)
    assert np.abs(v - 0.6).min() > 1e-6
    s = (v > 0.6).astype(float)
    return np.where(s > 0, 0, v), s


def ring_in_numpy(x: np.ndarray, bias: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.zeros((len(x), 4)), np.zeros((len(x), 3))
    late = np.full((len(x), 4), bias)
    ones, twos = [], []
    for t in range(x.shape[-1]):
        a, s = neuron(a, x[..., t] + late)
        b, z = neuron(b, s @ (3 * FIRST).T)
        late = z @ SECOND.T + bias
        ones.append(s)
        twos.append(z)
    return np.stack(ones, -1), np.stack(twos, -1)


def test_two_neurons_that_feed_each_other() -> None:
    net, x = read(ring()), drive(2, 4)
    with torch.no_grad():
        found = net(x)
    for output, expected in zip(found, ring_in_numpy(x.numpy().astype(float)), strict=True):
        np.testing.assert_array_equal(output, expected)
        assert 0.03 < expected.mean() < 0.9
    alone = read(ring(second=lif(3, level=1e6)))  # b never spikes
    with torch.no_grad():
        assert not torch.equal(alone(x)[0], found[0])
    model = so.export(net, x)
    assert "Scan" in {node.op_type for node in model.graph.node}
    assert so.verify(net, model, x).ok
    open_sizes = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert open_sizes[0]
    assert open_sizes[2]


def test_a_stream_of_a_cycle_is_its_whole() -> None:
    net, x = read(ring()), drive(2, 4)
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    parts = [stream.run(part.numpy()) for part in x.split([7, 1, 32], -1)]
    with torch.no_grad():
        for i, whole in enumerate(net(x)):
            np.testing.assert_array_equal(np.concatenate([p[i] for p in parts], -1), whole)


def test_a_bias_on_the_way_back_acts_from_the_start_and_is_said() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = read(ring(bias=0.7))
    (text,) = (str(warning.message) for warning in caught)
    assert "nodes a, w1, b, w2 are a cycle with a bias on the way back; assumed that it" in text
    x = drive(2, 4)
    expected = ring_in_numpy(x.numpy().astype(float), bias=0.7)
    with torch.no_grad():
        for output, spikes in zip(net(x), expected, strict=True):
            np.testing.assert_array_equal(output, spikes)
    assert not np.array_equal(expected[0], ring_in_numpy(x.numpy().astype(float))[0])


KERNEL = np.random.default_rng(7).normal(size=(2, 2, 3, 3))


def image_ring() -> nir.NIRGraph:
    """A neuron of images that sees its spikes through a convolution and a pool."""
    ones = np.ones(SHAPE)
    conv = nir.Conv2d(SHAPE[1:], KERNEL, 1, 1, 1, 1, np.zeros(2))
    pool = nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1]))
    parts = {
        "input": nir.Input(np.array(SHAPE)),
        "lif": nir.LIF(TAU * ones, 9 * ones, 0 * ones, 0.6 * ones),
        "conv": conv,
        "pool": pool,
        "scale": nir.Scale(0.25 * ones),
        "output": nir.Output(np.array(SHAPE)),
    }
    edges = [("input", "lif"), ("lif", "conv"), ("conv", "pool"), ("pool", "scale"),
             ("scale", "lif"), ("lif", "output")]  # fmt: skip
    return nir.NIRGraph(parts, edges, type_check=False)


def test_feedback_through_convolutions() -> None:
    net, x = read(image_ring()), drive(2, *SHAPE)
    kernel, ones = torch.from_numpy(KERNEL), torch.ones(2, 1, 3, 3, dtype=torch.float64)
    v, late = np.zeros((2, *SHAPE)), torch.zeros(2, *SHAPE, dtype=torch.float64)
    steps = []
    for t in range(STEPS):
        v, s = neuron(v, x.numpy()[..., t].astype(float) + late.numpy())
        late = nn.functional.conv2d(torch.from_numpy(s), kernel, padding=1)
        late = 0.25 * nn.functional.conv2d(late, ones, padding=1, groups=2)
        steps.append(s)
    expected = np.stack(steps, -1)
    with torch.no_grad():
        np.testing.assert_array_equal(net(x), expected)
    assert 0.03 < expected.mean() < 0.9
    model = so.export(net, x)
    assert so.verify(net, model, x).ok


def test_leaky_integrators_and_several_spikes_in_a_cycle() -> None:
    graph = ring(second=nir.LI(many(TAU, 3), many(2, 3), many(0, 3)))
    how = {"strict": False, "max_spikes": 3, "min_v_mem": -0.5, "reset": "subtract"}
    net, x = read(graph, **how), drive(2, 4)
    a, u, late, steps = np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((2, 4)), []
    for t in range(STEPS):
        a = a + DT / TAU * (9 * (x.numpy()[..., t] + late) - a)
        s = np.minimum(np.where(a >= 0.6, np.floor(a / 0.6), 0), 3)
        a = np.maximum(a - 0.6 * s, -0.5)
        w = u + DT / TAU * (2 * s @ (3 * FIRST).T - u)
        u, late = np.maximum(w, -0.5), w @ SECOND.T  # its output is not raised to the lowest
        steps.append(s)
    assert np.max(steps) > 1
    assert (w != u).any()
    with torch.no_grad():
        np.testing.assert_array_equal(net(x)[0], np.stack(steps, -1))


def test_which_edges_are_late() -> None:
    edges = [("in", "a"), ("a", "b"), ("b", "c"), ("c", "b"), ("c", "a"), ("a", "a"), ("c", "out")]
    assert late_edges({"a", "b", "c"}, edges) == {("c", "b"), ("c", "a"), ("a", "a")}
    assert late_edges({"a", "b", "c"}, edges[::-1]) == {("c", "b"), ("c", "a"), ("a", "a")}
    ladder = [("in", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "a"), ("c", "b")]
    assert late_edges({"a", "b", "c", "d"}, ladder) == {("d", "a")}


@pytest.mark.parametrize("names", [("labels", "sources"), ("nodes", "type"), ("0", "a.b")], ids=str)
def test_any_names_in_a_cycle(names: tuple[str, str]) -> None:
    plain = ring()
    other = {"a": names[0], "b": names[1]}
    graph = nir.NIRGraph(
        {other.get(key, key): node for key, node in plain.nodes.items()},
        [(other.get(a, a), other.get(b, b)) for a, b in plain.edges],
        type_check=False,
    )
    x = drive(2, 4)
    with torch.no_grad():
        for found, expected in zip(read(graph)(x), read(plain)(x), strict=True):
            assert torch.equal(found, expected)


def test_a_cycle_is_not_written_to_nir() -> None:
    with pytest.raises(so.InputError, match=r"to_nir: loop is a Cycle that cannot be written"):
        so.to_nir(read(ring()))


class Stateful(nn.Module):
    """A neuron of NIRTorch's interpreter: it takes and returns its state."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.keep = torch.from_numpy(1 - DT / np.asarray(node.tau)).float()
        self.gain = torch.from_numpy(np.asarray(node.r) * DT / node.tau).float()

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = torch.zeros_like(x) if state is None else state
        v = self.keep * v + self.gain * x
        s = (v > 0.6).float()
        return s, torch.where(s > 0, 0, v)


def test_late_edges_are_those_of_nirtorch() -> None:
    """Its interpreter runs the nodes one time step after the other."""
    nirtorch = pytest.importorskip("nirtorch", reason="nirtorch is not installed: see peers.txt")
    graph = ring()
    graph.nodes["w2"] = nir.Linear(SECOND)
    del graph.nodes["two"]
    graph.edges = [edge for edge in graph.edges if edge[1] != "two"]
    graph.nodes = {name: graph.nodes[name] for name in ("input", "a", "w1", "b", "w2", "one")}

    def linear(node: Any) -> nn.Module:
        layer = nn.Linear(*node.weight.shape[::-1], bias=False)
        layer.weight.data = torch.from_numpy(node.weight).float()
        return layer

    peer = nirtorch.nir_to_torch(graph, {nir.LIF: Stateful, nir.Linear: linear})
    net, x = read(graph), drive(1, 4)
    state, steps = None, []
    with torch.no_grad():
        for t in range(STEPS):
            y, state = peer(x[..., t], state)
            steps.append(y)
        assert torch.equal(torch.stack(steps, -1), net(x))
    assert any(isinstance(module, Cycle) for module in net.modules())
