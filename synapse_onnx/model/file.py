"""Reading a model from a file: it is checked before anything else uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from synapse_onnx.errors import ModelError
from synapse_onnx.model.guard import check_model
from synapse_onnx.model.limits import read_file

if TYPE_CHECKING:
    import onnx

__all__ = ["load_model", "parse_model"]


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
    """Read a model from the bytes of a file; ``where`` is its name in errors.

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
