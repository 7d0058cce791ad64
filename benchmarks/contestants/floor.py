"""The floor: the products alone, bare nodes of ONNX Runtime, and the bytes that neurons must move.

No neuron runs. What a product leaves is read and as many spikes are written, in float32: a copy of
so many bytes takes what this machine's memory takes for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from benchmarks._contest import Contestant, Run, UnsupportedError
from benchmarks._networks import Layer, Network
from benchmarks.contestants.plain_loop import step

Array = NDArray[Any]


def make(network: Network, spikes: Tensor) -> Run:
    """One graph of all products, each with an input of its own, time first."""
    x = spikes.movedim(-1, 0).contiguous()
    parts, feeds = [], {}
    copies: list[tuple[Array, Array]] = []
    for i, layer in enumerate(network.layers):
        y = step(layer, x)
        if layer.kind != "flatten":
            array, part = _product(i, layer, x, bytes_=network.numbers == "q8")
            parts.append(part)
            feeds[f"x{i}"] = array
            currents = np.zeros((2 if layer.kind == "resonator" else 1, *y.shape), np.float32)
            copies.append((currents, currents.copy()))
        x = y
    nodes, inputs, outputs, constants = map(list, zip(*parts, strict=True))
    graph = helper.make_graph(nodes, "floor", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run() -> None:
        session.run(None, feeds)
        for currents, written in copies:
            np.copyto(written, currents)

    return run


def _product(i: int, layer: Layer, x: Tensor, *, bytes_: bool) -> tuple[Array, tuple[Any, ...]]:
    """Return the input of a layer's product, and its node, input, output and weight."""
    kind, result = "Conv", onnx.TensorProto.FLOAT
    how: dict[str, Any] = {}
    if layer.kind == "recurrent":
        raise UnsupportedError("a product within a loop is no bare product")
    if layer.kind == "pool":
        array, weight = x.flatten(0, 1).numpy(), np.full((x.shape[2], 1, 2, 2), 0.5, np.float32)
        how = {"group": x.shape[2], "strides": [2, 2]}
    elif layer.kind == "conv":
        array, weight = x.flatten(0, 1).numpy(), layer.matrix.numpy()
        how = {"strides": list(layer.stride), "pads": [*layer.padding, *layer.padding]}
    else:
        kind, array = "MatMul", x.numpy()
        weight = layer.matrix.reshape(-1, layer.matrix.shape[-1]).numpy().T
        if bytes_:
            kind, result = "MatMulInteger", onnx.TensorProto.INT32
            array, weight = array.astype(np.uint8), np.round(weight * 32).astype(np.int8)
    array = np.ascontiguousarray(array)
    source = helper.np_dtype_to_tensor_dtype(array.dtype)
    return array, (
        helper.make_node(kind, [f"x{i}", f"w{i}"], [f"y{i}"], **how),
        helper.make_tensor_value_info(f"x{i}", source, array.shape),
        helper.make_tensor_value_info(f"y{i}", result, None),
        numpy_helper.from_array(np.ascontiguousarray(weight), f"w{i}"),
    )


CONTESTANT = Contestant("floor", "bare products, and a copy of currents to spikes; no neuron", make)
