"""The description of a model for its page: ``model.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from synapse_onnx.deploy.play._runtime import VERSION
from synapse_onnx.deploy.play._samples import Sample
from synapse_onnx.deploy.play._show import LARGEST_SAMPLES, Show, Wave, pack
from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.model.graph import DOMAIN, ends_of, with_outputs
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.model.operators import operator_of

__all__ = ["MAKER", "MODEL", "Description"]

#: marks a description as one of ours
MAKER = "synapse-onnx play"

#: name of the model's file in the folder of the page
MODEL = "model.onnx"

#: element types that a page can write and read
_TYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")

#: suffix of the outputs that show the spikes of a layer
_SHOWN = "/shown"

#: most operators between a neuron and an output that only copy its spikes
_COPIES = 16


class Description:
    """Everything that a page needs to know of a model."""

    def __init__(self, model: onnx.ModelProto, metadata: Metadata) -> None:
        self._model, self._metadata = model, metadata
        graph = model.graph
        self._values = {
            value.name: value for value in (*graph.value_info, *graph.input, *graph.output)
        }
        hidden = metadata.carried | {tensor.name for tensor in graph.initializer}
        self._inputs = [value for value in graph.input if value.name not in hidden]
        self._outputs = [value for value in graph.output if value.name not in hidden]
        if not self._inputs:
            raise ModelError("the model has no input, and a page would show nothing")
        self._spikes = self._find_spikes()

    def _find_spikes(self) -> dict[str, tuple[str, list[int]]]:
        """Return layer -> (name of its spikes, their shape without time and batch)."""
        functions = {f.name: f for f in self._model.functions if f.domain == DOMAIN}
        spikes: dict[str, tuple[str, list[int]]] = {}
        for node in self._model.graph.node:
            _, outputs = ends_of(node, functions)
            if "s" not in outputs:
                continue
            value = self._values.get(outputs["s"])
            sizes = _sizes(value)[2:] if value is not None else []
            shape = [size for size in sizes if size is not None]
            if not shape or len(shape) < len(sizes):
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
        inputs = [self._input(value) for value in self._inputs]
        outputs = [self._end(value) for value in self._outputs]
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
            "maker": MAKER,
            "name": name,
            "title": show.title or name,
            "text": show.text,
            "file": MODEL,
            "bytes": self._model.ByteSize(),
            "version": self._metadata.version,
            "runtime": VERSION,
            "regime": self._metadata.regime,
            "exact": all(output["name"] in self._metadata.exact for output in outputs),
            "layout": self._metadata.layout,
            "batch": self._batch(),
            "steps": self._steps(),
            "inputs": inputs,
            "outputs": outputs,
            "states": [_state(state) for state in self._metadata.states],
            "layers": self._layers(),
            "labels": list(labels or show.labels),
            "decode": show.decode or self._decode(),
            "window": show.window,
            "period": show.period,
            "bump": show.bump,
            "wave": None if show.wave is None else _wave(show.wave),
            "samples": [
                {"name": sample.name, "values": self._packed(sample, inputs)} for sample in every
            ],
        }

    def _end(self, value: onnx.ValueInfoProto) -> dict[str, Any]:
        sizes = _sizes(value)
        batch, time = axes_of(self._metadata.layout, len(sizes))
        inner = [size for axis, size in enumerate(sizes) if axis not in (batch, time)]
        kind = value.type.tensor_type.elem_type
        name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name
        return {
            "name": value.name,
            "type": _known(name, value.name),
            "shape": [size if isinstance(size, int) else None for size in inner],
            "timed": time is not None,
        }

    def _input(self, value: onnx.ValueInfoProto) -> dict[str, Any]:
        end = self._end(value)
        if None in end["shape"]:
            raise ShapeError(
                f"input {value.name} has no known size, so a page cannot draw it; export the model "
                f"with fixed sizes but for batch and time"
            )
        return end

    def _batch(self) -> int:
        """Return the batch that the model was exported with; 1 where it is open."""
        for value in self._inputs:
            sizes = _sizes(value)
            size = sizes[axes_of(self._metadata.layout, len(sizes))[0]]
            if isinstance(size, int):
                return size
        return 1

    def _steps(self) -> int:
        """Return the steps of one call: a whole bin of time, or what the model is fixed to."""
        for value in self._inputs:
            sizes = _sizes(value)
            _, time = axes_of(self._metadata.layout, len(sizes))
            fixed = None if time is None else sizes[time]
            if fixed is not None:
                return fixed
        return self._metadata.chunk

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
        # layers that spike, in the order of the graph, then those that only keep a state
        for part, (value, shape) in self._spikes.items():
            path = _owner(part, known)
            if path in entries:  # two parts of one layer spike: each gets its own raster
                path = part
            entry = self._entry(path, known, entries)
            entry["values"], entry["shape"] = value + _SHOWN, shape
        for state in self._metadata.states:
            part, _, key = str(state["input"]).rpartition(".")
            entry = self._entry(_owner(part, known), known, entries)
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

    @staticmethod
    def _entry(
        path: str, known: Mapping[str, Mapping[str, Any]], entries: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        layer = known.get(path, {})
        threshold, scale = layer.get("threshold"), layer.get("scale", 1)
        return entries.setdefault(
            path,
            {
                "path": path,
                "kind": str(layer.get("kind", "")),
                "threshold": threshold if isinstance(threshold, int | float) else None,
                "scale": scale if isinstance(scale, int | float) and scale > 0 else 1,
                "values": None,
                "shape": [],
                "states": [],
            },
        )

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


def _state(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input": state["input"],
        "output": state["output"],
        "type": _known(state["dtype"], state["input"]),
        "shape": state["shape"][1:],
        "start": state["start"],
    }


def _wave(wave: Wave) -> dict[str, Any]:
    return {
        "sounds": [
            {"name": title, "begin": begin, "end": end}
            for title, (begin, end) in wave.sounds.items()
        ],
        "steps": wave.steps,
        "grid": wave.grid,
        "limit": wave.limit,
    }


def _owner(part: str, known: Mapping[str, Any]) -> str:
    """Return the layer that a part belongs to: the longest known path above it."""
    inside = [path for path in known if part == path or part.startswith(f"{path}." if path else "")]
    return max(inside, key=len, default=part)


def _known(kind: str, name: str) -> str:
    if kind not in _TYPES:
        raise InputError(f"{name} is of type {kind}, which no page can feed or read")
    return kind


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    ]
