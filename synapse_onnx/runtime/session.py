"""Running an exported model with ONNX Runtime; needs neither torch nor the exporter."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.file import parse_model
from synapse_onnx.model.guard import check_model
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.limits import read_file
from synapse_onnx.runtime import native as native_kernels
from synapse_onnx.runtime import providers as _providers
from synapse_onnx.runtime._model_io import ModelIO, accepted
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
        native: None uses the native kernels if there is a library for the provider: that of the
            CPU if the model runs on the CPU alone, that of CUDA if CUDA comes first. A library
            that cannot be used is a warning. True requires the kernels, False runs the function
            bodies in the file.
        threads: threads inside an operator; ONNX Runtime's own choice by default.
        profile: prefix of the name of a file that ONNX Runtime writes its profile to;
            ``session.end_profiling()`` ends it and returns the whole name.

    Attributes:
        inputs: names of the inputs, in the order of :meth:`run`.
        outputs: names of the outputs.
        layout: layout of :meth:`run` and :meth:`Stream.run`: "NCT", or "TNC" with time first.
        streaming: whether the model was exported for streaming.
        chunk: number that the steps of a call must be a multiple of, except the last call.
        states: of a streaming model, its states as the metadata describe them.
        native: whether the native kernels are registered.
        kernels: names of the model's ops that run as native kernels, sorted.
        native_nodes: names of the nodes that they compute, with their ops. A synapse and its
            neuron may be one node.
        instructions: instruction set of these kernels, as "avx512"; empty without kernels.
        session: the ``onnxruntime.InferenceSession`` that runs the model.

    Raises:
        InputError: no such file, or an execution provider that this machine does not have, or
            native kernels required for a provider that has none.
        ModelError: not an ONNX model, or one that ONNX Runtime refuses.
        SynapseError: ONNX Runtime is not installed, or native kernels are required and missing.
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
            source = read_file(where)  # ONNX Runtime gets the very bytes that are checked here
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
        if left_out:  # ONNX Runtime falls back silently
            warnings.warn(
                f"{left_out[0]} cannot be used here, so {where} runs on {used[0]}: a device or its "
                f"libraries are missing",
                stacklevel=2,
            )
        self.native = library is not None and refusal is None
        self.kernels = native_kernels.used_by(model, provider) if self.native else ()
        self.native_nodes = native_kernels.nodes_of(ran, provider) if self.native else {}
        self.instructions = native_kernels.instructions(provider) if self.kernels else ""
        self._io = ModelIO.of(self.session, where)
        self.inputs, self.outputs = self._io.input_names, self._io.output_names
        self.states, self.streaming = self._io.states, self._io.streaming
        self.chunk, self.layout = self._io.chunk, self._io.layout

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
        self._io.check_count(inputs)
        feeds = {
            info.name: accepted(info, value)
            for info, value in zip(self._io.inputs, inputs, strict=True)
        }
        if self.states:
            feeds |= self.fresh_states(self._io.batch_of(list(feeds.values())))
        try:
            results = self.session.run(list(self.outputs), feeds)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {_providers.first_line(error)}") from error
        return results[0] if len(results) == 1 else tuple(results)

    def fresh_states(self, batch: int) -> dict[str, NDArray[Any]]:
        """Return the initial states of a batch of sequences, by the name of the graph's input."""
        return self._io.fresh_states(batch)

    def stream(self, batch: int = 1) -> Stream:
        """Open a stream: a sequence that comes in steps or chunks, whose states are kept.

        Args:
            batch: number of sequences in parallel.

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
        for info in (self._io.inputs[i] for i in self._io.batched):
            fixed = info.shape[axes_of(self.layout, len(info.shape))[0]]
            if isinstance(fixed, int) and fixed != batch:
                raise InputError(
                    f"stream: the model was exported with a fixed batch of {fixed}, got "
                    f"batch={batch}"
                )
        return Stream(self.session, self._io, batch)

    def __repr__(self) -> str:
        ins = ", ".join(f"{v.name} {shape_text(v.shape)}" for v in self._io.inputs)
        outs = ", ".join(f"{v.name} {shape_text(v.shape)}" for v in self._io.outputs)
        states = f"; {len(self.states)} states" if self.streaming else ""
        return f"Session({ins} -> {outs}{states}; {self.session.get_providers()[0]})"
