"""Arrays as the inputs of a graph take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.formatting import shape_text

__all__ = ["DTYPES", "accepted"]

#: ONNX Runtime's names of element types -> NumPy's
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def accepted(info: Any, value: ArrayLike) -> NDArray[Any]:
    """Return an array as an input of a graph takes it.

    Args:
        info: ONNX Runtime's description of the input: name, type and shape.
        value: integers and booleans are cast where no value is lost, and floats to integers; other
            floats are rounded.

    Raises:
        InputError: values that the type cannot hold.
        ShapeError: wrong rank or size, or no element.
    """
    array = np.asarray(value)
    want = DTYPES.get(info.type)
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
            f"input {info.name}: expected {len(shape)} axes {shape_text(shape)}, "
            f"got shape {array.shape}"
        )
    for size, wanted in zip(array.shape, shape, strict=True):
        if isinstance(wanted, int) and size != wanted:
            raise ShapeError(
                f"input {info.name}: expected shape {shape_text(shape)}, got {array.shape}"
            )
    if array.size == 0:
        raise ShapeError(f"input {info.name}: the array is empty, of shape {array.shape}")
    return np.ascontiguousarray(array)
