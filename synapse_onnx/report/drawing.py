"""A drawing of a model's graph: one self-contained SVG, without script, font or link.

A node is a box, with what the metadata say of its layer; a value is a line with its shape. States
of a stream and the feedback of a recurrent neuron are loops beside their box. Left out are
constants and the nodes that only compute sizes: they make the states that a sequence starts from.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import onnx

from synapse_onnx.errors import ModelError
from synapse_onnx.formatting import scale_text, shape_text, span_text, weights_text
from synapse_onnx.model.graph import DOMAIN, places_along, taken_by
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.report._layered import Block, Edge, Layout, lay_out
from synapse_onnx.report.page import theme

if TYPE_CHECKING:
    from synapse_onnx.report.activity import Activity

__all__ = ["to_svg"]

_SYNAPSES = ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool")
#: layers whose output is of the shape of their input, beside those that spike
_ALIKE = ("Delay", "LeakyIntegrator", "LeakyIntegratorFloat", "Normalize", "Sigma")
#: operators that give the size of a value, not the value, or no value of this input at all
_SIZES = ("Constant", "Shape", "Size")

#: kind of a box -> what it is called in the legend, and its colour in the theme of the report
_KINDS = {
    "end": ("input or output", "ink"),
    "synapse": ("synapse", "runtime"),
    "neuron": ("neuron", "torch"),
    "delay": ("delay", "ok"),
    "layer": ("other layer", "other"),
    "state": ("state of a stream", "soft"),
    "plain": ("standard operator", "soft"),
}

#: width of a column of the fixed-width font, by the size of the font; and the height of a line
_ASPECT, _LEADING = 0.61, 1.45
_TITLE, _TEXT = 13.0, 11.0
#: columns at which a text is wrapped
_COLUMNS = 40
_PADDING, _LOOP, _MARGIN = 10.0, 30.0, 24.0


@dataclass
class _Box:
    """A rectangle with text.

    Attributes:
        key: unlike that of any other box.
        name: what it stands for: node, input, output, state or layer.
        kind: one of ``_KINDS``.
        title: lines in bold.
        lines: lines below.
        left: a box beside it, on a loop: the feedback.
        right: the same on the other side: the states.
        labels: texts of its outlets, beside the lines that begin there.
    """

    key: str
    name: str
    kind: str
    title: list[str]
    lines: list[str] = field(default_factory=list)
    left: _Box | None = None
    right: _Box | None = None
    labels: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Return what its text takes."""
        texts = [_width(line, _TITLE) for line in self.title]
        texts += [_width(line, _TEXT) for line in self.lines]
        return max(texts, default=0.0) + 2 * _PADDING

    @property
    def height(self) -> float:
        """Return what its text takes."""
        return _LEADING * (_TITLE * len(self.title) + _TEXT * len(self.lines)) + _PADDING

    def block(self) -> Block:
        """Return what it takes: itself, what stands beside it, what its outlets are called."""
        left, right = (side.width + _LOOP if side else 0.0 for side in (self.left, self.right))
        rooms = [_width(label, _TEXT) + 2 * _PADDING for label in self.labels]
        # an outlet is in the middle of its share, and its label in the right half of that
        share = max([self.width / max(len(rooms), 1), *(2 * room for room in rooms[:-1])])
        main = max(self.width, share * len(rooms)) if len(rooms) > 1 else self.width
        outlets = tuple(left + share * (i + 0.5) for i in range(len(rooms)))
        ends = [outlet + room for outlet, room in zip(outlets, rooms, strict=True)]
        heights = [box.height for box in (self, self.left, self.right) if box]
        width = max([left + main + right, *ends])
        return Block(width, max(heights), (left, left + main), outlets)


def to_svg(model: onnx.ModelProto, activity: Activity | None = None) -> str:
    """Draw the graph of a model.

    Every box is a ``g`` with the name of its node, input, output or state as ``data-name``, every
    line a ``path`` with the name of its value as ``data-value``. Colours follow the reader's light
    or dark theme.

    Args:
        model: any ONNX model; of one that synapse-onnx wrote, boxes say more.
        activity: what it did with an input; rates are written into the boxes.

    Returns:
        An SVG document.

    Raises:
        ModelError: the graph has a cycle, so it is no model.
    """
    graph = _Graph(model, activity)
    boxes = list(graph.boxes.values())
    index = {box.key: i for i, box in enumerate(boxes)}
    edges, outlets = [], defaultdict[str, list[str]](list)
    for source, value, _ in graph.lines:
        if value not in outlets[source]:
            outlets[source].append(value)
            graph.boxes[source].labels.append(graph.type_text(value))
    for source, value, target in graph.lines:
        edges.append(Edge(index[source], outlets[source].index(value), index[target]))
    try:
        layout = lay_out([box.block() for box in boxes], edges)
    except ValueError as error:
        raise ModelError(f"the model cannot be drawn: {error}") from error
    return _document(graph, boxes, layout)


class _Graph:
    """Boxes and lines of a model, not yet placed."""

    def __init__(self, model: onnx.ModelProto, activity: Activity | None) -> None:
        self.model = model
        self.boxes: dict[str, _Box] = {}
        #: (key of the box that gives it, value, key of the box that takes it)
        self.lines: list[tuple[str, str, str]] = []
        self.notes: list[str] = []
        try:
            self._metadata: Metadata | None = Metadata.read(model)
        except ModelError:  # somebody else's model
            self._metadata = None
        self._layers = {str(layer["path"]): layer for layer in self._known("layers")}
        self._rates = _rates(activity)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
        self._takes = [list(dict.fromkeys(taken_by(node))) for node in model.graph.node]
        self._types: dict[str, tuple[list[int | str], int]] = {}
        self._build()

    def _known(self, what: str) -> tuple[Mapping[str, Any], ...]:
        return getattr(self._metadata, what) if self._metadata else ()

    # -- boxes and lines ----------------------------------------------------------------------

    def _build(self) -> None:
        nodes = self.model.graph.node
        sizes = self._only_sizes()
        for i, node in enumerate(nodes):
            if i not in sizes:
                self.boxes[f"node:{i}"] = self._node(i, node)
        loops = self._loops()
        giver = {
            name: f"node:{i}"
            for i, node in enumerate(nodes)
            if i not in sizes
            for name in node.output
            if name
        }
        for value in self.model.graph.input:
            if value.name not in self._tensors and value.name not in loops:
                giver[value.name] = self._end("input", value.name)
        for i in range(len(nodes)):
            if i not in sizes:
                self._lines_to(f"node:{i}", (n for n in self._takes[i] if n not in loops), giver)
        for value in self.model.graph.output:
            if value.name not in loops.values():
                self._lines_to(self._end("output", value.name), [value.name], giver)
        self._types = self._shapes_and_types()
        if sizes:
            self.notes.append(
                f"not drawn: {len(sizes)} operators that give only sizes and first states"
            )
        parts = (part for box in self.boxes.values() for part in (box, box.left) if part)
        drawn = {holder for part in parts for holder in _holders(part.name)}
        for path in self._layers:
            if path not in drawn:
                self.notes.append(f"not drawn: {path or 'the model'} left nothing to compute")

    def _lines_to(self, key: str, names: Iterable[str], giver: Mapping[str, str]) -> None:
        self.lines += [(giver[name], name, key) for name in names if name in giver]

    def _end(self, side: str, name: str) -> str:
        key = f"{side}:{name}"
        state = next((s for s in self._known("states") if name in (s["input"], s["output"])), None)
        kind, what = ("end", side) if state is None else ("state", f"state, {side}")
        self.boxes[key] = _Box(key, name, kind, _wrapped(name), [what])
        return key

    def _only_sizes(self) -> set[int]:
        """Return the nodes whose values come from sizes and constants alone, and go nowhere else.

        What comes out at the end of the model is always drawn, and so is a layer.
        """
        found: dict[str, int] = {}
        for i, node in enumerate(self.model.graph.node):
            takes = self._takes[i]
            own = takes and all(name in found or name in self._tensors for name in takes)
            if node.domain != DOMAIN and (own or node.op_type in _SIZES):
                found |= dict.fromkeys(node.output, i)
        waiting = [value.name for value in self.model.graph.output]
        shown = set[int]()
        while waiting:
            maker = found.get(waiting.pop())
            if maker is not None and maker not in shown:
                shown.add(maker)
                waiting += self._takes[maker]
        return set(found.values()) - shown

    def _loops(self) -> dict[str, str]:
        """Put states beside the node that takes and gives them; return their inputs and outputs."""
        takers, makers = defaultdict[str, list[int]](list), dict[str, int]()
        for i, node in enumerate(self.model.graph.node):
            for name in self._takes[i]:
                takers[name].append(i)
            makers |= dict.fromkeys(node.output, i)
        loops: dict[str, str] = {}
        for state in self._known("states"):
            into, out = str(state["input"]), str(state["output"])
            box = self.boxes.get(f"node:{makers.get(out)}")
            if box is None or takers[into] != [makers[out]] or takers[out]:
                continue  # other nodes stand between: it has boxes of its own above and below
            loops[into] = out
            if box.right is None:
                box.right = _Box(f"states:{box.key}", f"{box.name} (states)", "state", ["states"])
            name = into.removeprefix(f"{box.name}.")
            what = f"{state['dtype']} {shape_text(['N', *state['shape'][1:]])}"
            box.right.lines += _wrapped(name) if len(name) > _COLUMNS // 2 else []
            box.right.lines.append(what if len(name) > _COLUMNS // 2 else f"{name} {what}")
        return loops

    def _node(self, i: int, node: onnx.NodeProto) -> _Box:
        key, name = f"node:{i}", node.name or next(iter(node.output), f"#{i}")
        if node.domain != DOMAIN:
            title = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            sizes = [list(self._tensors[n].dims) for n in node.input if n in self._tensors]
            texts = [weights_text(size) for size in sizes if len(size) > 1]
            return _Box(key, name, "plain", _wrapped(title), _packed(texts))
        path = layer_of(node) or name
        facts = next((self._layers[h] for h in _holders(path) if h in self._layers), {})
        base = _base(node)
        kind = "layer"
        if base in _SYNAPSES:
            kind = "synapse"
        elif base == "Delay":
            kind = "delay"
        elif "regime" in facts or "s" in self._formal(node)[1]:
            kind = "neuron"
        texts = [node.op_type, *_fact_texts(facts)]
        box = _Box(
            key, path, kind, _wrapped(path), _packed(texts) + self._rates[path, node.op_type]
        )
        box.left = self._feedback(i, node, path)
        return box

    def _formal(self, node: onnx.NodeProto) -> tuple[dict[str, str], dict[str, str]]:
        """Return name within the body -> name in the graph, of inputs and of outputs."""
        function = self._functions.get(node.op_type)
        if function is None or node.domain != DOMAIN:
            return {}, {}
        inputs = dict(zip(function.input, node.input, strict=False))
        return inputs, dict(zip(function.output, node.output, strict=False))

    def _feedback(self, i: int, node: onnx.NodeProto, path: str) -> _Box | None:
        """Return the synapse through which a recurrent neuron sees its own spikes."""
        formal, _ = self._formal(node)
        if "spikes" not in formal:
            return None
        weights = [name for form, name in formal.items() if form.startswith("weight")]
        holders = (h for name in weights for h in _holders(name) if h and h in self._layers)
        name = next(holders, "")
        if not name or name in _holders(path):  # no layer of its own
            name = f"{path} (feedback)"
        texts = _fact_texts(self._layers.get(name, {})) or [
            f"weights {weights_text(self._tensors[n].dims)}" for n in weights if n in self._tensors
        ]
        lines = _packed(["feedback", *texts]) + self._rates[f"{path} (feedback)", node.op_type]
        return _Box(f"feedback:{i}", name, "synapse", _wrapped(name), lines)

    # -- types --------------------------------------------------------------------------------

    def _shapes_and_types(self) -> dict[str, tuple[list[int | str], int]]:
        """Return shape and element type of values: as the file has them, or as they follow."""
        found = _typed(self.model.graph)
        if any(value not in found for _, value, _ in self.lines):
            # a model that is too large, or wrong: lines stay without shapes
            with contextlib.suppress(RuntimeError, ValueError):
                found = _typed(onnx.shape_inference.infer_shapes(self.model).graph) | found
        for node in self.model.graph.node:  # onnx does not see through the loops of the bodies
            inputs, outputs = self._formal(node)
            if inputs and node.input[0] in found:
                shape, _ = found[node.input[0]]
                weights = inputs.get("weight") or inputs.get("weight_real") or ""
                shapes = self._layer_shapes(node, shape, list(outputs), weights)
                found |= {outputs[o]: (s, onnx.TensorProto.FLOAT) for o, s in shapes.items()}
        return found

    def _layer_shapes(
        self, node: onnx.NodeProto, x: list[int | str], outputs: Sequence[str], weights: str
    ) -> dict[str, list[int | str]]:
        """Return the shapes of a layer's sequences, from that of its input, time first."""
        base = _base(node)
        if base not in _SYNAPSES:
            alike = ("y",) if base in _ALIKE else ()
            return {o: x for o in outputs if o in ("s", *alike) or o.endswith("_trace")}
        tensor = self._tensors.get(weights)
        sizes = list(tensor.dims) if tensor is not None else []
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        y: list[int | str] = list(x)
        if base == "Dense" and len(x) == 3 and sizes:
            y[2] = sizes[0]
        elif len(x) == 5 and len(sizes) == 5 and {"pads", "strides", "dilations"} <= set(given):
            channels = {"Conv": sizes[0], "ConvTranspose": sizes[1] * given.get("group", 1)}
            y[2] = channels.get(base, x[2])
            y[3:] = [_image_size(x[3 + i], sizes[2 + i], i, given, base) for i in range(2)]
        else:
            return {}
        return dict.fromkeys((o for o in outputs if o in ("y", "real", "imag")), y)

    def type_text(self, value: str) -> str:
        """Write the shape of a value, and its type where that is not float; "" if unknown."""
        if value not in self._types:
            return ""
        shape, kind = self._types[value]
        name = onnx.TensorProto.DataType.Name(kind).lower()
        return shape_text(shape) + (f" {name}" if name not in ("float", "undefined") else "")


def _typed(graph: onnx.GraphProto) -> dict[str, tuple[list[int | str], int]]:
    """Return shape and element type of the values of which a graph says the shape."""
    found: dict[str, tuple[list[int | str], int]] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = (
                [
                    # a name that onnx made up says no more than that the size is open
                    dim.dim_value
                    if dim.HasField("dim_value")
                    else re.sub(r"^(unk__\d+)?$", "?", dim.dim_param)
                    for dim in kind.shape.dim
                ],
                kind.elem_type,
            )
    return found


def _image_size(
    size: int | str, kernel: int, axis: int, given: Mapping[str, Any], base: str
) -> int | str:
    """Return rows or columns of what a convolution or a pool gives."""
    if isinstance(size, str):
        return "?"
    stride, pads = given["strides"][axis], given["pads"][axis] + given["pads"][2 + axis]
    transposed = base in ("ConvTranspose", "Unpool")
    return places_along(size, pads, kernel, stride, given["dilations"][axis], transposed=transposed)


def _base(node: onnx.NodeProto) -> str:
    """Return a synapse's op without the prefixes of its form."""
    return node.op_type.removeprefix("Quantized").removeprefix("Complex")


def _holders(name: str) -> Iterator[str]:
    """A name, and those of the modules that hold it, the innermost first; the model is ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _rates(activity: Activity | None) -> defaultdict[tuple[str, str], list[str]]:
    """Layer and op -> what an input did there."""
    found = defaultdict[tuple[str, str], list[str]](list)
    if activity is not None:
        for synapse in activity.synapses:
            found[synapse.layer, synapse.op] = [
                f"{synapse.rate:.2%} events in, {synapse.synops:,} SynOps"
            ]
        for neuron in activity.neurons:
            found[neuron.layer, neuron.op] = [f"{neuron.rate:.2%} spikes out"]
    return found


def _fact_texts(facts: Mapping[str, Any]) -> list[str]:
    """What the metadata say of a layer, as `inspect` does."""
    texts = []
    if facts.get("weight_shape"):
        texts.append(f"weights {weights_text(facts['weight_shape'])}")
    if "quantized" in facts or "bits" in facts:
        texts.append(f"{facts['bits']} bits" if "bits" in facts else "float")
    if facts.get("scales"):
        texts.append(f"scale {scale_text(facts['scales'])}")
    if facts.get("regime"):
        texts.append(f"regime {facts['regime']}")
    for name in ("threshold", "delays"):
        text = span_text(facts.get(name))
        texts += [f"{name.removesuffix('s')} {text}"] if text else []
    return texts


# -- text -----------------------------------------------------------------------------------------


def _width(text: str, size: float) -> float:
    """Width of a text in the fixed-width font; wide characters of East Asia take two columns."""
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return columns * size * _ASPECT


def _wrapped(name: str) -> list[str]:
    """Wrap a name, behind a dot, slash or underscore where there is one."""
    lines = [""]
    for part in re.findall(r"[^./_\s]*[./_\s]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > _COLUMNS:
            lines.append("")
        lines[-1] += part
        while len(lines[-1]) > _COLUMNS:
            lines[-1:] = [lines[-1][:_COLUMNS], lines[-1][_COLUMNS:]]
    return lines


def _packed(texts: Sequence[str]) -> list[str]:
    """Put texts on as few lines as they need."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(text) + 2 <= _COLUMNS:
            lines[-1] += f", {text}"
        else:
            lines += _wrapped(text)
    return lines


def _xml(text: str) -> str:
    """Escape a text; what XML has no way to write becomes a question mark in a diamond."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


# -- the document ---------------------------------------------------------------------------------


def _document(graph: _Graph, boxes: Sequence[_Box], layout: Layout) -> str:
    blocks = [box.block() for box in boxes]
    shapes: list[str] = []
    extents: dict[str, tuple[float, float]] = {}  # top and bottom of each main box
    for box, block, (x, y) in zip(boxes, blocks, layout.corners, strict=True):
        shapes += _unit(box, block, x, y)
        top = y + (block.height - box.height) / 2
        extents[box.key] = (top, top + box.height)
    lines = []
    for (source, value, target), route in zip(graph.lines, layout.routes, strict=True):
        points = list(route.points)
        points[0] = (points[0][0], extents[source][1])
        points[-1] = (points[-1][0], extents[target][0])
        ends = f'data-from="{_xml(source)}" data-to="{_xml(target)}"'
        lines.append(
            f'<path class="line" data-value="{_xml(value)}" {ends} d="{_curve(points)}"/>'
            + _arrow(*points[-1], 0, 1)
        )
    foot, wide, high = _foot(graph, boxes, layout.width)
    width, height = max(layout.width, wide) + 2 * _MARGIN, layout.height + high + 2 * _MARGIN
    name = _xml(graph.model.graph.name or "model")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="synapse-onnx-graph" role="img" '
        f'aria-label="graph of {name}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}">\n'
        f"<style>\n{_style()}</style>\n"
        f'<rect class="paper" x="{-_MARGIN:g}" y="{-_MARGIN:g}" width="{width:.0f}" '
        f'height="{height:.0f}"/>\n'
        + "\n".join([*lines, *shapes])
        + f'\n<g transform="translate(0 {layout.height:.1f})">\n{foot}\n</g>\n</svg>\n'
    )


def _unit(box: _Box, block: Block, x: float, y: float) -> Iterator[str]:
    """Draw a box, what stands beside it on a loop, and what its outlets are called."""
    begin, end = x + block.inlet[0], x + block.inlet[1]
    middle = y + block.height / 2
    yield _rectangle(box, begin, middle, end - begin)
    if box.left:
        yield _rectangle(box.left, begin - _LOOP - box.left.width, middle, box.left.width)
        yield _loop(box.left, begin, -1, middle)
    if box.right:
        yield _rectangle(box.right, end + _LOOP, middle, box.right.width)
        yield _loop(box.right, end, 1, middle)
    for outlet, label in zip(block.outlets, box.labels, strict=True):
        if label:
            place = f'x="{x + outlet + 7:.1f}" y="{y + block.height + 14:.1f}"'
            yield f'<text class="shape" {place}>{_xml(label)}</text>'


def _rectangle(box: _Box, x: float, middle: float, width: float) -> str:
    """Draw one box; its full name shows where the pointer rests on it."""
    top = middle - box.height / 2
    parts = [
        f'<g class="box {box.kind}" data-key="{_xml(box.key)}" data-name="{_xml(box.name)}">'
        f"<title>{_xml(box.name)}</title>"
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{box.height:.1f}" rx="5"/>'
    ]
    y = top + _PADDING / 2
    for line, size, kind in (
        *((line, _TITLE, "title") for line in box.title),
        *((line, _TEXT, "text") for line in box.lines),
    ):
        y += size * _LEADING
        place = f'x="{x + width / 2:.1f}" y="{y - size * 0.4:.1f}"'
        parts.append(f'<text class="{kind}" {place}>{_xml(line)}</text>')
    return "".join(parts) + "</g>"


def _loop(beside: _Box, edge: float, sign: int, middle: float) -> str:
    """Draw the two lines between a box and what stands beside it: there, and back."""
    far, apart = edge + sign * _LOOP, 7.0
    there = f"M{edge:.1f} {middle - apart:.1f}H{far:.1f}"
    back = f"M{far:.1f} {middle + apart:.1f}H{edge:.1f}"
    return (
        f'<path class="loop" data-loop="{_xml(beside.key)}" d="{there}{back}"/>'
        + _arrow(far, middle - apart, sign, 0)
        + _arrow(edge, middle + apart, -sign, 0)
    )


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Write a line: down where x stays, else a curve that begins and ends downwards."""
    (x, y), *others = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for to, below in others:
        if abs(to - x) >= 0.05:
            half = (y + below) / 2
            parts.append(f"C{x:.1f} {half:.1f} {to:.1f} {half:.1f} {to:.1f} {below:.1f}")
        elif below - y >= 0.05:
            if parts[-1][0] == "V":  # goes on straight
                parts.pop()
            parts.append(f"V{below:.1f}")
        x, y = to, below
    return "".join(parts)


def _arrow(x: float, y: float, right: int, down: int) -> str:
    """Draw the head of an arrow that ends here, in the direction given."""
    back, side = 7, 3.5
    corners = (
        (x, y),
        (x - right * back - down * side, y - down * back - right * side),
        (x - right * back + down * side, y - down * back + right * side),
    )
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon class="head" points="{points}"/>'


def _foot(graph: _Graph, boxes: Sequence[_Box], width: float) -> tuple[str, float, float]:
    """Draw the legend and the notes; return them with their width and height."""
    shown = {part.kind for box in boxes for part in (box, box.left, box.right) if part}
    parts, x, y, widest = [], 0.0, _TEXT * 2, 0.0
    for kind, (text, _) in _KINDS.items():
        if kind not in shown:
            continue
        long = _width(text, _TEXT) + 24
        if x and x + long > max(width, 330.0):
            x, y = 0.0, y + _TEXT * 1.8
        parts.append(
            f'<g class="key {kind}"><rect x="{x:.1f}" y="{y - 9:.1f}" width="11" height="11" '
            f'rx="2"/><text class="note" x="{x + 17:.1f}" y="{y:.1f}">{text}</text></g>'
        )
        x += long + 10
        widest = max(widest, x)
    for note in graph.notes:
        for line in _folded(note, max(width, widest, 330.0)):
            y += _TEXT * 1.8
            parts.append(f'<text class="note" x="0" y="{y:.1f}">{_xml(line)}</text>')
            widest = max(widest, _width(line, _TEXT))
    return "\n".join(parts), widest, y + _TEXT


def _folded(note: str, width: float) -> list[str]:
    """Fold a sentence between words, and a word that is too long within."""
    return textwrap.wrap(note, int(width / (_TEXT * _ASPECT)), break_on_hyphens=False)


def _style() -> str:
    root = ".synapse-onnx-graph"
    rules = [
        f"{root} text {{ font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, "
        f"monospace; fill: var(--ink); text-anchor: middle; font-size: {_TEXT:g}px; }}",
        f"{root} .title {{ font-size: {_TITLE:g}px; font-weight: 600; }}",
        f"{root} .plain .title {{ font-weight: 400; font-size: {_TEXT:g}px; }}",
        f"{root} .shape, {root} .note {{ text-anchor: start; fill: var(--soft); }}",
        f"{root} .paper {{ fill: var(--paper); }}",
        f"{root} .line, {root} .loop {{ fill: none; stroke: var(--soft); stroke-width: 1.4; }}",
        f"{root} .loop, {root} .state rect {{ stroke-dasharray: 4 3; }}",
        f"{root} .head {{ fill: var(--soft); }}",
        f"{root} rect {{ fill-opacity: .12; stroke-width: 1.4; }}",
        f"{root} .paper {{ fill-opacity: 1; }}",
    ]
    rules += [
        f"{root} .{kind} rect {{ fill: var(--{colour}); stroke: var(--{colour}); }}"
        for kind, (_, colour) in _KINDS.items()
    ]
    return theme(root) + "\n".join(rules) + "\n"
