"""Single nodes of our ops as models without functions, so that a kernel alone can run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from torch import Tensor

from synapse_onnx import native, ops


def whole(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of standard operators and ours, without functions."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ops.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def split(args: tuple[Any, ...]) -> tuple[list[Tensor], list[Any]]:
    tensors = [a for a in args if isinstance(a, Tensor)]
    return tensors, [a for a in args if not isinstance(a, Tensor)]


def attributes_of(op: ops.OpDef, rest: list[Any]) -> dict[str, Any]:
    """Numbers behind the tensors: constants, then what only the gradient needs, then graded.

    Those of a convolution are stride, padding, dilation, groups.
    """
    if "strides" in op.attributes:
        stride, padding, dilation, groups = rest
        return {
            "strides": stride, "pads": [*padding, *padding], "dilations": dilation, "group": groups,
        }  # fmt: skip
    names = [name for name in op.attributes if name != "graded"]
    found = dict(zip(names, rest, strict=False)) if "graded" in op.attributes or rest else {}
    if "graded" in op.attributes:
        found["graded"] = int(rest[-1])
    for name, kind in op.attributes.items():
        found[name] = kind(found[name]) if name in found else 0
    return found


def time_first(tensor: Tensor, name: str, sequences: set[str]) -> np.ndarray:
    tensor = tensor.movedim(-1, 0) if name in sequences else tensor
    return tensor.contiguous().numpy()


def sequences_of(op: ops.OpDef) -> set[str]:
    return {"x", "x_real", "x_imag", "line"} & set(op.inputs)


def session_of(model: onnx.ModelProto, threads: int = 2) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # so that sanitizers see every tensor's end
    options.register_custom_ops_library(str(native.library()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
