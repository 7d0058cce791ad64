"""The boxes and lines of a model's graph, not yet placed.

Left out are constants and the nodes that only compute sizes: they make the states that a sequence
starts from. States of a stream and the feedback of a recurrent neuron are side boxes of their node.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import onnx

from synapse_onnx.formatting import scale_text, shape_text, span_text, weights_text
from synapse_onnx.model.graph import DOMAIN, dims_of, ends_of, taken_by
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.report._boxes import COLUMNS, Box, packed, wrapped
from synapse_onnx.report._ops import SYNAPSES, base_op, weights_of

if TYPE_CHECKING:
    from synapse_onnx.report.activity import Activity

#: operators that return the size of a value, not the value, or depend on no input at all
_SIZES = ("Constant", "Shape", "Size")


class Diagram:
    """Boxes and lines of a model.

    Args:
        model: any model.
        activity: what it did with an input, whose rates are written into the boxes; or None.

    Attributes:
        boxes: every box, by its key.
        lines: (key of the box that returns it, value, key of the box that takes it).
        notes: sentences on what is not drawn.
    """

    def __init__(self, model: onnx.ModelProto, activity: Activity | None) -> None:
        self.model = model = without_tiles(model)
        self.boxes: dict[str, Box] = {}
        self.lines: list[tuple[str, str, str]] = []
        self.notes: list[str] = []
        self._metadata = Metadata.find(model)
        self._layers = {str(layer["path"]): layer for layer in self._described("layers")}
        self._rates = _rates(activity)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
        self._nodes = {f"node:{i}": node for i, node in enumerate(model.graph.node)}
        self._takes = {key: list(dict.fromkeys(taken_by(n))) for key, n in self._nodes.items()}
        self._build()

    def _described(self, what: str) -> tuple[Mapping[str, Any], ...]:
        return getattr(self._metadata, what) if self._metadata else ()

    def _build(self) -> None:
        graph = self.model.graph
        sizes = self._only_sizes()
        nodes = {key: node for key, node in self._nodes.items() if key not in sizes}
        makers = {name: key for key, node in nodes.items() for name in node.output if name}
        self.boxes |= {key: self._node(key, node) for key, node in nodes.items()}
        loops = self._loops(makers)
        for value in graph.input:
            if value.name not in self._tensors and value.name not in loops:
                makers[value.name] = self._end("input", value.name)
        for key in nodes:
            self._lines_to(key, (name for name in self._takes[key] if name not in loops), makers)
        for value in graph.output:
            if value.name not in loops.values():
                self._lines_to(self._end("output", value.name), [value.name], makers)
        self._label_lines()
        self._note_what_is_missing(len(sizes))

    def _lines_to(self, key: str, names: Iterable[str], makers: Mapping[str, str]) -> None:
        self.lines += [(makers[name], name, key) for name in names if name in makers]

    def _label_lines(self) -> None:
        """Write shapes beside the lines, of those values whose shape the file states or implies."""
        texts = _type_texts(self.model.graph)
        if any(value not in texts for _, value, _ in self.lines):
            # a model that is too large, or wrong, is drawn without shapes
            with contextlib.suppress(RuntimeError, ValueError):
                texts = _type_texts(onnx.shape_inference.infer_shapes(self.model).graph) | texts
        for source, value, _ in self.lines:
            self.boxes[source].labels[value] = texts.get(value, "")

    def _note_what_is_missing(self, sizes: int) -> None:
        if sizes:
            self.notes.append(f"not drawn: {sizes} operators that give only sizes and first states")
        parts = (part for box in self.boxes.values() for part in box.parts)
        drawn = {holder for part in parts for holder in _enclosing(part.name)}
        for path in self._layers:
            if path not in drawn:
                self.notes.append(f"not drawn: {path or 'the model'} left nothing to compute")

    def _end(self, side: str, name: str) -> str:
        """Add the box of an input or output of the model; return its key."""
        key = f"{side}:{name}"
        states = self._described("states")
        is_state = any(name in (state["input"], state["output"]) for state in states)
        kind, what = ("state", f"state, {side}") if is_state else ("end", side)
        self.boxes[key] = Box(key, name, kind, wrapped(name), [what])
        return key

    def _only_sizes(self) -> set[str]:
        """Return the nodes whose values come from sizes and constants alone, and go nowhere else.

        What comes out at the end of the model is always drawn, and so is a layer.
        """
        makers: dict[str, str] = {}
        for key, node in self._nodes.items():
            takes = self._takes[key]
            constant = takes and all(name in makers or name in self._tensors for name in takes)
            if node.domain != DOMAIN and (constant or node.op_type in _SIZES):
                makers |= dict.fromkeys(node.output, key)
        waiting = [value.name for value in self.model.graph.output]
        shown = set[str]()
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is not None and maker not in shown:
                shown.add(maker)
                waiting += self._takes[maker]
        return set(makers.values()) - shown

    def _loops(self, makers: Mapping[str, str]) -> dict[str, str]:
        """Attach states to the node that takes and returns them.

        Returns:
            Name of a state's input -> name of its output, of those that are drawn so.
        """
        takers = defaultdict[str, list[str]](list)
        for key, takes in self._takes.items():
            for name in takes:
                takers[name].append(key)
        loops: dict[str, str] = {}
        for state in self._described("states"):
            into, out = str(state["input"]), str(state["output"])
            box = self.boxes.get(makers.get(out, ""))
            if box is None or takers[into] != [box.key] or takers[out]:
                continue  # other nodes lie between: it has boxes of its own above and below
            loops[into] = out
            if box.right is None:
                box.right = Box(f"states:{box.key}", f"{box.name} (states)", "state", ["states"])
            name = into.removeprefix(f"{box.name}.")
            what = f"{state['dtype']} {shape_text(['N', *state['shape'][1:]])}"
            box.right.lines += wrapped(name) if len(name) > COLUMNS // 2 else []
            box.right.lines.append(what if len(name) > COLUMNS // 2 else f"{name} {what}")
        return loops

    def _node(self, key: str, node: onnx.NodeProto) -> Box:
        number = key.removeprefix("node:")
        name = node.name or next(iter(node.output), f"#{number}")
        if node.domain != DOMAIN:
            title = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            sizes = [list(self._tensors[n].dims) for n in node.input if n in self._tensors]
            texts = [weights_text(size) for size in sizes if len(size) > 1]
            return Box(key, name, "plain", wrapped(title), packed(texts))
        path = layer_of(node) or name
        facts = next((self._layers[h] for h in _enclosing(path) if h in self._layers), {})
        texts = [node.op_type, *_fact_texts(facts)]
        lines = packed(texts) + self._rates[path, node.op_type]
        box = Box(key, path, self._kind(node, facts), wrapped(path), lines)
        box.left = self._feedback(number, node, path)
        return box

    def _kind(self, node: onnx.NodeProto, facts: Mapping[str, Any]) -> str:
        base = base_op(node)
        if base in SYNAPSES:
            return "synapse"
        if base == "Delay":
            return "delay"
        _, outputs = ends_of(node, self._functions)
        return "neuron" if "regime" in facts or "s" in outputs else "layer"

    def _feedback(self, number: str, node: onnx.NodeProto, path: str) -> Box | None:
        """Return the synapse through which a recurrent neuron sees its own spikes."""
        inputs, _ = ends_of(node, self._functions)
        if "spikes" not in inputs:
            return None
        weights = weights_of(inputs)
        holders = (h for name in weights for h in _enclosing(name) if h and h in self._layers)
        name = next(holders, "")
        if not name or name in _enclosing(path):  # no layer of its own
            name = f"{path} (feedback)"
        texts = _fact_texts(self._layers.get(name, {})) or [
            f"weights {weights_text(self._tensors[n].dims)}" for n in weights if n in self._tensors
        ]
        lines = packed(["feedback", *texts]) + self._rates[f"{path} (feedback)", node.op_type]
        return Box(f"feedback:{number}", name, "synapse", wrapped(name), lines)


def _enclosing(name: str) -> Iterator[str]:
    """A name, and those of the modules that hold it, the innermost first; the model is ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _type_texts(graph: onnx.GraphProto) -> dict[str, str]:
    """Write the shapes that a graph states, and types where they are not float."""
    texts = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            # a name that onnx made up, unk__3, says no more than that the size is open
            shape = [
                size if isinstance(size, int) else re.sub(r"^unk__\d+$", "?", size)
                for size in dims_of(value)
            ]
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            suffix = f" {kind}" if kind not in ("float", "undefined") else ""
            texts[value.name] = shape_text(shape) + suffix
    return texts


def _rates(activity: Activity | None) -> defaultdict[tuple[str, str], list[str]]:
    """Layer and op -> what an input did there."""
    texts = defaultdict[tuple[str, str], list[str]](list)
    if activity is not None:
        for synapse in activity.synapses:
            texts[synapse.layer, synapse.op] = [
                f"{synapse.rate:.2%} events in, {synapse.synops:,} SynOps"
            ]
        for neuron in activity.neurons:
            texts[neuron.layer, neuron.op] = [f"{neuron.rate:.2%} spikes out"]
    return texts


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
