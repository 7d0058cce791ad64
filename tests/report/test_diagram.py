"""What a drawing shows of a graph: every node, value, state and fact, or a note that it is not."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from drawings import MODELS, SLACK, Drawing, drawn, edges, foreign
from networks import Complex, Convolutional, Mixed, cuba, spikes
from onnx import TensorProto, helper
from torch import nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.report.activity import count_activity
from synapse_onnx.report.drawing import to_svg


def _normed() -> nn.Module:
    norm = so.neuron.norm.MeanOnlyBatchNorm
    return nn.Sequential(so.synapse.Dense(6, 5, weight_scale=3), cuba(norm=norm))


#: a residual sum and two outputs, states, complex currents, a neuron of several nodes
NETWORKS = {
    "mixed": (Mixed, (2, 6, 9), False),
    "stream": (Convolutional, (2, 2, 8, 8, 9), True),
    "complex": (Complex, (2, 2, 8, 8, 9), False),
    "normed": (_normed, (2, 6, 9), False),
}


@functools.cache
def _exported(name: str) -> onnx.ModelProto:
    make, shape, streaming = NETWORKS[name]
    torch.manual_seed(0)
    return so.export(make().eval(), spikes(*shape), streaming=streaming)


# -- the models that are kept --------------------------------------------------------------------


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_kept_model_is_drawn_whole(path: Path) -> None:
    model = without_tiles(onnx.load(path))
    drawing = drawn(model)
    metadata = Metadata.read(model)
    names = {box.name for box in drawing.boxes.values()}
    for layer in metadata.layers:
        where = str(layer["path"])
        assert any(name == where or name.startswith(f"{where}.") for name in names), where
    # every node is drawn, or counted in the note
    nodes = {key for key in drawing.boxes if key.startswith("node:")}
    left_out = re.search(r"not drawn: (\d+) operators", drawing.notes)
    assert len(nodes) + (int(left_out[1]) if left_out else 0) == len(model.graph.node)
    assert all(f"node:{i}" in nodes for i, node in enumerate(model.graph.node) if node.domain)
    ends = {f"output:{v.name}" for v in model.graph.output}
    states = {str(state["output"]) for state in metadata.states}
    assert {key for key in drawing.boxes if key.startswith("output:")} == {
        end for end in ends if end.removeprefix("output:") not in states
    }
    found = {(line.source, line.value, line.target) for line in drawing.lines}
    assert found == edges(model, set(drawing.boxes))
    assert len(found) == len(drawing.lines)
    # states stand beside the node that has them, on a loop
    beside = " ".join(t for b in drawing.boxes.values() if b.kind == "state" for t in b.texts)
    for state in metadata.states:
        assert f"{str(state['input']).rpartition('.')[2]} {state['dtype']} (N, " in beside
    assert len(drawing.loops) == sum(
        key.startswith(("states:", "feedback:")) for key in drawing.boxes
    )


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_shapes_are_those_of_a_run(path: Path) -> None:
    model = without_tiles(onnx.load(path))
    _compare_shapes(model, samples=3, steps=12)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_other_networks(name: str) -> None:
    _compare_shapes(_exported(name), samples=3, steps=12)


def _compare_shapes(model: onnx.ModelProto, *, samples: int, steps: int) -> None:
    drawing = drawn(model)
    values = list(dict.fromkeys(line.value for line in drawing.lines))
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for value in values:
        shown.graph.node.append(helper.make_node("Identity", [value], [f"{value}/shown"]))
        shown.graph.output.append(helper.make_empty_tensor_value_info(f"{value}/shown"))
    session = so.Session(shown)
    sizes = {"N": samples, "T": steps}
    given = [
        np.zeros([sizes.get(size, size) for size in end.shape], np.float32)
        for end in so.Session(model).session.get_inputs()
        if end.name in session.inputs
    ]
    found = dict(zip(session.outputs, session.run(*given), strict=True))
    # the label of a value stands right of where its lines begin
    places = {line.points[0]: line.value for line in drawing.lines}
    labels = 0
    for label in drawing.labels:
        x, y = float(label.attrib["x"]) - 7, float(label.attrib["y"])
        (value,) = {
            v for (at, top), v in places.items() if abs(at - x) <= SLACK and 0 < y - top < 80
        }
        text, _, kind = (label.text or "").partition(") ")
        array = found[f"{value}/shown"]
        words = text.strip("()").split(", ")
        # a size is a number, a name, or a product of names: N*T
        parts = [[int(sizes.get(part, part)) for part in word.split("*")] for word in words]
        assert [math.prod(each) for each in parts] == list(array.shape), value
        assert array.dtype == (kind or "float32"), value
        labels += 1
    assert labels == len(values)


def test_what_is_left_out_does_not_depend_on_the_input() -> None:
    path = next(path for path in MODELS if path.stem == "digits_q8")
    model = onnx.load(path)
    drawing = drawn(model)
    hidden = [
        name
        for i, node in enumerate(model.graph.node)
        if f"node:{i}" not in drawing.boxes
        for name in node.output
    ]
    assert len(hidden) > 5
    for name in hidden:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = so.Session(model)
    first, second = (
        dict(zip(session.outputs, session.run(x.numpy()), strict=True))
        for x in (spikes(2, 1, 8, 8, 6, seed=1), spikes(2, 1, 8, 8, 6, seed=2))
    )
    assert any((first[name] != second[name]).any() for name in session.outputs[:1])
    for name in hidden:
        assert np.array_equal(first[name], second[name]), name


def test_a_box_says_what_the_metadata_say() -> None:
    drawing = drawn(onnx.load(next(path for path in MODELS if path.stem == "digits_q8")))
    boxes = {box.name: box for box in drawing.boxes.values()}
    assert boxes["conv2"].kind == "synapse"
    assert boxes["conv2"].texts == [
        "conv2", "QuantizedConv, weights 32x16x3x3x1", "8 bits, scale 1/32",
    ]  # fmt: skip
    assert boxes["conv1_neuron"].kind == "neuron"
    assert boxes["conv1_neuron"].texts[1:] == ["Cuba, regime slayer, threshold 1"]
    assert boxes["spikes"].texts == ["spikes", "input"]
    assert "standard operator" in drawing.notes
    assert "delay" not in drawing.notes  # the legend has the kinds that there are


def test_the_feedback_of_a_recurrent_neuron_is_a_loop_beside_it() -> None:
    model = onnx.load(next(path for path in MODELS if path.stem == "lava_net_cuba_recurrent"))
    drawing = drawn(model)
    (key,) = drawing.loops
    beside = drawing.boxes[key]
    assert beside.name == "layers.dense_rec_0.recurrent_synapse"
    assert "feedback, weights 8x8x1x1x1, 8 bits" in beside.texts
    neuron = drawing.boxes[f"node:{key.partition(':')[2]}"]
    assert neuron.name == "layers.dense_rec_0.neuron"
    ends = [
        float(x) for x in re.findall(r"M([-\d.]+) |H([-\d.]+)", drawing.loops[key]) for x in x if x
    ]
    assert sorted(set(ends)) == pytest.approx([beside.right, neuron.left], abs=SLACK)
    assert "layers.dense_rec_0.step" in {box.name for box in drawing.boxes.values()}


def test_rates_stand_in_the_boxes() -> None:
    model = onnx.load(next(path for path in MODELS if path.stem == "lava_net_cuba_recurrent"))
    x = spikes(2, 12, 30, seed=3).numpy()
    activity = count_activity(model, [x])
    drawing = Drawing(to_svg(model, activity))
    drawing.check()
    texts = {box.name: box.texts[-1] for box in drawing.boxes.values()}
    for synapse in activity.synapses:
        name = synapse.layer.replace("neuron (feedback)", "recurrent_synapse")
        assert texts[name] == f"{synapse.rate:.2%} events in, {synapse.synops:,} SynOps"
    for neuron in activity.neurons:
        assert texts[neuron.layer] == f"{neuron.rate:.2%} spikes out"
    assert len(activity.synapses) == 3


def test_residual_sums_and_concatenations() -> None:
    model = _exported("mixed")
    drawing = drawn(model)
    found = {(line.source, line.value, line.target) for line in drawing.lines}
    assert found == edges(model, set(drawing.boxes))
    titles = [box.texts[0] for box in drawing.boxes.values()]
    assert {"Add", "Concat", "ReduceMean"} <= set(titles)


# -- graphs of others ----------------------------------------------------------------------------


def test_values_that_a_subgraph_takes_from_outside_have_a_line() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["inner"], ["z"])],
        "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Neg", ["x"], ["inner"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    drawing = drawn(foreign(nodes, ["y"]))
    found = {(line.source, line.value, line.target) for line in drawing.lines}
    assert ("node:0", "inner", "node:3") in found
    assert ("node:2", "yes", "node:3") in found


def test_sizes_that_are_an_output_are_drawn_and_others_are_not() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Neg", ["size"], ["less"]),
        helper.make_node("Shape", ["x"], ["other"]),
        helper.make_node("Reshape", ["x", "other"], ["y"]),
    ]
    drawing = drawn(foreign(nodes, ["y", "less"]))
    assert [key for key in drawing.boxes if key.startswith("node:")] == [
        "node:0",
        "node:1",
        "node:3",
    ]
    assert "not drawn: 1 operators" in drawing.notes


def test_a_state_with_nodes_between_has_boxes_of_its_own() -> None:
    nodes = [
        helper.make_node("Neg", ["past"], ["turned"]),
        helper.make_node("Sum", ["x", "turned"], ["y"]),
        helper.make_node("Relu", ["y"], ["past.next"]),
    ]
    model = foreign(nodes, ["y", "past.next"], "past")
    state = {
        "input": "past",
        "output": "past.next",
        "dtype": "float32",
        "shape": [None],
        "start": 0,
    }
    Metadata("0", "0", 21, "float", streaming=True, states=(state,)).write(model)
    drawing = drawn(model)
    assert drawing.boxes["input:past"].kind == drawing.boxes["output:past.next"].kind == "state"
    assert drawing.boxes["input:x"].kind == "end"
    assert len(drawing.lines) == 6
    assert not drawing.loops


def test_a_model_of_nothing_is_drawn() -> None:
    assert drawn(foreign([], ["x"])).lines[0].value == "x"
    assert not drawn(helper.make_model(helper.make_graph([], "empty", [], []))).boxes
