"""The folder of a page: the model with its spikes as outputs, its description, and the site."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from synapse_onnx.deploy.play._runtime import PROGRAM, SCRIPT, VERSION, find_runtime
from synapse_onnx.deploy.play._show import LARGEST_SAMPLES, Sample, Show, pack
from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.files import write_folder
from synapse_onnx.model.graph import DOMAIN, dims_of, ends_of, with_outputs
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.model.operators import operator_of

__all__ = ["LARGEST", "Description", "page_files", "write_page"]

#: default bound on the size of a model, in bytes: a browser holds several copies of it while it
#: loads, and a tab has 4 GiB at most
LARGEST = 256 << 20

#: files that are the same for every model
_SITE = Path(__file__).parent / "site"

#: names of the model's file and of its description, and what marks a description as one of ours
_MODEL, _DESCRIPTION, _MAKER = "model.onnx", "model.json", "synapse-onnx play"

#: element types that a page can write and read
_TYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")

#: suffix of the outputs that show the spikes of a layer
_SHOWN = "/shown"

#: most operators between a neuron and an output that only copy its spikes
_COPIES = 16


def page_files(
    model: onnx.ModelProto,
    name: str,
    *,
    samples: Sequence[Sample] = (),
    labels: Sequence[str] = (),
    largest: int = LARGEST,
) -> dict[str, bytes | Path]:
    """Return the files of a page, by name.

    Args:
        model: a model that was exported with ``streaming=True``.
        name: name of the model; its title on the page if the model has none.
        samples: inputs to choose from; they come before those in the model.
        labels: names of the first output's channels, instead of those in the model.
        largest: bound on the size of the model, in bytes.

    Raises:
        ModelError: the model was not written by synapse-onnx.
        InputError: it is not streaming, or too large, or there is no onnxruntime-web.
        ShapeError: a sample does not fit an input, or an input has no known size.
    """
    metadata = Metadata.read(model)
    if not metadata.streaming:
        raise InputError(
            "the model was not exported for streaming, and a page goes step by step; export it "
            "with --streaming, in Python export(..., streaming=True)"
        )
    size = model.ByteSize()
    if size > largest:
        raise InputError(
            f"the model has {size / 1e6:,.1f} MB, and a browser is given {largest / 1e6:,.1f} at "
            f"most; --max-size allows more"
        )
    runtime = find_runtime()
    show = Show.read(model)
    try:
        description = Description(model, metadata)
        shown = description.model()
        document = description.document(name, show, samples, labels)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError | ModelError | ShapeError):
            raise
        # a node of our domain without the attributes or shapes of ours; the class of the error
        # depends on what is missing
        raise ModelError("a layer of the model is not one that synapse-onnx writes") from error
    Show.remove(shown)
    paths = [*sorted(_SITE.iterdir()), runtime / SCRIPT, runtime / PROGRAM]
    return {
        **{path.name: path for path in paths if path.is_file()},
        _MODEL: shown.SerializeToString(deterministic=True),
        _DESCRIPTION: json.dumps(document, allow_nan=False).encode(),
    }


def write_page(folder: str | os.PathLike[str], files: Mapping[str, bytes | Path]) -> None:
    """Write a page, whole or not at all; an existing page is replaced.

    Raises:
        InputError: the folder cannot be written, or is no page.
    """

    def is_page(existing: Path) -> bool:
        try:
            document = json.loads((existing / _DESCRIPTION).read_text("utf-8"))
            return document["maker"] == _MAKER and set(os.listdir(existing)) <= set(files)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    write_folder(folder, files, is_page)


class Description:
    """Everything that a page needs to know of a model."""

    def __init__(self, model: onnx.ModelProto, metadata: Metadata) -> None:
        self._model, self._metadata = model, metadata
        graph = model.graph
        hidden = metadata.carried | {tensor.name for tensor in graph.initializer}
        self._inputs = [value for value in graph.input if value.name not in hidden]
        self._outputs = [value for value in graph.output if value.name not in hidden]
        if not self._inputs:
            raise ModelError("the model has no input, and a page would show nothing")
        self._spikes = self._find_spikes()

    def _find_spikes(self) -> dict[str, tuple[str, list[int | str]]]:
        """Return layer -> (name of its spikes, their shape without time and batch)."""
        graph = self._model.graph
        values = (*graph.value_info, *graph.input, *graph.output)
        shapes = {value.name: dims_of(value)[2:] for value in values}
        functions = {f.name: f for f in self._model.functions if f.domain == DOMAIN}
        spikes: dict[str, tuple[str, list[int | str]]] = {}
        for node in graph.node:
            _, outputs = ends_of(node, functions)
            if "s" not in outputs:
                continue
            shape = shapes.get(outputs["s"], [])
            if not shape or any(isinstance(size, str) for size in shape):
                continue  # another tool removed the shapes: no raster for this layer
            path = layer_of(node) or node.name or outputs["s"]
            while path in spikes:  # a layer that is called twice
                path += "'"
            spikes[path] = outputs["s"], shape
        return spikes

    def model(self) -> onnx.ModelProto:
        """Return the model with the spikes of its layers as additional outputs."""
        return with_outputs(
            self._model, {value: value + _SHOWN for value, _ in self._spikes.values()}
        )

    def document(
        self, name: str, show: Show, samples: Sequence[Sample], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Return the description."""
        inputs = [self._end(value) for value in self._inputs]
        for end in inputs:
            if None in end["shape"]:
                raise ShapeError(
                    f"input {end['name']} has no known size, so a page cannot draw it; export the "
                    f"model with fixed sizes but for batch and time"
                )
        outputs = [self._end(value) for value in self._outputs]
        wave = None
        if show.wave is not None:
            sounds = [{"name": n, "begin": b, "end": e} for n, (b, e) in show.wave.sounds.items()]
            wave = vars(show.wave) | {"sounds": sounds}
        every = list(samples)
        if len(inputs) == 1:
            every += [Sample(title, (values,)) for title, values in show.samples.items()]
        total = sum(values.size for sample in every for values in sample.values)
        if total > LARGEST_SAMPLES:
            raise InputError(
                f"the samples have {total:,} values, and a page takes {LARGEST_SAMPLES:,} at most; "
                f"give fewer or shorter ones"
            )
        return {
            "maker": _MAKER,
            "name": name,
            "title": show.title or name,
            "text": show.text,
            "file": _MODEL,
            "bytes": self._model.ByteSize(),
            "version": self._metadata.version,
            "runtime": VERSION,
            "regime": self._metadata.regime,
            "exact": all(output["name"] in self._metadata.exact for output in outputs),
            "layout": self._metadata.layout,
            "batch": self._fixed(0, 1),
            "steps": self._fixed(1, self._metadata.chunk),
            "inputs": inputs,
            "outputs": outputs,
            "states": [
                {
                    "input": state["input"],
                    "output": state["output"],
                    "type": _known(state["dtype"], state["input"]),
                    "shape": state["shape"][1:],
                    "start": state["start"],
                }
                for state in self._metadata.states
            ],
            "layers": self._layers(),
            "labels": list(labels or show.labels),
            "decode": show.decode or self._decode(),
            "window": show.window,
            "period": show.period,
            "bump": show.bump,
            "wave": wave,
            "samples": [
                {"name": sample.name, "values": self._packed(sample, inputs)} for sample in every
            ],
        }

    def _end(self, value: onnx.ValueInfoProto) -> dict[str, Any]:
        sizes = dims_of(value)
        batch, time = axes_of(self._metadata.layout, len(sizes))
        inner = [size for axis, size in enumerate(sizes) if axis not in (batch, time)]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        return {
            "name": value.name,
            "type": _known(np.dtype(kind).name, value.name),
            "shape": [size if isinstance(size, int) else None for size in inner],
            "timed": time is not None,
        }

    def _fixed(self, number: int, default: int) -> int:
        """Return the size of the axis of batch (0) or time (1) that the model is fixed to."""
        for sizes in map(dims_of, self._inputs):
            axis = axes_of(self._metadata.layout, len(sizes))[number]
            if axis is not None and isinstance(size := sizes[axis], int):
                return size
        return default

    def _decode(self) -> str:
        """Return how to read a class: "count" if the first output is spikes, else "last"."""
        producers = {name: node for node in self._model.graph.node for name in node.output}
        name = self._outputs[0].name if self._outputs else ""
        spikes = {value for value, _ in self._spikes.values()}
        for _ in range(_COPIES):  # back through the operators after the neuron
            if name in spikes:
                return "count"
            node = producers.get(name)
            if node is None or not _keeps_spikes(node):
                break
            name = node.input[0]
        return "last"

    def _layers(self) -> list[dict[str, Any]]:
        """Return the layers that spike or keep a state, in the order of the graph."""
        known = {str(layer["path"]): layer for layer in self._metadata.layers}
        entries: dict[str, dict[str, Any]] = {}

        def entry_of(path: str) -> dict[str, Any]:
            layer = known.get(path, {})
            threshold, scale = layer.get("threshold"), layer.get("scale", 1)
            entry: dict[str, Any] = {
                "path": path,
                "kind": str(layer.get("kind", "")),
                "threshold": threshold if isinstance(threshold, int | float) else None,
                "scale": scale if isinstance(scale, int | float) and scale > 0 else 1,
                "values": None,
                "shape": [],
                "states": [],
            }
            return entries.setdefault(path, entry)

        # layers that spike, in the order of the graph, then those that only keep a state
        for part, (value, shape) in self._spikes.items():
            path = _owner(part, known)
            if path in entries:  # two parts of one layer spike: each gets its own raster
                path = part
            entry = entry_of(path)
            entry["values"], entry["shape"] = value + _SHOWN, shape
        for state in self._metadata.states:
            part, _, key = str(state["input"]).rpartition(".")
            entry = entry_of(_owner(part, known))
            integers = np.dtype(state["dtype"]).kind == "i"
            entry["states"].append(
                {
                    "name": key,
                    "output": state["output"],
                    "neurons": math.prod(state["shape"][1:]),
                    # integers count in units of 1 / scale
                    "unit": 1 / entry["scale"] if integers else 1,
                }
            )
        return list(entries.values())

    def _packed(self, sample: Sample, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if len(sample.values) != len(inputs):
            raise InputError(
                f"sample {sample.name} has {len(sample.values)} arrays, and the model takes "
                f"{', '.join(str(end['name']) for end in inputs)}"
            )
        packed = []
        for values, end in zip(sample.values, inputs, strict=True):
            inner = values.shape[:-1] if end["timed"] else values.shape
            if list(inner) != end["shape"] or (end["timed"] and values.shape[-1] == 0):
                wanted = ", ".join([*map(str, end["shape"]), *["T"] * end["timed"]])
                raise ShapeError(
                    f"sample {sample.name}: input {end['name']} takes ({wanted}), got "
                    f"{values.shape}"
                )
            packed.append(pack(values))
        return packed


def _keeps_spikes(node: onnx.NodeProto) -> bool:
    """Whether a node only copies the spikes of its first input; a Cast may make them integers."""
    operator = operator_of(node)
    return (operator.copies and not operator.joins) or node.op_type == "Cast"


def _owner(part: str, known: Mapping[str, Any]) -> str:
    """Return the layer that a part belongs to: the longest known path above it."""
    inside = [path for path in known if part == path or part.startswith(f"{path}." if path else "")]
    return max(inside, key=len, default=part)


def _known(kind: str, name: str) -> str:
    if kind not in _TYPES:
        raise InputError(f"{name} is of type {kind}, which no page can feed or read")
    return kind
