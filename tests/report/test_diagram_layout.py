"""Places in a drawing: nothing on top of anything, straight chains, and no line through a box."""

from __future__ import annotations

from time import process_time

import onnx
import pytest
from drawings import Drawing, drawn, edges, foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from synapse_onnx.errors import ModelError
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.report.drawing import to_svg


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


def test_a_cycle_is_no_model() -> None:
    nodes = [
        helper.make_node("Sum", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    with pytest.raises(ModelError, match="cannot be drawn: the graph has a cycle"):
        to_svg(foreign(nodes, ["b"]))
