"""NIR graphs: branches, cycles, names, streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_graphs import (
    BIAS,
    DT,
    IMAGE,
    STEPS,
    TAU,
    WEIGHT,
    both,
    conv2d,
    drive,
    lif,
    line,
    many,
    read,
    recurrent,
)

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_branches_add_up_and_there_may_be_several_ends(tmp_path: Path) -> None:
    graph = nir.NIRGraph(
        {
            "left": nir.Input(np.array([4])),
            "right": nir.Input(np.array([4])),
            "w": nir.Linear(WEIGHT),
            "v": nir.Linear(WEIGHT * 2),
            "lif": lif(3),
            "skip": nir.Linear(np.eye(3)),
            "spikes": nir.Output(np.array([3])),
            "sum": nir.Output(np.array([3])),
        },
        [("left", "w"), ("right", "v"), ("w", "lif"), ("v", "lif"), ("lif", "spikes"),
         ("lif", "skip"), ("skip", "sum"), ("w", "sum")],
        type_check=False,
    )  # fmt: skip
    x, y = drive(2, 4), drive(2, 4, seed=1)
    net = read(graph)
    weight = torch.from_numpy(WEIGHT).float()
    first, second = (torch.einsum("oi,nit->not", w, z) for w, z in ((weight, x), (2 * weight, y)))
    with torch.no_grad():
        spikes, total = net(x, y)
        alone = read(line(lif(3), shape=(3,)))(first + second)
    assert torch.equal(spikes, alone)
    np.testing.assert_allclose(total, spikes + first, rtol=1e-5, atol=1e-5)
    model = so.export(net, [x, y])
    assert [value.name for value in model.graph.input] == ["left", "right"]
    assert so.verify(net, model, [x, y]).ok


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("bias", [None, np.array([0.1, 0.0, -0.2, 0.3])])
def test_a_cycle_through_a_neuron_is_feedback(bias: Any, nested: bool, tmp_path: Path) -> None:
    weight = np.random.default_rng(3).normal(size=(4, 4))
    x = drive(2, 4)
    output = both(recurrent(weight, bias, nested=nested), x, tmp_path)
    v, s = np.zeros((2, 4)), np.zeros((2, 4))
    steps = []
    for t in range(STEPS):
        current = x.numpy()[..., t] + s @ weight.T + (0 if bias is None else bias)
        v = v + DT / TAU * (9 * current - v)
        assert np.abs(v - 0.6).min() > 1e-6
        s = (v > 0.6).astype(float)
        v = np.where(s > 0, 0, v)
        steps.append(s)
    np.testing.assert_array_equal(output, np.stack(steps, -1))
    model = so.export(read(recurrent(weight, bias)), x)
    names = [node.op_type for node in model.graph.node if node.domain == "ai.synapse"]
    assert [name for name in names if name.startswith("Recurrent")] == ["RecurrentLifFloat"]


def test_a_cycle_of_several_linear_nodes_is_one_matrix() -> None:
    first, second = np.random.default_rng(4).normal(size=(2, 4, 4))
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([4])), "lif": lif(), "a": nir.Affine(first, BIAS),
         "b": nir.Scale(BIAS), "c": nir.Linear(second), "output": nir.Output(np.array([4]))},
        [("input", "lif"), ("lif", "a"), ("a", "b"), ("b", "c"), ("c", "lif"), ("lif", "output")],
        type_check=False,
    )  # fmt: skip
    weight = second @ np.diag(BIAS) @ first
    bias = second @ (BIAS * BIAS)
    x = drive(2, 4)
    with torch.no_grad():
        assert torch.equal(read(graph)(x), read(recurrent(weight, bias))(x))


@pytest.mark.parametrize(
    "names",
    [("type", "training"), ("float", "forward"), ("a.b", "a_b"), ("", "self"), ("1", "lambda"),
     ("é", "ü"), ("two", "two_sum")],
    ids=str,
)  # fmt: skip
def test_any_names(names: tuple[str, str]) -> None:
    """Names of attributes, of keywords, of nothing, and those that the sums of edges have."""
    first, second = names

    def graph(first: str, second: str) -> nir.NIRGraph:
        nodes = {"input": nir.Input(np.array([4])), second: lif(), first: lif(),
                 "output": nir.Output(np.array([4]))}  # fmt: skip
        edges = [("input", first), ("input", second), (second, first), (first, "output")]
        return nir.NIRGraph(nodes, edges, type_check=False)

    x = drive(2, 4)
    net, plain = read(graph(first, second)), read(graph("a", "b"))
    with torch.no_grad():
        assert torch.equal(net(x), plain(x))
    assert so.verify(net, so.export(net, x), x).ok


@pytest.mark.gpu
def test_streams_of_a_graph_are_its_whole() -> None:
    graph = line(nir.Linear(3 * np.eye(4)), lif(), nir.Delay(many(3 * DT)), nir.LI(
        many(TAU), many(1), many(0)))  # fmt: skip
    net, x = read(graph), drive(2, 4)
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    parts = [stream.run(part.numpy()) for part in x.split([7, 1, 32], -1)]
    with torch.no_grad():
        np.testing.assert_allclose(np.concatenate(parts, -1), net(x).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("declared", "first", "expected"),
    [
        ((4,), nir.Linear(WEIGHT), (4,)),
        ((1, 4), nir.Linear(WEIGHT), (4,)),
        ((1, 100, 4), nir.Linear(WEIGHT), (4,)),
        ((100, 2, 4), nir.Affine(WEIGHT, np.zeros(3)), (4,)),
        ((30, 4), lif(), (4,)),
        ((2, 30, 4), lif(), (4,)),
        ((30, 1, *IMAGE), conv2d(), IMAGE),
        ((1, *IMAGE), conv2d(), IMAGE),
        ((30, 1, *IMAGE), conv2d(groups=2), IMAGE),
        ((1, 30, 2, 7), nir.Conv1d(7, np.ones((4, 2, 3)), 2, 1, 1, 1, np.zeros(4)), (2, 1, 7)),
    ],
    ids=str,
)
def test_batch_and_time_in_the_shape_of_an_input(
    declared: tuple[int, ...], first: Any, expected: tuple[int, ...]
) -> None:
    assert read(line(first, shape=declared)).input_shapes == [expected]
    if len(expected) == 1:
        later = line(nir.Delay(many(3 * DT)), first, shape=declared)
        assert read(later).input_shapes == [expected]


def test_shapes_that_no_sample_has_are_refused() -> None:
    with pytest.raises(so.ShapeError, match="it takes 4 inputs, and its input has the shape"):
        read(line(nir.Linear(WEIGHT), shape=(4, 9, 3)))
