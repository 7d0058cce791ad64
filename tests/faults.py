"""Faults that are planted in a model of ``networks.Convolutional``, each in one layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from graphs import all_nodes

Fault = Callable[[onnx.ModelProto], None]


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def replace_values(
    model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], object]
) -> None:
    tensor = initializer(model, name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))


def one_weight(model: onnx.ModelProto) -> None:
    def change(array: np.ndarray) -> None:
        array[1, 0, 1, 1, 0] += 1

    replace_values(model, "conv.weight", change)


def _one_decay(model: onnx.ModelProto) -> None:
    def change(array: np.ndarray) -> None:
        array += 1  # one 4096th

    replace_values(model, "pool_neuron.voltage_decay", change)


def _threshold(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.name == "dense_neuron")
    next(a for a in node.attribute if a.name == "threshold").i -= 1000


def _axes(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Transpose")
    perm = node.attribute[0]
    perm.ints[3], perm.ints[4] = perm.ints[4], perm.ints[3]


def _no_reset(model: onnx.ModelProto) -> None:
    body = next(function for function in model.functions if function.name == "Cuba")
    inner = [node for top in body.node for a in top.attribute for node in all_nodes(a.g.node)]
    below = {node.output[0] for node in inner if node.op_type == "Less"}
    kept = {n.output[0] for n in inner if n.op_type == "Cast" and n.input[0] in below}
    resets = [node for node in inner if node.op_type == "Mul" and kept & set(node.input)]
    assert len(resets) == 2, "one loop in 32 bits, one in 64"
    for node in resets:
        (voltage,) = set(node.input) - kept
        node.op_type = "Identity"
        del node.input[:]
        node.input.append(voltage)


#: what is wrong -> how it is planted, and the layer that is at fault
FAULTS: dict[str, tuple[Fault, str]] = {
    "one weight, one step": (one_weight, "conv"),
    "one decay, 1/4096": (_one_decay, "pool_neuron"),
    "threshold": (_threshold, "dense_neuron"),
    "missing reset": (_no_reset, "conv_neuron"),
    "swapped axes": (_axes, "conv"),
}
