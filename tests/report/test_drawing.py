"""The drawing of a graph: nothing missing, nothing on top of anything, nothing cut."""

from __future__ import annotations

import functools
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Complex, Convolutional, Mixed, cuba, spikes
from onnx import TensorProto, helper
from torch import nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.errors import ModelError
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.report.activity import count_activity
from synapse_onnx.report.drawing import to_svg

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
SVG = "{http://www.w3.org/2000/svg}"
#: width of a column of a fixed-width font, by its size: 0.6 in DejaVu, Menlo, Courier
COLUMN = 0.605
SLACK = 0.11  # two numbers of one digit behind the point


@dataclass
class Box:
    key: str
    name: str
    kind: str
    texts: list[str]
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, left: float, top: float, right: float, bottom: float) -> bool:
        across = min(self.right, right) - max(self.left, left)
        return across > SLACK and min(self.bottom, bottom) - max(self.top, top) > SLACK


@dataclass
class Line:
    source: str
    value: str
    target: str
    points: list[tuple[float, float]]  # many along it


class Drawing:
    """What an SVG shows, read from its text alone."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)
        self.view = [float(number) for number in self.root.attrib["viewBox"].split()]
        self.boxes: dict[str, Box] = {}
        for group in self.root.iter(f"{SVG}g"):
            kinds = group.get("class", "").split()
            if kinds[:1] == ["box"]:
                box = self._box(group, kinds[1])
                assert box.key not in self.boxes
                self.boxes[box.key] = box
        self.lines = [
            Line(p.attrib["data-from"], p.attrib["data-value"], p.attrib["data-to"],
                 list(_along(p.attrib["d"])))
            for p in self.root.iter(f"{SVG}path")
            if p.get("class") == "line"
        ]  # fmt: skip
        self.loops = {
            p.attrib["data-loop"]: p.attrib["d"]
            for p in self.root.iter(f"{SVG}path")
            if p.get("class") == "loop"
        }
        self.labels = [t for t in self.root.iter(f"{SVG}text") if t.get("class") == "shape"]
        self.notes = " ".join(
            t.text or "" for t in self.root.iter(f"{SVG}text") if t.get("class") == "note"
        )

    def _box(self, group: ElementTree.Element, kind: str) -> Box:
        (rect,) = group.findall(f"{SVG}rect")
        x, y, wide, high = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        texts = group.findall(f"{SVG}text")
        box = Box(
            group.attrib["data-key"], group.attrib["data-name"], kind,
            [text.text or "" for text in texts], x, y, x + wide, y + high,
        )  # fmt: skip
        for text in texts:
            size = 13 if text.get("class") == "title" else 11
            half = len(text.text or "") * size * COLUMN / 2  # text-anchor: middle
            middle, base = float(text.attrib["x"]), float(text.attrib["y"])
            assert box.left < middle - half
            assert middle + half < box.right
            assert box.top < base - size * 0.75
            assert base + size * 0.25 < box.bottom
        return box

    def check(self) -> None:
        """Check that all is in the picture, and nothing lies on a box."""
        left, top, wide, high = self.view
        boxes = list(self.boxes.values())
        for box in boxes:
            assert left < box.left
            assert box.right < left + wide
            assert top < box.top
            assert box.bottom < top + high
        ordered = sorted(boxes, key=lambda box: box.top)
        for i, box in enumerate(ordered):
            for other in ordered[i + 1 :]:
                if other.top > box.bottom:
                    break
                assert not box.meets(other.left, other.top, other.right, other.bottom), (box, other)
        for line in self.lines:
            (x, y), (to, end) = line.points[0], line.points[-1]
            source, target = self.boxes[line.source], self.boxes[line.target]
            assert abs(y - source.bottom) <= SLACK
            assert source.left < x < source.right
            assert abs(end - target.top) <= SLACK
            assert target.left < to < target.right
            assert all(before[1] < after[1] for before, after in itertools.pairwise(line.points))
            assert all(left < x < left + wide for x, _ in line.points)
        for (xs, ys), words in self._marks():
            for box in boxes:
                assert not box.meets(xs[0], ys[0], xs[1], ys[1]), (box, words)
        labels = list(itertools.islice(self._marks(), len(self.labels)))
        for ((xs, ys), _), ((us, vs), _) in itertools.combinations(labels, 2):
            assert xs[1] < us[0] or us[1] < xs[0] or ys[1] < vs[0] or vs[1] < ys[0], "labels meet"

    def _marks(self) -> Iterator[tuple[tuple[tuple[float, float], tuple[float, float]], str]]:
        """Rectangles that no box may touch: labels, and the pieces of lines."""
        for label in self.labels:
            x, y = float(label.attrib["x"]), float(label.attrib["y"])
            words = label.text or ""
            assert x + len(words) * 11 * COLUMN < self.view[0] + self.view[2]
            yield ((x, x + len(words) * 11 * COLUMN), (y - 8, y + 3)), words
        for line in self.lines:
            for (x, y), (to, below) in itertools.pairwise(line.points):
                # a hair wide, so that a vertical line has an area
                sides = sorted((x, to))
                yield ((sides[0] - 0.2, sides[1] + 0.2), (y, below)), line.value


def _along(path: str) -> Iterator[tuple[float, float]]:
    """Points along a path of M, V and C."""
    x = y = 0.0
    for command, text in re.findall(r"([MVC])([^MVC]*)", path):
        numbers = [float(number) for number in text.split()]
        if command == "M":
            x, y = numbers
            yield x, y
        elif command == "V":
            (y,) = numbers
            yield x, y
        else:
            corners = [(x, y), *zip(numbers[::2], numbers[1::2], strict=True)]
            for i in range(1, 9):
                t = i / 8
                weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
                place = [
                    sum(w * c[k] for w, c in zip(weights, corners, strict=True)) for k in (0, 1)
                ]
                yield place[0], place[1]
            x, y = corners[-1]


def drawn(model: onnx.ModelProto) -> Drawing:
    drawing = Drawing(to_svg(model))
    drawing.check()
    return drawing


def edges(model: onnx.ModelProto, shown: set[str]) -> set[tuple[str, str, str]]:
    """The lines that a graph without subgraphs must have between boxes that are shown."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    makers = {v.name: f"input:{v.name}" for v in graph.input if v.name not in weights}
    makers |= {name: f"node:{i}" for i, node in enumerate(graph.node) for name in node.output}
    takers = [(f"node:{i}", name) for i, node in enumerate(graph.node) for name in node.input]
    takers += [(f"output:{value.name}", value.name) for value in graph.output]
    found = {(makers[name], name, key) for key, name in takers if name in makers and name}
    return {edge for edge in found if edge[0] in shown and edge[2] in shown}


def foreign(nodes: list[onnx.NodeProto], outputs: list[str], *more: str) -> onnx.ModelProto:
    """A model of somebody else's, of one input x and perhaps others."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, "T"])
        for name in ("x", *more)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_model(helper.make_graph(nodes, "graph", inputs, ends))


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
    model = onnx.load(path)
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
    model = onnx.load(path)
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
        assert [int(sizes.get(word, word)) for word in words] == list(array.shape), value
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


def _dag(links: list[list[int]]) -> onnx.ModelProto:
    """Node i sums x and what it is given: 0 is x, i + 1 the value of node i."""
    names = ["x", *(f"v{i}" for i in range(len(links)))]
    nodes = [
        helper.make_node("Sum", [names[j] for j in given], [f"v{i}"], name=f"node <{i}>")
        for i, given in enumerate(links)
    ]
    used = {name for node in nodes for name in node.input}
    return foreign(nodes, [name for name in names if name not in used] or ["x"])


@st.composite
def _links(draw: st.DrawFn) -> list[list[int]]:
    count = draw(st.integers(0, 25))
    return [draw(st.lists(st.integers(0, i), min_size=1, max_size=4)) for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(_links())
def test_any_graph(links: list[list[int]]) -> None:
    model = _dag(links)
    drawing = drawn(model)
    found = [(line.source, line.value, line.target) for line in drawing.lines]
    assert len(found) == len(set(found))
    assert set(found) == edges(model, set(drawing.boxes))
    assert len(drawing.boxes) == len(links) + 1 + len(model.graph.output)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_boxes(data: st.DataObject) -> None:
    """Boxes of any size, with several outlets and states beside them, labels of any length."""
    values, nodes, states = ["x"], [], []
    shapes: dict[str, list[str]] = {}
    for i in range(data.draw(st.integers(1, 12))):
        given = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
        made = [f"v{i}.{j}" for j in range(data.draw(st.integers(1, 3)))]
        shapes |= {name: ["size" * data.draw(st.integers(1, 9))] for name in made}
        kept = [f"s{i}.{j}" for j in range(data.draw(st.integers(0, 3)))]
        states += [
            {
                "input": name,
                "output": f"{name}.next",
                "dtype": "int64",
                "shape": [None, 4],
                "start": 0,
            }
            for name in kept
        ]
        op = "Op" * data.draw(st.integers(1, 60))
        nodes.append(
            helper.make_node(
                op, [*given, *kept], [*made, *(f"{n}.next" for n in kept)], name=f"{i}"
            )
        )
        values += made
    model = foreign(
        nodes, [values[-1], *(s["output"] for s in states)], *(s["input"] for s in states)
    )
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    Metadata("0", "0", 21, "float", streaming=True, states=tuple(states)).write(model)
    drawing = drawn(model)
    assert len(drawing.loops) == len({state["input"].split(".")[0] for state in states})
    found = {(line.source, line.value, line.target) for line in drawing.lines}
    assert found == edges(model, set(drawing.boxes))
    assert {label.text for label in drawing.labels} >= {
        f"({shapes[value][0]})" for _, value, _ in found if value != "x"
    }


def test_a_chain_is_a_straight_line() -> None:
    drawing = drawn(_dag([[i] for i in range(20)]))
    assert len({line.points[0][0] for line in drawing.lines}) == 1
    assert all(len({x for x, _ in line.points}) == 1 for line in drawing.lines)


def test_lines_of_a_ladder_do_not_cross() -> None:
    """Two chains side by side, given in turns: each keeps its side."""
    nodes = [
        helper.make_node("Relu", [side if i == 0 else f"{side}{i - 1}"], [f"{side}{i}"])
        for i in range(6)
        for side in (("x", "y") if i % 2 else ("y", "x"))
    ]
    drawing = drawn(foreign(nodes, ["y5", "x5"], "y"))
    sides = {
        letter: {line.points[-1][0] for line in drawing.lines if line.value[0] == letter}
        for letter in "xy"
    }
    assert len(sides["x"]) == len(sides["y"]) == 1
    assert sides["x"] != sides["y"]


def test_hundreds_of_layers_take_seconds_and_the_drawing_grows_linearly() -> None:
    sizes = []
    for count in (300, 600):
        # blocks of three with a residual sum
        links = [[i] if i % 3 < 2 else [i, i - 2] for i in range(count)]
        model = _dag(links)
        begin = process_time()
        text = to_svg(model)
        assert process_time() - begin < 10
        sizes.append(len(text))
        drawing = Drawing(text)
        assert len(drawing.boxes) == count + 2
        if count == 300:
            drawing.check()
    assert sizes[1] < 2.2 * sizes[0]


def test_three_hundred_layers_of_ours() -> None:
    body = [helper.make_node("Identity", ["x"], ["s"])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.synapse", 1)]
    cuba_body = helper.make_function("ai.synapse", "Cuba", ["x"], ["s"], body, opsets[:1])
    paths = [f"layers.block{i}.neuron" for i in range(300)]
    nodes = [
        helper.make_node("Cuba", [given], [path], name=path, domain="ai.synapse")
        for given, path in zip(["x", *paths], paths, strict=False)
    ]
    model = foreign(nodes, paths[-1:])
    model.functions.append(cuba_body)
    model.opset_import.append(opsets[1])
    facts = tuple({"path": path, "kind": "cuba", "regime": "slayer"} for path in paths)
    unused = {"path": "layers.block7.unused", "kind": "Delay"}
    Metadata("0", "0", 21, "slayer", layers=(*facts, unused)).write(model)
    begin = process_time()
    text = to_svg(model)
    assert process_time() - begin < 10
    drawing = Drawing(text)
    drawing.check()
    boxes = [box for box in drawing.boxes.values() if box.kind == "neuron"]
    assert [box.name for box in boxes] == paths
    assert all(box.texts == [box.name, "Cuba, regime slayer"] for box in boxes)
    assert [label.text for label in drawing.labels] == ["(N, 4, T)"] * 301
    assert "not drawn: layers.block7.unused left nothing to compute" in drawing.notes


def test_names_cannot_become_markup() -> None:
    bad = "<b> & \"quoted\" 'too' \x01"
    node = helper.make_node("Relu", ["x"], [bad], name=bad)
    text = to_svg(foreign([node], [bad]))
    drawing = Drawing(text)
    drawing.check()
    shown = bad.replace("\x01", "\ufffd")
    assert drawing.boxes["node:0"].name == shown
    assert [line.value for line in drawing.lines] == ["x", shown]
    assert "".join(drawing.boxes[f"output:{shown}"].texts[:-1]) == shown
    assert "<b>" not in text


def test_long_names_are_wrapped_and_wide_letters_have_room() -> None:
    long = ".".join(f"block{i}" for i in range(30)) + "." + "y" * 90
    node = helper.make_node("Relu", ["x"], [long])
    box = drawn(foreign([node], [long])).boxes[f"output:{long}"]
    assert "".join(box.texts[:-1]) == long
    assert max(map(len, box.texts)) <= 40
    wide, narrow = (
        Drawing(to_svg(foreign([helper.make_node("Relu", ["x"], [name])], [name])))
        for name in ("神経細胞" * 4, "nerv" * 4)
    )
    widths = [d.boxes[f"output:{d.lines[-1].value}"] for d in (wide, narrow)]
    assert widths[0].right - widths[0].left > 1.8 * (widths[1].right - widths[1].left)


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


def test_a_cycle_is_no_model() -> None:
    nodes = [
        helper.make_node("Sum", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    with pytest.raises(ModelError, match="cannot be drawn: the graph has a cycle"):
        to_svg(foreign(nodes, ["b"]))


def test_a_model_of_nothing_is_drawn() -> None:
    assert drawn(foreign([], ["x"])).lines[0].value == "x"
    assert not drawn(helper.make_model(helper.make_graph([], "empty", [], []))).boxes


# -- the file ------------------------------------------------------------------------------------


def test_the_drawing_needs_nothing_from_elsewhere() -> None:
    text = to_svg(onnx.load(MODELS[0]))
    bare = text.replace('xmlns="http://www.w3.org/2000/svg"', "", 1)
    for word in ("http", "url(", "href", "@import", "<script", "@font-face", "<image", "<use"):
        assert word not in bare
    assert "prefers-color-scheme: dark" in bare


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_every_text_within_its_box(browser, tmp_path: Path, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    path = tmp_path / "graph.svg"
    path.write_text(to_svg(onnx.load(next(p for p in MODELS if p.stem == "tones_stream"))))
    browser.get(path.as_uri())
    found = json.loads(
        browser.execute_script(
            """
            const groups = [...document.querySelectorAll('g.box')].map(g => {
              const r = g.querySelector('rect').getBBox();
              return [...g.querySelectorAll('text')].map(t => {
                const b = t.getBBox();
                return [b.x - r.x, r.x + r.width - b.x - b.width,
                        b.y - r.y, r.y + r.height - b.y - b.height];
              });
            });
            const fill = e => getComputedStyle(document.querySelector(e)).fill;
            return JSON.stringify([groups.flat(), fill('rect.paper'), fill('text.title')]);
            """
        )
    )
    margins, paper, ink = found
    assert len(margins) > 30
    assert min(itertools.chain(*margins)) > 0
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (light[0] > light[1]) == (theme == "light")


# -- the command ---------------------------------------------------------------------------------


def _invoke(*args: str) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(main, ["inspect", *args])
    return outcome.exit_code, outcome.stdout, outcome.stderr


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", spikes(2, 1, 8, 8, 6).numpy())
    return str(next(path for path in MODELS if path.stem == "digits_q8"))


def test_the_command_writes_the_drawing(digits: str) -> None:
    code, text, said = _invoke(digits, "--svg", "graph.svg")
    assert (code, said) == (0, "")
    assert text.splitlines()[-1] == "wrote  graph.svg"
    assert Path("graph.svg").read_text() == to_svg(onnx.load(digits))


def test_the_command_writes_rates_and_json(digits: str) -> None:
    code, text, _ = _invoke(digits, "--svg", "graph.svg", "--json", "-i", "x.npy")
    assert code == 0
    assert json.loads(text)["file"] == digits
    model = onnx.load(digits)
    activity = count_activity(model, [np.load("x.npy")])
    assert Path("graph.svg").read_text() == to_svg(model, activity)
    assert Path("graph.svg").read_text().count("spikes out") == 4


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("graph.png", "graph.png cannot be written: its name must end in .svg"),
        ("nowhere/graph.svg", "nowhere/graph.svg cannot be written: there is no folder nowhere"),
    ],
)
def test_where_the_command_cannot_write(digits: str, target: str, expected: str) -> None:
    assert _invoke(digits, "--svg", target) == (2, "", f"error: {expected}\n")
    assert sorted(path.name for path in Path().iterdir()) == ["x.npy"]


def test_no_torch_and_no_runtime_for_a_drawing(digits: str) -> None:
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        f"try:\n    main(['inspect', {digits!r}, '--svg', 'graph.svg'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'synapse_onnx.report.drawing' in sys.modules\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("graph.svg").stat().st_size > 5000
