"""A model for NVIDIA Triton Inference Server: a folder with the file and its configuration.

A graph of whole sequences is batched dynamically. A streaming graph gets Triton's sequence batcher
with implicit state: the server keeps the states of every sequence and hands them on from request to
request, and a client sends inputs alone. Source: Triton's ``model_config.proto`` and its pages on
model configuration and implicit state.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.files import write_folder
from synapse_onnx.model.graph import with_outputs
from synapse_onnx.model.metadata import Metadata

if TYPE_CHECKING:
    import onnx

__all__ = ["Batching", "Written", "write_repository"]

#: types of ONNX's tensors as Triton calls them
_TYPES = {
    1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 4: "TYPE_UINT16", 5: "TYPE_INT16",
    6: "TYPE_INT32", 7: "TYPE_INT64", 9: "TYPE_BOOL", 10: "TYPE_FP16", 11: "TYPE_FP64",
}  # fmt: skip

#: folder of initial states, as Triton names it
_INITIAL = "initial_state"


@dataclass(frozen=True)
class Written:
    """A model in a repository.

    Attributes:
        path: its folder.
        batched: whether requests, or sequences, are put together.
        states: of a stream, how many states the server keeps for a sequence; else None.
        chunk: of a stream, the number that the steps of a request must be a multiple of.
    """

    path: Path
    batched: bool
    states: int | None
    chunk: int = 1


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        largest: most samples in a call of the model.
        delay: microseconds that a request may wait for others to join it.
        idle: of a stream, seconds after which the server forgets a sequence that nothing came for.
        sequences: of a stream, sequences that are kept at a time; others wait.
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
    """Write a model into a repository of Triton's, whole or not at all.

    ``folder/name`` then holds ``config.pbtxt``, ``1/model.onnx`` and, for a stream with states that
    do not begin at zero, their values.

    Args:
        model: a model that ``export`` wrote.
        folder: the repository, a folder that is made if need be.
        name: what clients call the model: letters, digits, ``_``, ``-`` and ``.``.
        batching: how requests are put together.

    Raises:
        InputError: the name is no such, a model of that name is there, or the folder cannot be
            written.
        ModelError: the model is not one of ours, or has a tensor that Triton does not take.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"a model's name may have letters, digits, '_', '-' and '.', and got {name!r}"
        )
    metadata = Metadata.read(model)
    model, metadata = _in_order(model, metadata)
    border = _Border(model, metadata)
    files = _files(model, border, _config(border, name, batching or Batching()))
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
    return Written(target / name, border.batched, states, metadata.chunk)


def _files(model: onnx.ModelProto, border: _Border, config: str) -> dict[str, bytes]:
    starts = {
        f"{_INITIAL}/{i}": border.start_of(state)
        for i, state in enumerate(border.metadata.states)
        if state["start"]
    }
    return {"config.pbtxt": config.encode(), "1/model.onnx": model.SerializeToString(), **starts}


def _in_order(model: onnx.ModelProto, metadata: Metadata) -> tuple[onnx.ModelProto, Metadata]:
    """Return the model with states whose inputs and outputs are in one alphabetical order.

    Triton keeps both in sorted tables and pairs them by their places there, whatever the
    configuration says of them (``SequenceStates::OutputState`` in its ``sequence_state.cc``).
    """
    states = sorted(metadata.states, key=lambda state: str(state["input"]))
    outputs = [str(state["output"]) for state in states]
    if outputs == sorted(outputs):
        return model, metadata
    taken = {value.name for value in (*model.graph.input, *model.graph.output)}
    prefix = "state"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    digits = len(str(len(states)))
    names = {name: f"{prefix}{i:0{digits}}" for i, name in enumerate(outputs)}
    renamed = with_outputs(model, names)
    kept = [value for value in renamed.graph.output if value.name not in names]
    del renamed.graph.output[:]
    renamed.graph.output.extend(kept)
    found = replace(
        metadata,
        states=tuple({**s, "output": names[str(s["output"])]} for s in metadata.states),
    )
    found.write(renamed)
    return renamed, found


class _Border:
    """Inputs, outputs and states of a model, as their dimensions stand in a configuration."""

    def __init__(self, model: onnx.ModelProto, metadata: Metadata) -> None:
        self.metadata = metadata
        carried = metadata.carried
        graph = model.graph
        held = {tensor.name for tensor in graph.initializer}
        self.inputs = [v for v in graph.input if v.name not in carried and v.name not in held]
        self.outputs = [v for v in graph.output if v.name not in carried]
        #: whether a first axis of its own lets samples be put together and taken apart
        self.batched = metadata.layout == "NCT" and all(
            _sizes(value)[:1] == ["N"] for value in (*self.inputs, *self.outputs)
        )

    def tensor(self, value: onnx.ValueInfoProto) -> list[str]:
        """Return the lines of an input or an output."""
        sizes = _sizes(value)
        if self.batched:
            sizes = sizes[1:]
        kind = _TYPES.get(value.type.tensor_type.elem_type)
        if kind is None:
            raise ModelError(f"Triton has no type for {value.name}")
        lines = [f"name: {_quoted(value.name)}", f"data_type: {kind}"]
        if not sizes:  # it takes no tensor without a dimension of its own
            return [*lines, "dims: [ 1 ]", "reshape: { shape: [ ] }"]
        return [*lines, _dims([size if isinstance(size, int) else -1 for size in sizes])]

    def state_shape(self, state: Mapping[str, Any]) -> list[int]:
        """Return a state's dimensions: of one sample, without its batch where that is apart."""
        shape = [1 if size is None else int(size) for size in state["shape"]]
        return shape[1:] if self.batched else shape

    def start_of(self, state: Mapping[str, Any]) -> bytes:
        """Return the values that a state begins with."""
        shape = self.state_shape(state)
        return np.full(shape, state["start"], dtype=str(state["dtype"])).tobytes()

    def state(self, number: int, state: Mapping[str, Any]) -> list[str]:
        """Return the lines of a state, whose values stand in a file of that number."""
        shape = self.state_shape(state)
        if not shape:
            raise ModelError(
                f"Triton takes no state without a dimension of its own, as {state['input']} is"
            )
        kind = f"data_type: {_TYPES[_elem_type(str(state['dtype']))]}"
        # the server holds a state's open batch against the file, and begins with one sample
        opened = [-1 if size is None else int(size) for size in state["shape"]][-len(shape) :]
        data = f"data_file: {_quoted(str(number))}" if state["start"] else "zero_data: true"
        return [
            f"input_name: {_quoted(str(state['input']))}",
            f"output_name: {_quoted(str(state['output']))}",
            kind,
            _dims(opened),
            *_block(
                "initial_state",
                [f"name: {_quoted(str(state['input']))}", kind, _dims(shape), data],
            ),
        ]


def _config(border: _Border, name: str, batching: Batching) -> str:
    metadata = border.metadata
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batching.largest if border.batched else 0}",
    ]
    for value in border.inputs:
        lines += _block("input", border.tensor(value))
    for value in border.outputs:
        lines += _block("output", border.tensor(value))
    delay = f"max_queue_delay_microseconds: {batching.delay}"
    if metadata.streaming:
        inner = [f"max_sequence_idle_microseconds: {math.ceil(batching.idle * 1e6)}"]
        oldest = [f"max_candidate_sequences: {batching.sequences}", delay]
        inner += _block("oldest", oldest)
        for i, state in enumerate(metadata.states):
            inner += _block("state", border.state(i, state))
        lines += _block("sequence_batching", inner)
    elif border.batched:
        lines += _block("dynamic_batching", [delay])
    # equal spikes are proved on the processor
    lines += _block("instance_group", ["kind: KIND_CPU", "count: 1"])
    return "\n".join(lines) + "\n"


def _block(name: str, lines: Iterable[str]) -> list[str]:
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def _dims(sizes: Iterable[int]) -> str:
    return f"dims: [ {', '.join(map(str, sizes))} ]"


def _quoted(text: str) -> str:
    """Return a text as protobuf's text format has it."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{escaped}"'


def _elem_type(dtype: str) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    dims: Sequence[Any] = value.type.tensor_type.shape.dim
    return [int(d.dim_value) if d.HasField("dim_value") else str(d.dim_param) for d in dims]
