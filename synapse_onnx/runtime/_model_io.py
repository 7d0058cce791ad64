"""Inputs, outputs and states of a loaded model: what a session and its streams know of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.guard import read_states
from synapse_onnx.model.layout import LAYOUTS, axes_of, has_time, time_axis

__all__ = ["DTYPES", "ModelIO", "accepted"]

Array = NDArray[Any]

#: ONNX Runtime's names of element types -> NumPy's
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class ModelIO:
    """Inputs, outputs and states of a model.

    Attributes:
        inputs: ONNX Runtime's descriptions (name, type, shape) of the inputs without the states.
        outputs: likewise of the outputs.
        states: of a streaming model, its states as the metadata describe them.
        streaming: whether the model was exported for streaming.
        chunk: number that the steps of a call must be a multiple of, except the last call.
        layout: "NCT", or "TNC" with time first.
    """

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    states: list[dict[str, Any]]
    streaming: bool
    chunk: int
    layout: str

    @classmethod
    def of(cls, session: Any, where: str) -> ModelIO:
        """Read them from an ``onnxruntime.InferenceSession``, whose metadata may be anything.

        Raises:
            ModelError: the metadata are damaged.
        """
        inputs, outputs = session.get_inputs(), session.get_outputs()
        try:
            metadata = session.get_modelmeta().custom_metadata_map
            states = read_states(metadata.get("synapse_onnx.states", "[]"))
            chunk = int(metadata.get("synapse_onnx.chunk", "1"))
            layout = metadata.get("synapse_onnx.layout", "NCT")
            if layout not in LAYOUTS or chunk < 1:
                raise ValueError(layout)
            streaming = json.loads(metadata.get("synapse_onnx.streaming", "false")) is True
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise ModelError(f"{where}: its metadata on states or layout cannot be read") from error
        names = {value.name for value in inputs}
        missing = [state["input"] for state in states if state["input"] not in names]
        if missing:
            raise ModelError(f"{where}: its metadata name a state {missing[0]} that no input has")
        names_out = Counter(value.name for value in outputs)
        # "" is a state that is not returned
        needed = {state["output"] for state in states} - {""} | (
            set(names_out) if states else set()
        )
        wrong = [name for name in sorted(needed) if names_out[name] != 1]
        if wrong:
            raise ModelError(
                f"{where}: {names_out[wrong[0]] or 'no'} outputs are called {wrong[0]!r}, and a "
                f"stream needs one; export the network again"
            )
        carried = {name for state in states for name in (state["input"], state["output"])}
        return cls(
            [value for value in inputs if value.name not in carried],
            [value for value in outputs if value.name not in carried],
            states, streaming, chunk, layout,
        )  # fmt: skip

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, without the states."""
        return tuple(value.name for value in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, without the states."""
        return tuple(value.name for value in self.outputs)

    @property
    def output_sizes(self) -> list[list[Any]]:
        """Sizes of the outputs, time last; a name for an open axis."""
        sizes = [list(value.shape) for value in self.outputs]
        for each in sizes:
            if has_time(len(each)):
                each.append(each.pop(time_axis(self.layout, len(each))))
        return sizes

    @property
    def batched(self) -> list[int]:
        """Indices of the inputs whose first axis is the batch: those with time, if any has time.

        Of a model without, all that have axes.
        """
        ranks = [len(value.shape) for value in self.inputs]
        timed = [i for i, rank in enumerate(ranks) if has_time(rank)]
        return timed or [i for i, rank in enumerate(ranks) if rank]

    def batch_of(self, arrays: Sequence[Array]) -> int:
        """Return the batch size of the inputs of a call; 1 where none has axes."""
        for i in self.batched:
            return int(arrays[i].shape[axes_of(self.layout, arrays[i].ndim)[0]])
        return 1

    def check_count(self, inputs: Sequence[Any]) -> None:
        """Refuse a wrong number of inputs."""
        names = self.input_names
        if len(inputs) != len(names):
            raise InputError(
                f"the network takes {len(names)} input{'s'[: len(names) != 1]} "
                f"({', '.join(names)}), got {len(inputs)}"
            )

    def fresh_states(self, batch: int) -> dict[str, Array]:
        """Return the initial states of a batch of sequences, by the name of the graph's input."""
        return {
            state["input"]: np.full(
                (batch, *state["shape"][1:]), state["start"], dtype=np.dtype(state["dtype"])
            )
            for state in self.states
        }

    def no_steps(self, batch: int) -> list[Array]:
        """Return outputs (N, C[, H, W], 0) of no time step, in the graph's types.

        An output without time has no samples then.
        """
        results = []
        for info in self.outputs:
            axes = axes_of(self.layout, len(info.shape))
            sizes = [
                size if isinstance(size, int) else 1
                for axis, size in enumerate(info.shape)
                if axis not in axes
            ]
            shape = [batch, *sizes, 0] if has_time(len(info.shape)) else [0, *sizes]
            results.append(np.zeros(shape, dtype=DTYPES[info.type]))
        return results


def accepted(info: Any, value: ArrayLike) -> Array:
    """Return an array in the type of a graph's input.

    Args:
        info: ONNX Runtime's description of the input: name, type and shape.
        value: integers and booleans are cast where no value is lost, and floats to integers; other
            floats are rounded.

    Raises:
        InputError: values that the type cannot hold.
        ShapeError: wrong rank or size, or no element.
    """
    array = np.asarray(value)
    dtype = DTYPES.get(info.type)
    if dtype is not None and array.dtype != dtype:
        if array.dtype.kind not in "biuf":
            raise InputError(f"input {info.name}: expected numbers, got {array.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(dtype)
        rounds = array.dtype.kind == "f" and cast.dtype.kind == "f"
        if not rounds and not np.array_equal(cast, array):
            raise InputError(
                f"input {info.name}: values of type {array.dtype} do not fit {cast.dtype}"
            )
        array = cast
    shape = info.shape
    if array.ndim != len(shape):
        raise ShapeError(
            f"input {info.name}: expected {len(shape)} axes {shape_text(shape)}, "
            f"got shape {array.shape}"
        )
    for size, expected in zip(array.shape, shape, strict=True):
        if isinstance(expected, int) and size != expected:
            raise ShapeError(
                f"input {info.name}: expected shape {shape_text(shape)}, got {array.shape}"
            )
    if array.size == 0:
        raise ShapeError(f"input {info.name}: the array is empty, of shape {array.shape}")
    return np.asarray(array, order="C")  # ascontiguousarray gives a number an axis
