"""A model for NVIDIA Triton Inference Server: a folder with the file and its configuration.

Requests to a graph of whole sequences are batched dynamically. A streaming graph gets Triton's
sequence batcher with implicit state: the server keeps the states of every sequence from request to
request, and a client sends only inputs. Source: Triton's ``model_config.proto`` and its pages on
model configuration and implicit state.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.files import write_folder
from synapse_onnx.model.graph import dims_of, with_outputs
from synapse_onnx.model.metadata import Metadata

__all__ = ["Batching", "Written", "write_repository"]

#: ONNX element types -> Triton's names
_TYPES = {
    1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 4: "TYPE_UINT16", 5: "TYPE_INT16",
    6: "TYPE_INT32", 7: "TYPE_INT64", 9: "TYPE_BOOL", 10: "TYPE_FP16", 11: "TYPE_FP64",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A model in a repository.

    Attributes:
        path: its folder.
        batched: whether requests, or sequences, are batched.
        states: number of states that the server keeps for a sequence; None without streaming.
        chunk: for streams, the number that the steps of a request must be a multiple of.
    """

    path: Path
    batched: bool
    states: int | None
    chunk: int = 1


@dataclass(frozen=True)
class Batching:
    """How requests are batched.

    Attributes:
        largest: largest number of samples in one call of the model.
        delay: microseconds that a request may wait to be batched with others.
        idle: for streams, seconds without a request after which the server drops a sequence.
        sequences: for streams, number of sequences kept at a time; others wait.
    """

    largest: int = 32
    delay: int = 500
    idle: float = 60.0
    sequences: int = 1024


def write_repository(
    model: onnx.ModelProto,
    folder: str | os.PathLike[str],
    name: str,
    batching: Batching | None = None,
) -> Written:
    """Write a model into a Triton model repository, whole or not at all.

    ``folder/name`` then holds ``config.pbtxt``, ``1/model.onnx`` and the initial values of states
    that do not start at zero.

    Args:
        model: a model that ``export`` wrote.
        folder: the repository, a folder that is created if it does not exist.
        name: name of the model for clients: letters, digits, ``_``, ``-`` and ``.``.
        batching: how requests are batched.

    Raises:
        InputError: the name has other characters or is in use, or the folder cannot be written.
        ModelError: the model was not written by ``export``, or has a tensor that Triton does not
            support.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"a model's name may have letters, digits, '_', '-' and '.', and got {name!r}"
        )
    model = _in_order(model)
    io = _TritonIO(model)
    metadata = io.metadata
    files = {
        "config.pbtxt": _config(io, name, batching or Batching()).encode(),
        "1/model.onnx": model.SerializeToString(),
    }
    for i, state in enumerate(metadata.states):
        if state["start"]:
            start = np.full(io.state_shape(state), state["start"], dtype=state["dtype"])
            files[f"initial_state/{i}"] = start.tobytes()
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target} cannot be made: {error.strerror or error}") from error
    if os.path.lexists(target / name):
        raise InputError(
            f"{target / name} is there already; remove it, or give the model another name"
        )
    write_folder(target / name, files, lambda _: False)
    states = len(metadata.states) if metadata.streaming else None
    return Written(target / name, io.batched, states, metadata.chunk)


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the outputs of states in the alphabetical order of their inputs.

    Triton keeps inputs and outputs of states in two sorted tables and pairs them by position,
    whatever the configuration says (``SequenceStates::OutputState`` in ``sequence_state.cc``).
    """
    metadata = Metadata.read(model)
    states = sorted(metadata.states, key=lambda state: str(state["input"]))
    outputs = [str(state["output"]) for state in states]
    if outputs == sorted(outputs):
        return model
    taken = {value.name for value in (*model.graph.input, *model.graph.output)}
    prefix = "state"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    digits = len(str(len(states)))
    names = {name: f"{prefix}{i:0{digits}}" for i, name in enumerate(outputs)}
    renamed = with_outputs(model, names)
    for value in [value for value in renamed.graph.output if value.name in names]:
        renamed.graph.output.remove(value)
    described = tuple({**s, "output": names[str(s["output"])]} for s in metadata.states)
    replace(metadata, states=described).write(renamed)
    return renamed


class _TritonIO:
    """Inputs, outputs and states of a model, as a configuration writes them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.metadata = Metadata.read(model)
        carried = self.metadata.carried
        hidden = carried | {tensor.name for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in hidden]
        self.outputs = [value for value in model.graph.output if value.name not in carried]
        #: whether the first axis of every input and output is an open batch
        self.batched = self.metadata.layout == "NCT" and all(
            dims_of(value)[:1] == ["N"] for value in (*self.inputs, *self.outputs)
        )

    def tensor(self, value: onnx.ValueInfoProto) -> list[str]:
        """Return the lines of an input or an output."""
        sizes = dims_of(value)[1 if self.batched else 0 :]
        kind = _TYPES.get(value.type.tensor_type.elem_type)
        if kind is None:
            raise ModelError(f"Triton has no type for {value.name}")
        lines = [f"name: {_quoted(value.name)}", f"data_type: {kind}"]
        if not sizes:  # Triton takes no tensor without dimensions
            return [*lines, "dims: [ 1 ]", "reshape: { shape: [ ] }"]
        return [*lines, _dims([size if isinstance(size, int) else -1 for size in sizes])]

    def state_shape(self, state: Mapping[str, Any]) -> list[int]:
        """Return the dimensions of one sample's state, without the batch if Triton adds it."""
        shape = [1 if size is None else int(size) for size in state["shape"]]
        return shape[1:] if self.batched else shape

    def state(self, number: int, state: Mapping[str, Any]) -> list[str]:
        """Return the lines of a state, whose initial values are in a file of that number."""
        shape = self.state_shape(state)
        if not shape:
            raise ModelError(
                f"Triton takes no state without a dimension of its own, as {state['input']} is"
            )
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(state["dtype"]))
        name, kind = _quoted(str(state["input"])), f"data_type: {_TYPES[elem_type]}"
        # the server compares an open batch with the file, and starts with one sample
        opened = [-1 if size is None else int(size) for size in state["shape"]][-len(shape) :]
        data = f"data_file: {_quoted(str(number))}" if state["start"] else "zero_data: true"
        return [
            f"input_name: {name}",
            f"output_name: {_quoted(str(state['output']))}",
            kind,
            _dims(opened),
            *_block("initial_state", [f"name: {name}", kind, _dims(shape), data]),
        ]


def _config(io: _TritonIO, name: str, batching: Batching) -> str:
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batching.largest if io.batched else 0}",
    ]
    for side, values in (("input", io.inputs), ("output", io.outputs)):
        for value in values:
            lines += _block(side, io.tensor(value))
    delay = f"max_queue_delay_microseconds: {batching.delay}"
    if io.metadata.streaming:
        inner = [f"max_sequence_idle_microseconds: {math.ceil(batching.idle * 1e6)}"]
        inner += _block("oldest", [f"max_candidate_sequences: {batching.sequences}", delay])
        for i, state in enumerate(io.metadata.states):
            inner += _block("state", io.state(i, state))
        lines += _block("sequence_batching", inner)
    elif io.batched:
        lines += _block("dynamic_batching", [delay])
    # spikes are proved equal on the CPU
    lines += _block("instance_group", ["kind: KIND_CPU", "count: 1"])
    return "\n".join(lines) + "\n"


def _block(name: str, lines: Iterable[str]) -> list[str]:
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def _dims(sizes: Iterable[int]) -> str:
    return f"dims: [ {', '.join(map(str, sizes))} ]"


def _quoted(text: str) -> str:
    """Return a string literal of protobuf's text format."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{escaped}"'
