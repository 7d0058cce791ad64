"""A sequence that comes in steps or chunks: its states are kept between the calls."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.files import write_atomically
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.layout import axes_of, has_time, time_first, time_last
from synapse_onnx.model.limits import load_arrays
from synapse_onnx.runtime import providers
from synapse_onnx.runtime._model_io import ModelIO, accepted

__all__ = ["Stream"]


class Stream:
    """A sequence that comes in steps or chunks; made by :meth:`Session.stream`.

    The states stay in ONNX Runtime's memory, on its device, between the calls. However a sequence
    is cut into chunks, the concatenated outputs are those of the whole sequence. A network that
    averages over bins of time returns a bin when it is full, and the rest on :meth:`flush`.

    Attributes:
        batch: number of sequences in parallel.
        steps: time steps since the last full :meth:`reset`.
    """

    def __init__(self, session: Any, io: ModelIO, batch: int) -> None:
        """Start a stream of an ``onnxruntime.InferenceSession``; users call Session.stream."""
        self._session, self._io, self.batch, self.steps = session, io, batch, 0
        self._ort = providers.onnxruntime_module()
        provider = session.get_providers()[0]
        self._device = providers.memory_of(provider)
        #: small calls reuse their bindings; on a GPU, NumPy cannot write to the bound buffers
        self._prepares = not providers.is_gpu(provider)
        self._binding = session.io_binding()
        self._timed = [has_time(len(info.shape)) for info in io.inputs]
        self._states: dict[str, Any] = {}
        #: shapes of the last call's inputs, and bindings for calls with these shapes
        self._shapes: list[tuple[int, ...]] = []
        self._prepared: _Prepared | None = None
        #: steps that wait for the rest of their bin, one array an input
        self._held: list[NDArray[Any]] | None = None
        self.reset()

    def reset(self, items: int | Sequence[int] | None = None) -> None:
        """Start sequences again, from their initial states.

        Args:
            items: index, or indices, of the sequences in the batch; None for all.

        Raises:
            InputError: no such index, or single sequences in the middle of a bin of time, which
                the whole batch shares.
        """
        fresh = self._io.fresh_states(self.batch)
        if items is None:
            self._states = {name: self._value(array) for name, array in fresh.items()}
            self._held, self.steps = None, 0
            return
        chosen = [items] if isinstance(items, int) else list(items)
        wrong = [i for i in chosen if not (isinstance(i, int) and 0 <= i < self.batch)]
        if wrong:
            raise InputError(f"reset: there is no item {wrong[0]} in a batch of {self.batch}")
        if self._held is not None:
            raise InputError(
                f"reset: the batch is within a bin of {self._io.chunk} time steps; reset all "
                f"of it, or wait for the bin's end"
            )
        states = self.states
        for name, start in fresh.items():
            states[name][chosen] = start[chosen]
        self._states = {name: self._value(array) for name, array in states.items()}

    def step(self, *inputs: ArrayLike) -> Any:
        """Run one time step.

        Args:
            inputs: one array an input, (N, C[, H, W]); an input without time keeps its shape.

        Returns:
            The outputs of this step without a time axis, one array or a tuple; None while a bin
            of time is not full. An output that has none is the value after this step.

        Raises:
            InputError, ShapeError, ModelError: see :meth:`Session.run`.
        """
        self._io.check_count(inputs)
        arrays = [np.asarray(value) for value in inputs]
        for info, array, timed in zip(self._io.inputs, arrays, self._timed, strict=True):
            if timed and array.ndim != len(info.shape) - 1:
                _, time = axes_of(self._io.layout, len(info.shape))
                sizes = [size for axis, size in enumerate(info.shape) if axis != time]
                raise ShapeError(
                    f"input {info.name}: a step has {len(sizes)} axes {shape_text(sizes)}, got "
                    f"shape {array.shape}; run() takes a chunk with time"
                )
        if not any(self._timed) and any(sizes[-1:] != [1] for sizes in self._io.output_sizes):
            raise InputError(
                "step: no input of the model has time, and a call returns several steps; use run()"
            )
        results = self._run(self._cut(arrays, np.newaxis))
        if results is None:
            return None
        outputs = [y[..., -1] if has_time(y.ndim) else y for y in results]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, *inputs: ArrayLike) -> Any:
        """Run a chunk of the sequence, of any length.

        Args:
            inputs: one array an input, (N, C[, H, W], T), or (T, N, C[, H, W]) in the layout
                "TNC".

        Returns:
            The outputs of these steps, one array or a tuple; fewer steps, or none, where the
            network averages over bins of time. An output without time is the value after the last
            step.

        Raises:
            InputError, ShapeError, ModelError: see :meth:`Session.run`.
        """
        self._io.check_count(inputs)
        chunk = [time_last(np.asarray(value), self._io.layout) for value in inputs]
        return self._returned(self._run(chunk))

    def flush(self) -> Any:
        """End the sequence: fill the last bin of time with zeros, and reset.

        Returns:
            The outputs of that bin; arrays of no steps if no bin was begun, and of no samples
            where an output has no time.
        """
        results = None if self._held is None else self._call(self._held)
        self.reset()
        return self._returned(results)

    @property
    def states(self) -> dict[str, NDArray[Any]]:
        """Copies of the states, by name, batch first."""
        return {name: value.numpy().copy() for name, value in self._states.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the stream in the middle of its sequence, as an .npz file.

        Raises:
            InputError: the file cannot be written.
        """
        arrays = {f"state:{name}": array for name, array in self.states.items()}
        for name, array in zip(self._io.input_names, self._held or (), strict=False):
            arrays[f"held:{name}"] = array
        data = io.BytesIO()
        np.savez(data, **arrays | {"steps": np.array(self.steps)})  # type: ignore[arg-type]
        write_atomically(path, data.getvalue())

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Continue a saved stream.

        Raises:
            InputError: the file cannot be read, or is not the state of a stream of this network
                and batch; the stream does not change.
        """
        try:
            arrays = load_arrays(path)
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is not the saved state of a stream") from error
        fresh = self._io.fresh_states(self.batch)
        states = {name for name in arrays if name.startswith("state:")}
        held = [arrays[n] for name in self._io.input_names if (n := f"held:{name}") in arrays]
        if (
            states != {f"state:{name}" for name in fresh}
            or len(held) not in (0, len(self._timed))
            or "steps" not in arrays
            or arrays["steps"].shape
            or arrays["steps"].dtype.kind not in "iu"
        ):
            raise InputError(f"{path} is not the saved state of a stream of this network")
        for name, start in fresh.items():
            array = arrays[f"state:{name}"]
            if array.shape != start.shape or array.dtype != start.dtype:
                raise InputError(
                    f"{path}: state {name} is {array.dtype} of shape {array.shape}, and this "
                    f"stream has {start.dtype} of shape {start.shape}"
                )
        self._held = self._accepted(held) if held else None
        self._states = {name: self._value(arrays[f"state:{name}"]) for name in fresh}
        self.steps = int(arrays["steps"])

    # -- inside ------------------------------------------------------------------------------

    def _value(self, array: NDArray[Any]) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

    def _accepted(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return a chunk (N, C[, H, W], T) in the graph's types, or raise what does not fit."""
        infos, layout = self._io.inputs, self._io.layout
        arrays = [
            time_last(accepted(info, time_first(array, layout)), layout)
            for info, array in zip(infos, inputs, strict=True)
        ]
        for info, array in zip(infos, arrays, strict=True):
            batch, _ = axes_of(layout, array.ndim)
            fixed = not array.ndim or isinstance(info.shape[batch], int)  # and compared by now
            if not fixed and array.shape[0] != self.batch:
                raise ShapeError(
                    f"input {info.name}: the stream keeps states for a batch of {self.batch} "
                    f"and got a batch of {array.shape[0]}; open another with "
                    f"stream(batch={array.shape[0]})"
                )
        lengths = {a.shape[-1] for a, t in zip(arrays, self._timed, strict=True) if t}
        if len(lengths) > 1:
            raise ShapeError(
                f"the inputs of a chunk have different numbers of time steps: "
                f"{', '.join(map(str, sorted(lengths)))}"
            )
        return arrays

    def _cut(self, arrays: Sequence[NDArray[Any]], steps: Any) -> list[NDArray[Any]]:
        """Index the last axis of the inputs that have time."""
        return [a[..., steps] if t else a for a, t in zip(arrays, self._timed, strict=True)]

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """Run the steps held back and the new ones, in whole bins; hold the rest back."""
        arrays = self._accepted(inputs)
        if not any(self._timed):  # a call is a chunk of all the steps that the network makes of it
            returned = self._call(arrays)
            self.steps += max(y.shape[-1] for y in returned)
            return returned
        clock = self._timed.index(True)
        new = arrays[clock].shape[-1]
        if self._held is not None:
            arrays = [
                np.concatenate([old, a], axis=-1) if t else a
                for old, a, t in zip(self._held, arrays, self._timed, strict=True)
            ]
        steps = arrays[clock].shape[-1]
        whole = steps // self._io.chunk * self._io.chunk
        results = self._call(self._cut(arrays, slice(whole))) if whole else None
        self.steps += new
        rest = self._cut(arrays, slice(whole, None))
        self._held = None if whole == steps else [a.copy() for a in rest]
        return results

    def _call(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph once; its states replace the old ones if it succeeds."""
        io, layout = self._io, self._io.layout
        inputs = [time_first(array, layout) for array in arrays]
        shapes = [array.shape for array in inputs]
        if self._prepared is not None and self._prepared.shapes == shapes:
            try:
                self._states, results = self._prepared.run(inputs, self._states)
            except Exception as error:
                raise ModelError(f"ONNX Runtime failed: {providers.first_line(error)}") from error
            return [time_last(value, layout) for value in results]
        binding = self._binding
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, array in zip(io.input_names, inputs, strict=True):
            binding.bind_cpu_input(name, np.asarray(array, order="C"))
        for name, value in self._states.items():
            binding.bind_ortvalue_input(name, value)
        for name in io.output_names:
            binding.bind_output(name, "cpu")
        for state in io.states:
            binding.bind_output(state["output"], self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {providers.first_line(error)}") from error
        values = binding.get_outputs()
        count = len(io.output_names)
        self._states = {
            state["input"]: value for state, value in zip(io.states, values[count:], strict=True)
        }
        results = [value.numpy() for value in values[:count]]
        size = sum(array.nbytes for array in (*inputs, *results))
        if self._prepares and shapes == self._shapes and size < _SMALL:
            self._prepared = _Prepared(self._session, io, inputs, self._states, results)
        self._shapes = shapes
        return [time_last(value, layout) for value in results]

    def _returned(self, results: list[NDArray[Any]] | None) -> Any:
        """Return outputs in the layout of the model, one array or a tuple."""
        if results is None:
            results = self._io.no_steps(self.batch)
        results = [time_first(value, self._io.layout) for value in results]
        return results[0] if len(results) == 1 else tuple(results)

    def __repr__(self) -> str:
        return f"Stream(batch={self.batch}, steps={self.steps}, {len(self._states)} states)"


#: bytes of inputs and outputs up to which bindings are reused: copying more costs more than binding
_SMALL = 1 << 22


class _Prepared:
    """Bindings of calls with the same shapes: the overhead of a call, paid once.

    There are two sets of states. One call reads the first and writes the second, the next reads the
    second and writes the first: a call that fails leaves the states that it started from.
    """

    def __init__(
        self,
        session: Any,
        io: ModelIO,
        inputs: Sequence[NDArray[Any]],
        states: dict[str, Any],
        outputs: Sequence[NDArray[Any]],
    ) -> None:
        self.shapes = [array.shape for array in inputs]
        self._session = session
        self._inputs, input_values = _buffers(inputs)
        self._outputs, output_values = _buffers(outputs)
        arrays = [value.numpy() for value in states.values()]
        pairs = [_buffers(arrays) for _ in range(2)]
        self._buffers = [buffers for buffers, _ in pairs]
        self._sets = [dict(zip(states, values, strict=True)) for _, values in pairs]
        self._bindings = []
        for now, following in (self._sets, self._sets[::-1]):
            binding = session.io_binding()
            for name, value in zip(io.input_names, input_values, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name, value in now.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in zip(io.output_names, output_values, strict=True):
                binding.bind_ortvalue_output(name, value)
            for state in io.states:
                binding.bind_ortvalue_output(state["output"], following[state["input"]])
            self._bindings.append(binding)

    def run(
        self, inputs: Sequence[NDArray[Any]], states: dict[str, Any]
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return the states after a call, and its outputs."""
        turn = 1 if states is self._sets[1] else 0
        if states is not self._sets[turn]:  # initial states, or those of a call of another shape
            for buffer, value in zip(self._buffers[0], states.values(), strict=True):
                np.copyto(buffer, value.numpy())
        for buffer, array in zip(self._inputs, inputs, strict=True):
            np.copyto(buffer, array)
        self._session.run_with_iobinding(self._bindings[turn])
        return self._sets[1 - turn], [buffer.copy() for buffer in self._outputs]


def _buffers(arrays: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[Any]]:
    """Return buffers like the arrays, and ONNX Runtime's values in the same memory."""
    ort = providers.onnxruntime_module()
    buffers = [np.empty(array.shape, array.dtype) for array in arrays]
    return buffers, [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers]
