"""Running an exported model with ONNX Runtime; needs neither torch nor the exporter."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.file import parse_model
from synapse_onnx.model.guard import check_model, read_states
from synapse_onnx.model.layout import LAYOUTS, axes_of
from synapse_onnx.model.limits import read_file
from synapse_onnx.runtime import native as native_kernels
from synapse_onnx.runtime import providers as _providers
from synapse_onnx.runtime._arrays import accepted
from synapse_onnx.runtime.stream import Stream

if TYPE_CHECKING:
    import onnx

__all__ = ["Session"]


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
        ort = _providers.onnxruntime_module()
        names = list(providers if providers is not None else _providers.DEFAULT)
        missing = [name for name in names if name not in ort.get_available_providers()]
        if missing:
            raise InputError(
                f"execution provider {missing[0]} is not available; this ONNX Runtime has: "
                f"{', '.join(ort.get_available_providers())}"
            )
        library = _providers.library_for(native, names)
        source: bytes | None = None
        if isinstance(model_or_path, str | os.PathLike):
            where = os.fspath(model_or_path)
            source = read_file(where)  # ONNX Runtime is given the bytes that were checked
            model = parse_model(source, where)
        else:
            model, where = model_or_path, "the model"
            check_model(model, where)
        provider = _providers.kernels_on(names) or native_kernels.CPU

        opened = functools.partial(_providers.opened, model, source, names, threads, profile)
        refusal = None
        try:
            try:
                self.session, ran = opened(library)
            except Exception as error:
                if native or library is None:
                    raise
                refusal = _providers.first_line(error)
                self.session, ran = opened(None)  # fails again where the model is at fault
        except Exception as error:  # its classes differ from version to version
            refused = "refused by ONNX Runtime" + (" with native kernels" if native else "")
            raise ModelError(f"{where} is {refused}: {_providers.first_line(error)}") from error
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
            info.name: accepted(info, value)
            for info, value in zip(self._input_infos, inputs, strict=True)
        }
        if self.states:
            first = next(iter(feeds.values()))
            feeds |= self.fresh_states(first.shape[axes_of(self.layout, first.ndim)[0]])
        try:
            results = self.session.run(list(self.outputs), feeds)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {_providers.first_line(error)}") from error
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

    def __repr__(self) -> str:
        ins = ", ".join(f"{v.name} {shape_text(v.shape)}" for v in self._input_infos)
        outs = ", ".join(f"{v.name} {shape_text(v.shape)}" for v in self._output_infos)
        states = f"; {len(self.states)} states" if self.streaming else ""
        return f"Session({ins} -> {outs}{states}; {self.session.get_providers()[0]})"
