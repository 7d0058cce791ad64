"""A drawing read from its SVG alone, and graphs to draw."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import onnx
from onnx import TensorProto, helper

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
