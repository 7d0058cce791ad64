"""Running an exported model with ONNX Runtime; needs neither torch nor the exporter."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError, ShapeError, SynapseError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["Session", "load_model"]

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
        InputError: there is no such file, or it cannot be read.
        ModelError: it is no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{path} is no ONNX model") from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is no ONNX model, or an empty one")
    return model


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SynapseError(
            "ONNX Runtime is not installed: pip install 'synapse-onnx[cpu]', "
            "or 'synapse-onnx[gpu]' for CUDA (one of the two, not both)"
        ) from error
    return onnxruntime


class Session:
    """An exported network in ONNX Runtime: NumPy arrays in, NumPy arrays out.

    Args:
        model_or_path: an ``onnx.ModelProto`` or the path of an .onnx file.
        providers: execution providers, by ONNX Runtime's names, best first; the CPU by default.
        native: True demands native kernels, False forbids them, None takes them where there are
            any. This version has none.
        threads: threads inside an operator; ONNX Runtime's own choice by default.

    Attributes:
        inputs: names of the inputs, in the order of :meth:`run`.
        outputs: names of the outputs.
        session: the ``onnxruntime.InferenceSession`` behind it.

    Raises:
        InputError: no such file, or an execution provider that this machine does not have.
        ModelError: not an ONNX model, or one that ONNX Runtime refuses.
        SynapseError: ONNX Runtime is not installed, or native kernels were demanded.
    """

    def __init__(
        self,
        model_or_path: onnx.ModelProto | str | os.PathLike[str],
        providers: Sequence[str] | None = None,
        native: bool | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        ort = _onnxruntime()
        if native:
            raise SynapseError(
                "native=True: this version of synapse-onnx has no native kernels; "
                "use native=None or native=False"
            )
        names = list(providers) if providers is not None else ["CPUExecutionProvider"]
        missing = [name for name in names if name not in ort.get_available_providers()]
        if missing:
            raise InputError(
                f"execution provider {missing[0]} is not available; this ONNX Runtime has: "
                f"{', '.join(ort.get_available_providers())}"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions
        if threads is not None:
            options.intra_op_num_threads = threads
        model, where = model_or_path, "the model"
        if isinstance(model, str | os.PathLike):
            where = os.fspath(model)
            if not os.path.isfile(where):
                reason = "it is a folder" if os.path.isdir(where) else "no such file"
                raise InputError(f"{where} cannot be read: {reason}")
            source: Any = where  # by path: side files with weights are found beside it
        else:
            source = model.SerializeToString()
        try:
            self.session: onnxruntime.InferenceSession = ort.InferenceSession(
                source, options, providers=names
            )
        except Exception as error:  # its classes differ from version to version
            raise ModelError(f"{where} is refused by ONNX Runtime: {_first_line(error)}") from error
        self.inputs: tuple[str, ...] = tuple(value.name for value in self.session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self.session.get_outputs())

    def run(self, *inputs: ArrayLike) -> Any:
        """Run the network.

        Args:
            inputs: one array for every input, in the order of :attr:`inputs`, usually spikes
                (N, C[, H, W], T). Integers and booleans are cast to the input's type where no
                value is lost; other floats are rounded to it.

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
            for info, value in zip(self.session.get_inputs(), inputs, strict=True)
        }
        try:
            results = self.session.run(None, feeds)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return results[0] if len(results) == 1 else tuple(results)

    def _feed(self, info: Any, value: ArrayLike) -> NDArray[Any]:
        array = np.asarray(value)
        want = _DTYPES.get(info.type)
        if want is not None and array.dtype != want:
            if array.dtype.kind not in "biuf":
                raise InputError(f"input {info.name}: expected numbers, got {array.dtype}")
            with np.errstate(over="ignore", invalid="ignore"):
                cast = array.astype(want)
            if array.dtype.kind != "f" and not np.array_equal(cast, array):
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
        ins = ", ".join(f"{v.name} {_layout(v.shape)}" for v in self.session.get_inputs())
        outs = ", ".join(f"{v.name} {_layout(v.shape)}" for v in self.session.get_outputs())
        return f"Session({ins} -> {outs}; {self.session.get_providers()[0]})"


def _layout(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(str(size) if size is not None else "?" for size in shape) + ")"


def _first_line(error: Exception) -> str:
    """Message of ONNX Runtime without its codes, [ONNXRuntimeError] : 7 : INVALID_PROTOBUF."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
