"""Models of one node without a body: only a kernel can compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from synapse_onnx import ops
from synapse_onnx.runtime import native

OPS = ops.all_ops()
EQUATIONS = sorted(
    op.name
    for op in OPS.values()
    if "graded" in op.attributes and any(name.startswith("last_") for name in op.outputs)
)
#: these, and what gives their variables over time
#: all but those that count their spikes, which run by their bodies
NEURONS = sorted(
    name
    for name in {*EQUATIONS, *(name for name in OPS if "Dynamics" in name)}
    if "Counted" not in name
)

#: windows of images, as a convolution has them
GEOMETRIES: dict[str, Any] = {
    "plain": {},
    "padded": {"pads": [2, 2, 2, 2]},
    "uneven pads": {"pads": [0, 1, 2, 0]},
    "strides": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilated": {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
    "wide steps": {"strides": [1, 2], "dilations": [2, 1]},
    "groups": {"group": 3, "pads": [1, 1, 1, 1]},
}


def model_of(op: ops.OpDef, args: tuple[Any, ...], sequences: set[str]) -> onnx.ModelProto:
    """One node, without a body; all tensors are inputs but weights, which are constants."""
    tensors, rest = split(args)
    inputs, constants = [], []
    for name, tensor in zip(op.inputs, tensors, strict=True):
        array = time_first(tensor, name, sequences)
        if name.startswith("weight") and "scale" not in name:
            constants.append(numpy_helper.from_array(array, name))
        else:
            steps = "D" if name == "line" else "T"
            shape = [steps, *array.shape[1:]] if name in sequences else list(array.shape)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
    attributes = attributes_of(op, rest)
    node = helper.make_node(op.name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    kinds = {
        f"last_{name}": helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
        for name, tensor in zip(op.inputs, tensors, strict=True)
    }
    outputs = [
        helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), None)
        for name in op.outputs
    ]
    graph = helper.make_graph([node], "one", inputs, outputs, constants)
    return whole(graph)


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


def expected(op: ops.OpDef, args: tuple[Any, ...]) -> list[np.ndarray]:
    result = op.torch_op(*args)
    found = result if isinstance(result, tuple) else (result,)
    frames = {name for name in op.outputs if name.startswith("last_")} - {"last_line"}
    return [
        (y if name in frames else y.movedim(-1, 0)).numpy()
        for name, y in zip(op.outputs, found, strict=True)
    ]


def assert_equal(found: list[np.ndarray], wanted: list[np.ndarray], rtol: float = 0.0) -> None:
    assert len(found) == len(wanted)
    for value, reference in zip(found, wanted, strict=True):
        assert (value.shape, value.dtype) == (reference.shape, reference.dtype)
        if rtol == 0:
            np.testing.assert_array_equal(value, reference)
        elif reference.size:
            assert np.abs(value - reference).max() <= rtol * np.abs(reference).max()


def tolerance(op: ops.OpDef) -> float:
    """Sums of floats have another order than torch's; all else is equal."""
    feedback = op.name.startswith("Recurrent") and "Float" in op.name
    synapse = "weight" in op.inputs or "weight_real" in op.inputs
    return 2e-6 if feedback or (synapse and not op.name.startswith("Quantized")) else 0.0


def cuba(x: Tensor, *, graded: bool = False, level: float = 3000, state: int = 0) -> Any:
    u = torch.full(x.shape[:-1], state)
    return (x, torch.tensor([1024.0]), torch.tensor([128.0]), u, u.clone(), 4096, level, 1.0, 1.0,
            graded)  # fmt: skip


def currents(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-24, 40, shape, generator=generator) / 32


def feeds_of(
    op: ops.OpDef, args: tuple[Any, ...], session: ort.InferenceSession
) -> dict[str, np.ndarray]:
    """What a session of the op's model takes, from the arguments of the torch op."""
    arrays = dict(zip(op.inputs, split(args)[0], strict=True))
    return {
        info.name: time_first(arrays[info.name], info.name, sequences_of(op))
        for info in session.get_inputs()
    }


def session_of(model: onnx.ModelProto, threads: int = 2) -> ort.InferenceSession:
    """Open a session with the kernels of the processor."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # so that sanitizers see every tensor's end
    options.register_custom_ops_library(str(native.library()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(op: ops.OpDef, args: tuple[Any, ...], threads: int = 2) -> list[np.ndarray]:
    """Outputs of the op's kernel, from the arguments of the torch op."""
    session = session_of(model_of(op, args, sequences_of(op)), threads)
    return session.run(None, feeds_of(op, args, session))


def run_floats(
    name: str, x: np.ndarray, kernels: list[np.ndarray], bias: np.ndarray | None = None, *,
    constant: bool = True, threads: int = 2, **attributes: Any,
) -> list[np.ndarray]:  # fmt: skip
    """Outputs of a synapse with float weights, which are constants of the model or inputs."""
    given = {f"w{k}": kernel for k, kernel in enumerate(kernels)}
    if bias is not None:
        given["b"] = bias
    outputs = [f"y{k}" for k in range(len(kernels))]
    node = helper.make_node(name, ["x", *given], outputs, domain=ops.DOMAIN, **attributes)
    feeds = {"x": x} if constant else {"x": x, **given}
    axes = {"x": [f"a{i}" for i in range(x.ndim)]}
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes.get(name, value.shape))
        for name, value in feeds.items()
    ]
    results = [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None) for y in outputs]
    held = [numpy_helper.from_array(v, n) for n, v in given.items()] if constant else []
    graph = helper.make_graph([node], "one", inputs, results, held)
    return session_of(whole(graph), threads).run(None, feeds)
