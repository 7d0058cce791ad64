"""Running an exported model with ONNX Runtime; needs neither torch nor the exporter."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx import native as native_kernels
from synapse_onnx.errors import InputError, ModelError, ShapeError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.fusion import fused
from synapse_onnx.graph import DOMAIN
from synapse_onnx.guard import check_model, read_states
from synapse_onnx.layout import LAYOUTS, axes_of, has_time, time_first, time_last
from synapse_onnx.limits import load_arrays, read_file

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["Session", "Stream", "load_model", "parse_model"]

#: the oldest ONNX Runtime that computes what it should: 1.29 crashes in streams, 1.23 refuses
#: shapes of states, 1.20 has no int4
_OLDEST = (1, 30)

#: ONNX Runtime's names of element types -> NumPy's
_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: there is no such file, it cannot be read, or it is larger than 2 GiB, or than
            the environment variable SYNAPSE_ONNX_MAX_BYTES says.
        ModelError: it is no ONNX model, or one that :func:`guard.check_model` refuses.
    """
    where = os.fspath(path)
    return parse_model(read_file(where), where)


def parse_model(data: bytes, where: str) -> onnx.ModelProto:
    """Read a model from the bytes of a file.

    Args:
        data: the bytes.
        where: what they are called in errors.

    Raises:
        ModelError: they are no ONNX model, or one that :func:`guard.check_model` refuses.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{where} is no ONNX model") from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{where} is no ONNX model, or an empty one")
    check_model(model, where)
    return model


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SynapseError(
            "ONNX Runtime is not installed: pip install 'synapse-onnx[cpu]', "
            "or 'synapse-onnx[gpu]' for CUDA (one of the two, not both)"
        ) from error
    version = onnxruntime.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise SynapseError(
            f"ONNX Runtime {version} is too old, and may crash on states of a stream; install "
            f"{'.'.join(map(str, _OLDEST))} or newer"
        )
    return onnxruntime


def _kernels_on(providers: Sequence[str]) -> str | None:
    """Return the provider whose kernels may take part: no kernel takes a node off the first one."""
    if set(providers) == {native_kernels.CPU}:
        return native_kernels.CPU
    if native_kernels.CUDA in providers and providers[0] in _DEVICES:
        return native_kernels.CUDA
    return None


def _library(native: bool | None, providers: Sequence[str]) -> Path | None:
    """Return the library of native kernels to register; None to run the bodies."""
    provider = _kernels_on(providers)
    if native and provider is None:
        others = [name for name in providers if name != native_kernels.CPU]
        raise InputError(
            f"native=True: the native kernels run on the CPU or on CUDA, and would take the model "
            f"off {others[0]}; use native=None, or one of these first"
        )
    if native is False or provider is None:
        return None
    path, problem = native_kernels.library(provider), native_kernels.problem(provider)
    if problem is None:
        return path
    if native:
        on = " for CUDA" if provider == native_kernels.CUDA else ""
        raise SynapseError(f"native=True: there are no native kernels{on}: {problem}")
    if path is not None:  # that there is none is nothing to warn of
        warnings.warn(f"no native kernels: {problem}", stacklevel=3)
    return None


class Session:
    """An exported network in ONNX Runtime: NumPy arrays in, NumPy arrays out.

    Args:
        model_or_path: an ``onnx.ModelProto`` or the path of an .onnx file.
        providers: execution providers, by ONNX Runtime's names, best first; the CPU by default.
            One that ONNX Runtime has but cannot start here is a warning.
        native: None takes the native kernels where a library for the provider is there and fits:
            that of the CPU where the CPU alone runs the model, that of CUDA where CUDA comes
            first. A library that does not fit is a warning. True demands them, False runs the
            bodies that the file holds.
        threads: threads inside an operator; ONNX Runtime's own choice by default.
        profile: begin of the name of a file that ONNX Runtime writes its profile to;
            ``session.end_profiling()`` ends it and returns the whole name.

    Attributes:
        inputs: names of the inputs, in the order of :meth:`run`.
        outputs: names of the outputs.
        layout: "NCT", or "TNC" where time comes first: that of :meth:`run` and :meth:`Stream.run`.
        native: whether the native kernels are registered.
        kernels: names of the model's ops that run as native kernels, sorted.
        native_nodes: names of the nodes that they compute, with their ops; a synapse and the neuron
            behind it may have become one of both.
        instructions: what these kernels are compiled for, as "avx512"; empty without.
        session: the ``onnxruntime.InferenceSession`` behind it.

    Raises:
        InputError: no such file, or an execution provider that this machine does not have, or
            native kernels demanded for a provider that there are none for.
        ModelError: not an ONNX model, or one that ONNX Runtime refuses.
        SynapseError: ONNX Runtime is not installed, or native kernels were demanded and there
            are none.
    """

    def __init__(
        self,
        model_or_path: onnx.ModelProto | str | os.PathLike[str],
        providers: Sequence[str] | None = None,
        native: bool | None = None,
        *,
        threads: int | None = None,
        profile: str | None = None,
    ) -> None:
        ort = _onnxruntime()
        names = list(providers if providers is not None else _DEFAULT)
        missing = [name for name in names if name not in ort.get_available_providers()]
        if missing:
            raise InputError(
                f"execution provider {missing[0]} is not available; this ONNX Runtime has: "
                f"{', '.join(ort.get_available_providers())}"
            )
        library = _library(native, names)
        source: bytes | None = None
        if isinstance(model_or_path, str | os.PathLike):
            where = os.fspath(model_or_path)
            source = read_file(where)  # ONNX Runtime is given the bytes that were checked
            model = parse_model(source, where)
        else:
            model, where = model_or_path, "the model"
            check_model(model, where)
        provider = _kernels_on(names) or native_kernels.CPU

        opened = functools.partial(_opened, model, source, names, threads, profile)
        refusal = None
        try:
            try:
                self.session, ran = opened(library)
            except Exception as error:
                if native or library is None:
                    raise
                refusal = _first_line(error)
                self.session, ran = opened(None)  # fails again where the model is at fault
        except Exception as error:  # its classes differ from version to version
            refused = "refused by ONNX Runtime" + (" with native kernels" if native else "")
            raise ModelError(f"{where} is {refused}: {_first_line(error)}") from error
        if refusal is not None:
            warnings.warn(
                f"no native kernels: with {library}, ONNX Runtime refuses {where}: {refusal}",
                stacklevel=2,
            )
        used = self.session.get_providers()
        left_out = [name for name in names if name not in used]
        if left_out:  # which ONNX Runtime does without a word
            warnings.warn(
                f"{left_out[0]} cannot be used here, so {where} runs on {used[0]}: a device or its "
                f"libraries are missing",
                stacklevel=2,
            )
        self.native = library is not None and refusal is None
        #: names of the model's ops that run as native kernels, sorted
        self.kernels: tuple[str, ...] = (
            native_kernels.used_by(model, provider) if self.native else ()
        )
        #: nodes that native kernels compute, by name, with their ops: what was put together is one
        self.native_nodes: dict[str, str] = (
            native_kernels.nodes_of(ran, provider) if self.native else {}
        )
        #: what these kernels are compiled for, as "avx512"; empty without
        self.instructions = native_kernels.instructions(provider) if self.kernels else ""
        self._read_metadata(where)
        carried = {name for state in self.states for name in (state["input"], state["output"])}
        self._input_infos = [v for v in self.session.get_inputs() if v.name not in carried]
        self._output_infos = [v for v in self.session.get_outputs() if v.name not in carried]
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._input_infos)
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._output_infos)

    def _read_metadata(self, where: str) -> None:
        """Take the states of a streaming model from its metadata."""
        try:
            properties = self.session.get_modelmeta().custom_metadata_map
            found = read_states(properties.get("synapse_onnx.states", "[]"))
            self.states: list[dict[str, Any]] = found
            self.chunk = int(properties.get("synapse_onnx.chunk", "1"))
            self.layout = properties.get("synapse_onnx.layout", "NCT")
            if self.layout not in LAYOUTS or self.chunk < 1:
                raise ValueError(self.layout)
            self.streaming = json.loads(properties.get("synapse_onnx.streaming", "false")) is True
            names = {value.name for value in self.session.get_inputs()}
            missing = [state["input"] for state in self.states if state["input"] not in names]
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise ModelError(f"{where}: its metadata on states or layout cannot be read") from error
        if missing:
            raise ModelError(f"{where}: its metadata name a state {missing[0]} that no input has")

    def run(self, *inputs: ArrayLike) -> Any:
        """Run the network.

        Args:
            inputs: one array for every input, in the order of :attr:`inputs`, usually spikes
                (N, C[, H, W], T), or (T, N, C[, H, W]) in the layout "TNC". Integers and booleans
                are cast to the input's type where no value is lost, and floats to integers;
                other floats are rounded to it.

        Returns:
            One array, or a tuple of arrays where there are several outputs (a complex output is
            a pair: real, imag).

        Raises:
            InputError: wrong number of inputs, or values that the type cannot hold.
            ShapeError: wrong rank or size.
            ModelError: ONNX Runtime failed on the values.
        """
        if len(inputs) != len(self.inputs):
            raise InputError(
                f"the network takes {len(self.inputs)} input{'s'[: len(self.inputs) != 1]} "
                f"({', '.join(self.inputs)}), got {len(inputs)}"
            )
        feeds = {
            info.name: self._feed(info, value)
            for info, value in zip(self._input_infos, inputs, strict=True)
        }
        if self.states:
            first = next(iter(feeds.values()))
            feeds |= self.fresh_states(first.shape[axes_of(self.layout, first.ndim)[0]])
        try:
            results = self.session.run(list(self.outputs), feeds)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return results[0] if len(results) == 1 else tuple(results)

    def fresh_states(self, batch: int) -> dict[str, NDArray[Any]]:
        """Return the states that a sequence starts from, by the name of the graph's input."""
        return {
            state["input"]: np.full(
                (batch, *state["shape"][1:]), state["start"], dtype=np.dtype(state["dtype"])
            )
            for state in self.states
        }

    def stream(self, batch: int = 1) -> Stream:
        """Open a stream: a sequence that comes in steps or chunks, with its states kept.

        Args:
            batch: number of sequences side by side.

        Raises:
            InputError: the model was not exported for streaming, or the batch is no positive
                integer, or not the batch that the model was exported with.
        """
        if not self.streaming:
            raise InputError(
                "the model was not exported for streaming; use export(..., streaming=True)"
            )
        if not (isinstance(batch, int) and batch > 0):
            raise InputError(f"stream: batch must be a positive integer, got {batch!r}")
        for info in self._input_infos:
            fixed = info.shape[axes_of(self.layout, len(info.shape))[0]]
            if isinstance(fixed, int) and fixed != batch:
                raise InputError(
                    f"stream: the model was exported with a fixed batch of {fixed}, got "
                    f"batch={batch}"
                )
        return Stream(self, batch)

    def _feed(self, info: Any, value: ArrayLike) -> NDArray[Any]:
        array = np.asarray(value)
        want = _DTYPES.get(info.type)
        if want is not None and array.dtype != want:
            if array.dtype.kind not in "biuf":
                raise InputError(f"input {info.name}: expected numbers, got {array.dtype}")
            with np.errstate(over="ignore", invalid="ignore"):
                cast = array.astype(want)
            rounds = array.dtype.kind == "f" and cast.dtype.kind == "f"
            if not rounds and not np.array_equal(cast, array):
                raise InputError(
                    f"input {info.name}: values of type {array.dtype} do not fit {cast.dtype}"
                )
            array = cast
        shape = info.shape
        if array.ndim != len(shape):
            raise ShapeError(
                f"input {info.name}: expected {len(shape)} axes {_layout(shape)}, "
                f"got shape {array.shape}"
            )
        for size, wanted in zip(array.shape, shape, strict=True):
            if isinstance(wanted, int) and size != wanted:
                raise ShapeError(
                    f"input {info.name}: expected shape {_layout(shape)}, got {array.shape}"
                )
        if array.size == 0:
            raise ShapeError(f"input {info.name}: the array is empty, of shape {array.shape}")
        return np.ascontiguousarray(array)

    def __repr__(self) -> str:
        ins = ", ".join(f"{v.name} {_layout(v.shape)}" for v in self._input_infos)
        outs = ", ".join(f"{v.name} {_layout(v.shape)}" for v in self._output_infos)
        states = f"; {len(self.states)} states" if self.streaming else ""
        return f"Session({ins} -> {outs}{states}; {self.session.get_providers()[0]})"


class Stream:
    """A sequence that comes in steps or chunks; made by :meth:`Session.stream`.

    The states stay in ONNX Runtime's memory, on its device, between the calls. However a sequence
    is cut into chunks, the outputs put together are those of the whole sequence; a network that
    averages over bins of time gives a bin when it is full, and the rest on :meth:`flush`.

    Attributes:
        batch: number of sequences side by side.
        steps: time steps taken in since the last full :meth:`reset`.
    """

    def __init__(self, session: Session, batch: int) -> None:
        self._session, self.batch, self.steps = session, batch, 0
        self._ort = _onnxruntime()
        provider = session.session.get_providers()[0]
        self._device = _DEVICES.get(provider, "cpu")
        #: a call of few bytes is prepared where its buffers are NumPy's too
        self._prepares = provider not in _DEVICES
        self._binding = session.session.io_binding()
        self._timed = [_is_timed(info.shape) for info in session._input_infos]
        self._states: dict[str, Any] = {}
        #: shapes of the last call's inputs, and what the next needs that has the same
        self._shapes: list[tuple[int, ...]] = []
        self._prepared: _Prepared | None = None
        #: steps that wait for the rest of their bin, an array an input
        self._held: list[NDArray[Any]] | None = None
        self.reset()

    def reset(self, items: int | Sequence[int] | None = None) -> None:
        """Start sequences afresh.

        Args:
            items: index, or indices, of the batch whose sequences start afresh; None for all.

        Raises:
            InputError: no such index, or single sequences in the middle of a bin of time, which
                the whole batch has in common.
        """
        fresh = self._session.fresh_states(self.batch)
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
                f"reset: the batch is within a bin of {self._session.chunk} time steps; reset all "
                f"of it, or wait for the bin's end"
            )
        states = self.states
        for name, start in fresh.items():
            states[name][chosen] = start[chosen]
        self._states = {name: self._value(array) for name, array in states.items()}

    def step(self, *inputs: ArrayLike) -> Any:
        """Take in one time step.

        Args:
            inputs: one array an input, (N, C[, H, W]); an input without time as it is.

        Returns:
            The outputs of this step without their time axis, one array or a tuple; None while a
            bin of time is not full.

        Raises:
            InputError, ShapeError, ModelError: see :meth:`Session.run`.
        """
        self._count(inputs)
        arrays = [np.asarray(value) for value in inputs]
        for info, array, timed in zip(self._session._input_infos, arrays, self._timed, strict=True):
            if timed and array.ndim != len(info.shape) - 1:
                _, time = axes_of(self._session.layout, len(info.shape))
                sizes = [size for axis, size in enumerate(info.shape) if axis != time]
                raise ShapeError(
                    f"input {info.name}: a step has {len(sizes)} axes {_layout(sizes)}, got shape "
                    f"{array.shape}; run() takes a chunk with time"
                )
        chunk = [a[..., np.newaxis] if t else a for a, t in zip(arrays, self._timed, strict=True)]
        results = self._run(chunk, last=False)
        if results is None:
            return None
        outputs = [y[..., -1] for y in results]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, *inputs: ArrayLike) -> Any:
        """Take in a chunk of the sequence, of any length.

        Args:
            inputs: one array an input, (N, C[, H, W], T), or (T, N, C[, H, W]) in the layout
                "TNC".

        Returns:
            The outputs of these steps, one array or a tuple; fewer steps, or none, where the
            network averages over bins of time.

        Raises:
            InputError, ShapeError, ModelError: see :meth:`Session.run`.
        """
        self._count(inputs)
        layout = self._session.layout
        chunk = [time_last(np.asarray(value), layout) for value in inputs]
        return self._given(self._run(chunk, last=False))

    def flush(self) -> Any:
        """End the sequence: fill up the last bin of time with zeros, and start afresh.

        Returns:
            The outputs of that bin; arrays of no steps where no bin was begun.
        """
        results = None
        if self._held is not None:
            results = self._run(None, last=True)
        self.reset()
        return self._given(results)

    @property
    def states(self) -> dict[str, NDArray[Any]]:
        """Copies of the states, by name, batch first."""
        return {name: value.numpy().copy() for name, value in self._states.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the stream in the middle of its sequence, as an .npz file.

        Raises:
            InputError: the file cannot be written.
        """
        held = (
            {} if self._held is None else dict(zip(self._session.inputs, self._held, strict=True))
        )
        arrays = {f"state:{name}": array for name, array in self.states.items()}
        arrays |= {f"held:{name}": array for name, array in held.items()}
        data = io.BytesIO()
        np.savez(data, **arrays | {"steps": np.array(self.steps)})  # type: ignore[arg-type]
        write_atomically(path, data.getvalue())

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on where a saved stream stood.

        Raises:
            InputError: the file cannot be read, or is not the state of a stream of this network
                and batch; the stream stays as it is.
        """
        try:
            arrays = load_arrays(path)
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is not the saved state of a stream") from error
        fresh = self._session.fresh_states(self.batch)
        states = {name for name in arrays if name.startswith("state:")}
        held = [arrays[n] for name in self._session.inputs if (n := f"held:{name}") in arrays]
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

    def _count(self, inputs: Sequence[Any]) -> None:
        names = self._session.inputs
        if len(inputs) != len(names):
            raise InputError(
                f"the network takes {len(names)} input{'s'[: len(names) != 1]} "
                f"({', '.join(names)}), got {len(inputs)}"
            )

    def _accepted(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return a chunk (N, C[, H, W], T) in the graph's types, or say what does not fit."""
        infos, layout = self._session._input_infos, self._session.layout
        arrays = [
            time_last(self._session._feed(info, time_first(array, layout)), layout)
            for info, array in zip(infos, inputs, strict=True)
        ]
        for info, array in zip(infos, arrays, strict=True):
            if array.shape[0] != self.batch:
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

    def _run(
        self, inputs: Sequence[NDArray[Any]] | None, *, last: bool
    ) -> list[NDArray[Any]] | None:
        """Run what has come and what was held back, in whole bins; hold the rest back."""
        chunk = self._session.chunk
        if inputs is None:
            arrays = list(self._held or [])
        else:
            arrays = self._accepted(inputs)
            new = next(a.shape[-1] for a, t in zip(arrays, self._timed, strict=True) if t)
            if self._held is not None:
                arrays = [
                    np.concatenate([old, a], axis=-1) if t else a
                    for old, a, t in zip(self._held, arrays, self._timed, strict=True)
                ]
        steps = next(a.shape[-1] for a, t in zip(arrays, self._timed, strict=True) if t)
        whole = steps if last else steps // chunk * chunk
        results = None
        if whole:
            parts = [a[..., :whole] if t else a for a, t in zip(arrays, self._timed, strict=True)]
            results = self._call(parts)
        if inputs is not None:
            self.steps += new
        rest = [a[..., whole:] if t else a for a, t in zip(arrays, self._timed, strict=True)]
        self._held = None if whole == steps else [a.copy() for a in rest]
        return results

    def _call(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph once; its new states take the place of the old ones if it succeeds."""
        session, layout = self._session, self._session.layout
        inputs = [time_first(array, layout) for array in arrays]
        shapes = [array.shape for array in inputs]
        if self._prepared is not None and self._prepared.shapes == shapes:
            try:
                self._states, results = self._prepared.run(inputs, self._states)
            except Exception as error:
                raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
            return [time_last(value, layout) for value in results]
        binding = self._binding
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, array in zip(session.inputs, inputs, strict=True):
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in self._states.items():
            binding.bind_ortvalue_input(name, value)
        for name in session.outputs:
            binding.bind_output(name, "cpu")
        for state in session.states:
            binding.bind_output(state["output"], self._device)
        try:
            session.session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        values = binding.get_outputs()
        count = len(session.outputs)
        self._states = {
            state["input"]: value
            for state, value in zip(session.states, values[count:], strict=True)
        }
        results = [value.numpy() for value in values[:count]]
        size = sum(array.nbytes for array in (*inputs, *results))
        if self._prepares and shapes == self._shapes and size < _SMALL:
            self._prepared = _Prepared(session, inputs, self._states, results)
        self._shapes = shapes
        return [time_last(value, layout) for value in results]

    def _given(self, results: list[NDArray[Any]] | None) -> Any:
        layout = self._session.layout
        if results is None:
            results = []
            for info in self._session._output_infos:
                batch, time = axes_of(layout, len(info.shape))
                sizes = [
                    size if isinstance(size, int) else 1
                    for axis, size in enumerate(info.shape)
                    if axis not in (batch, time)
                ]
                results.append(np.zeros([self.batch, *sizes, 0], dtype=_DTYPES[info.type]))
        results = [time_first(value, layout) for value in results]
        return results[0] if len(results) == 1 else tuple(results)

    def __repr__(self) -> str:
        return f"Stream(batch={self.batch}, steps={self.steps}, {len(self._states)} states)"


#: bytes of inputs and outputs up to which a call is prepared: a larger one takes long anyhow
_SMALL = 1 << 22


class _Prepared:
    """Bindings for calls of the same shapes: what a step costs outside the graph, paid once.

    There are two sets of states: one call reads the first and writes the second, the next the other
    way round, so that a call that fails leaves what it started from.
    """

    def __init__(
        self,
        session: Session,
        inputs: Sequence[NDArray[Any]],
        states: dict[str, Any],
        outputs: Sequence[NDArray[Any]],
    ) -> None:
        ort = _onnxruntime()

        def held(arrays: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[Any]]:
            """Return buffers like the arrays, and ONNX Runtime's values in the same memory."""
            buffers = [np.empty(array.shape, array.dtype) for array in arrays]
            return buffers, [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers]

        self.shapes = [array.shape for array in inputs]
        self._session = session.session
        self._inputs, given = held(inputs)
        self._outputs, taken = held(outputs)
        arrays = [value.numpy() for value in states.values()]
        pairs = [held(arrays) for _ in range(2)]
        self._buffers = [buffers for buffers, _ in pairs]
        self._sets = [dict(zip(states, values, strict=True)) for _, values in pairs]
        self._bindings = []
        for now, after in (self._sets, self._sets[::-1]):
            binding = session.session.io_binding()
            for name, value in zip(session.inputs, given, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name, value in now.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in zip(session.outputs, taken, strict=True):
                binding.bind_ortvalue_output(name, value)
            for state in session.states:
                binding.bind_ortvalue_output(state["output"], after[state["input"]])
            self._bindings.append(binding)

    def run(
        self, inputs: Sequence[NDArray[Any]], states: dict[str, Any]
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return the states after a call, and its outputs."""
        turn = 1 if states is self._sets[1] else 0
        if states is not self._sets[turn]:  # fresh ones, or those of another length
            for buffer, value in zip(self._buffers[0], states.values(), strict=True):
                np.copyto(buffer, value.numpy())
        for buffer, array in zip(self._inputs, inputs, strict=True):
            np.copyto(buffer, array)
        self._session.run_with_iobinding(self._bindings[turn])
        return self._sets[1 - turn], [buffer.copy() for buffer in self._outputs]


def _options(threads: int | None, profile: str | None) -> onnxruntime.SessionOptions:
    options = _onnxruntime().SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return options


#: execution providers where none is named
_DEFAULT = ("CPUExecutionProvider",)

#: execution providers whose memory is that of a GPU of NVIDIA's, as ONNX Runtime names it
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


def _opened(
    model: onnx.ModelProto, source: bytes | None, providers: Sequence[str], threads: int | None,
    profile: str | None, library: Path | None,
) -> tuple[onnxruntime.InferenceSession, onnx.ModelProto]:  # fmt: skip
    """Return ONNX Runtime's session, and the model that it runs."""
    options = _options(threads, profile)
    if library is not None:
        options.register_custom_ops_library(str(library))
    ran = _lowered(model, providers, library)
    given = ran.SerializeToString() if source is None or ran is not model else source
    chosen = [_with_options(name) for name in providers]
    return _onnxruntime().InferenceSession(given, options, providers=chosen), ran


def _lowered(
    model: onnx.ModelProto, providers: Sequence[str], library: Path | None
) -> onnx.ModelProto:
    """Return what ONNX Runtime is given: the model as it is, or lowered for where it runs."""
    if not _DEVICES.keys().isdisjoint(providers):
        kept = () if library is None else native_kernels.kernels(native_kernels.CUDA)
        return for_cuda(model, kept)
    if library is not None:
        return fused(model, native_kernels.together()) or model
    return model


def for_cuda(model: onnx.ModelProto, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy for CUDA: one flat graph, whose dense products are of floats.

    CUDA has no product of uint8. Within functions its Scan takes too little memory for states
    whose sizes are symbols (ONNX Runtime's issue 27887), so there are none.

    Args:
        model: the model as it is in its file; it stays as it is.
        kept: ops that stay nodes, without a function: native kernels compute them, or nothing.
    """
    import onnx.inliner

    copied = copy.deepcopy(model)
    for node in copied.graph.node:
        for attribute in node.attribute:
            if node.domain == DOMAIN and attribute.name == "integers":
                attribute.i = 0
    whole = [(DOMAIN, name) for name in kept]
    flat = onnx.inliner.inline_selected_functions(copied, whole, exclude=True)
    del flat.functions[:]
    return flat


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """Name an execution provider, with the options that sums of integers in floats need."""
    if provider == "CUDAExecutionProvider":
        return provider, {"use_tf32": "0"}  # its products keep 10 bits, too few for exact sums
    return provider


def _is_timed(shape: Sequence[Any]) -> bool:
    return has_time(len(shape))


def _layout(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(str(size) if size is not None else "?" for size in shape) + ")"


def _first_line(error: Exception) -> str:
    """Message of ONNX Runtime without its codes, [ONNXRuntimeError] : 7 : INVALID_PROTOBUF."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
