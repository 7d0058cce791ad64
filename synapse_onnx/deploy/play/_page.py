"""The files of a page: the model with its spikes shown, a description of it, and what draws it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.deploy.play._runtime import PROGRAM, SCRIPT, VERSION, find_runtime
from synapse_onnx.deploy.play._show import LARGEST_SAMPLES, Show, pack
from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.files import write_folder
from synapse_onnx.model.graph import DOMAIN, ends_of, with_outputs
from synapse_onnx.model.layout import axes_of, time_last
from synapse_onnx.model.metadata import Metadata, layer_of

__all__ = ["LARGEST", "Sample", "page_files", "samples_of", "write_page"]

#: largest model that a page is made of unless the caller says otherwise, in bytes: a browser holds
#: it several times while it loads it, and a tab has 4 GiB at most
LARGEST = 256 << 20

#: files that are the same for every model
_SITE = Path(__file__).parent / "site"
_DESCRIPTION, _MODEL = "model.json", "model.onnx"

#: what a page says of itself, by which it is known again
_MAKER = "synapse-onnx play"

#: element types that a page can feed and read
_TYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")

#: suffix of the outputs that show a value
_SHOWN = "/shown"


@dataclass(frozen=True)
class Sample:
    """An input to choose from.

    Attributes:
        name: what it is called.
        values: one array an input of the model, of one sample, (C[, H, W], T) or without time as
            the input is.
    """

    name: str
    values: tuple[NDArray[Any], ...]


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
        name: what the page calls it where the model says no title.
        samples: inputs to choose from, before those that the model brings.
        labels: names of the first output's channels, in place of those that the model says.
        largest: bytes that the model may have.

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
        described = _Description(model, metadata)
        shown = described.model()
        document = described.document(name, show, samples, labels)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError | ModelError | ShapeError):
            raise
        # nodes that call themselves ours and lack what ours have; which error, by what is missing
        raise ModelError("a layer of the model is not one that synapse-onnx writes") from error
    Show.remove(shown)
    files: dict[str, bytes | Path] = {
        path.name: path for path in sorted(_SITE.iterdir()) if path.is_file()
    }
    files |= {part: runtime / part for part in (SCRIPT, PROGRAM)}
    files[_MODEL] = shown.SerializeToString(deterministic=True)
    files[_DESCRIPTION] = json.dumps(document, allow_nan=False).encode()
    return files


def write_page(folder: str | os.PathLike[str], files: Mapping[str, bytes | Path]) -> None:
    """Write a page, whole or not at all; one that is there already is replaced.

    Raises:
        InputError: the folder cannot be written, or holds something that is no page.
    """

    def is_page(old: Path) -> bool:
        try:
            said = json.loads((old / _DESCRIPTION).read_text("utf-8"))
            return said["maker"] == _MAKER and set(os.listdir(old)) <= set(files)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    write_folder(folder, files, is_page)


class _Description:
    """What a page must know of a model."""

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
        found: dict[str, tuple[str, list[int]]] = {}
        for node in self._model.graph.node:
            _, outputs = ends_of(node, functions)
            if "s" not in outputs:
                continue
            value = self._values.get(outputs["s"])
            sizes = _sizes(value)[2:] if value is not None else []
            shape = [size for size in sizes if size is not None]
            if not shape or len(shape) < len(sizes):
                continue  # no file of ours; it plays without that raster
            path = layer_of(node) or node.name or outputs["s"]
            while path in found:  # a layer that is called twice
                path += "'"
            found[path] = outputs["s"], shape
        return found

    def model(self) -> onnx.ModelProto:
        """Return the model with the spikes of its layers as further outputs."""
        return with_outputs(
            self._model, {value: value + _SHOWN for value, _ in self._spikes.values()}
        )

    def document(
        self, name: str, show: Show, samples: Sequence[Sample], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Return the description."""
        inputs = [self._input(value) for value in self._inputs]
        outputs = [self._end(value) for value in self._outputs]
        given = list(samples)
        if len(inputs) == 1:
            given += [Sample(title, (values,)) for title, values in show.samples.items()]
        total = sum(values.size for sample in given for values in sample.values)
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
            "batch": self._batch(),
            "steps": self._steps(),
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
            "wave": None
            if show.wave is None
            else {
                "sounds": [
                    {"name": title, "begin": begin, "end": end}
                    for title, (begin, end) in show.wave.sounds.items()
                ],
                "steps": show.wave.steps,
                "grid": show.wave.grid,
                "limit": show.wave.limit,
            },
            "samples": [
                {"name": sample.name, "values": self._packed(sample, inputs)} for sample in given
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
        """Count what spikes; of other outputs, the last value counts."""
        makers = {name: node for node in self._model.graph.node for name in node.output}
        name = self._outputs[0].name if self._outputs else ""
        spikes = {value for value, _ in self._spikes.values()}
        for _ in range(16):  # what only moves data stands between the neuron and the border
            if name in spikes:
                return "count"
            node = makers.get(name)
            if node is None or node.op_type not in _MOVES:
                break
            name = node.input[0]
        return "last"

    def _layers(self) -> list[dict[str, Any]]:
        """Return the layers that spike or keep a state, in the order of the graph."""
        known = {str(layer["path"]): layer for layer in self._metadata.layers}
        entries: dict[str, dict[str, Any]] = {}
        # spikes come in the graph's order; a layer that never spikes stands behind them
        for part, (value, shape) in self._spikes.items():
            path = _owner(part, known)
            if path in entries:  # two parts of one layer spike: each has a raster of its own
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


#: operators that move data and compute nothing
_MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")


def _owner(part: str, known: Mapping[str, Any]) -> str:
    """Return the layer that a part belongs to: the longest known path that it lies in."""
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


def samples_of(
    arrays: Sequence[NDArray[Any]], layout: str, name: str, most: int = 64
) -> list[Sample]:
    """Cut arrays of a batch into samples.

    Args:
        arrays: one an input, (N, C[, H, W], T) or (N, C[, H, W]).
        layout: of the arrays.
        name: what the samples are called, with a number behind it where there are several.
        most: samples that are taken at most, the first ones.

    Raises:
        ShapeError: an array without axes, or arrays of different batches.
    """
    views = [time_last(array, layout) for array in arrays]
    numbers = {view.shape[0] if view.ndim else 0 for view in views}
    if len(numbers) != 1 or not min(numbers):
        raise ShapeError(
            f"samples need equally many in every array, one at least; got arrays of shape "
            f"{', '.join(str(array.shape) for array in arrays)}"
        )
    (number,) = numbers
    return [
        Sample(name if number == 1 else f"{name}, {i}", tuple(view[i] for view in views))
        for i in range(min(number, most))
    ]
