"""Products of a graph with stored weights, and what goes through them: operations of NeuroBench.

NeuroBench 2.1.0 (``metrics/utils/layers/macs.py``) replaces the non-zero weights and the non-zero
inputs of a layer by 1 and its bias by 0, and sums up what the layer then gives. Here the same
number is counted in integers: non-zero values at an input, times the non-zero weights that read it.
NeuroBench adds up in float32, which rounds where a call has more than 2^24 operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.errors import ShapeError
from synapse_onnx.model.graph import DOMAIN, ends_of, places_along, taken_by
from synapse_onnx.model.metadata import layer_of
from synapse_onnx.report._ops import SYNAPSES, base_op, weights_of
from synapse_onnx.report._tapped import Place, Steps, Taps, body_of

__all__ = ["Connection", "Product", "fixed_values", "products_of"]

Array = NDArray[Any]

#: products that this module cannot count where their weights are stored
_OTHERS = ("MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "Einsum")


@dataclass(frozen=True)
class Connection:
    """A product with stored weights.

    Attributes:
        layer: path of the layer, or name of the node.
        op: its op.
        weights: number of its weights.
        zeros: how many are zero.
        dense: operations if no value and no weight were zero.
        macs: operations on a non-zero value and a non-zero weight, in calls with real values.
        acs: the same in calls whose input values are all -1, 0 or 1: they are additions.
        once: whether the file computes it once for all time steps.
    """

    layer: str
    op: str
    weights: int
    zeros: int
    dense: int
    macs: int
    acs: int
    once: bool


@dataclass(frozen=True)
class Product:
    """A product that is found in a graph: what it reads, and how it is counted.

    Attributes:
        name: path of the layer, or name of the node.
        op: its op.
        inputs: where its values are; those of a feedback are the state before the first step, and
            the spikes of all steps but the last.
        weight: name of its weights.
        fan: (weights, shape of the input of a call) -> connections of every input: all of them,
            and those of non-zero weights; the shape that follows the batch.
    """

    name: str
    op: str
    inputs: tuple[Place, ...]
    weight: Place
    fan: Callable[[Array, tuple[int, ...]], tuple[Array, Array]]
    axis: int | None = None

    def counted(self, taps: Taps) -> Connection:
        """Count what went through it."""
        weight = taps.value(self.weight)
        steps = self._steps(taps)
        dense = macs = acs = 0
        for call in steps.values:
            if self.axis is None:
                values = call
            else:  # (..., K): one row of inputs for each output
                values = np.moveaxis(call, self.axis, -1).reshape(-1, call.shape[self.axis])
            every, alive = self.fan(weight, values.shape[1:])
            rows = values.reshape(-1, *every.shape)
            dense += len(rows) * int(every.sum())
            operations = int((np.count_nonzero(rows, axis=0) * alive).sum())
            if bool(((values == 0) | (values == 1) | (values == -1)).all()):
                acs += operations
            else:
                macs += operations
        zeros = weight.size - int(np.count_nonzero(weight))
        return Connection(self.name, self.op, weight.size, zeros, dense, macs, acs, steps.once)

    def _steps(self, taps: Taps) -> Steps:
        if len(self.inputs) == 1:
            return taps.steps(self.inputs[0])
        start, spikes = (taps.value(place) for place in self.inputs)
        before = start.reshape(1, *spikes.shape[1:])
        return Steps(np.concatenate([before, spikes[:-1]]))


# -- how many connections an input has ------------------------------------------------------------


def _of_matrix(weight: Array, _: tuple[int, ...], *, inputs: int) -> tuple[Array, Array]:
    """Connections of every input of a matrix whose axis ``inputs`` runs over them."""
    matrix = weight.reshape(-1, 1) if weight.ndim == 1 else weight
    if matrix.ndim != 2:
        raise ShapeError(f"a product has weights of shape {weight.shape}; expected a matrix")
    alive = np.count_nonzero(matrix, axis=1 - inputs)
    return np.full(alive.shape, matrix.shape[1 - inputs], np.int64), alive.astype(np.int64)


def _of_rows(weight: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Connections of every input of a Dense synapse: (outputs, C, H, W, 1)."""
    alive = np.count_nonzero(weight, axis=0).reshape(-1)
    if alive.size != prod(shape):
        raise ShapeError(f"a synapse of {alive.size} inputs reads values of shape {shape}")
    return np.full(alive.shape, len(weight), np.int64), alive.astype(np.int64)


def _of_kernel(
    weight: Array, shape: tuple[int, ...], *, attributes: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Connections of every pixel of a convolution: (C, H, W). Zeros that pad an image count not."""
    axes = len(shape) - 1
    kernel = weight.reshape(*weight.shape[: 2 + axes])  # without a time axis of one step
    groups = int(attributes.get("group", 1))
    strides = attributes.get("strides") or [1] * axes
    dilations = attributes.get("dilations") or [1] * axes
    pads = attributes.get("pads") or [0] * 2 * axes
    by_group = kernel.reshape(groups, len(kernel) // groups, *kernel.shape[1:])
    taps = np.count_nonzero(by_group, axis=1).reshape(shape[0], *kernel.shape[2:])
    every = np.full(taps.shape, len(kernel) // groups, np.int64)
    alive = taps.astype(np.int64)
    for axis in range(axes):
        size, reach = shape[1 + axis], kernel.shape[2 + axis]
        stride, dilation = strides[axis], dilations[axis]
        outputs = places_along(
            size, pads[axis] + pads[axes + axis], reach, stride, dilation, transposed=False
        )
        met = np.zeros((reach, size), np.int64)  # outputs that a tap reads a pixel for
        for tap in range(reach):
            places = np.arange(outputs) * stride + tap * dilation - pads[axis]
            np.add.at(met[tap], places[(places >= 0) & (places < size)], 1)
        # the taps of this direction become its pixels, behind those of the others
        every = np.tensordot(every, met, axes=(1, 0))
        alive = np.tensordot(alive, met, axes=(1, 0))
    return every, alive


# -- finding them ---------------------------------------------------------------------------------


def fixed_values(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the values that do not depend on any input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in fixed for name in taken_by(node)) and node.op_type != "Scan":
            fixed.update(node.output)
    return fixed


def products_of(model: onnx.ModelProto) -> tuple[list[Product], list[tuple[str, str]]]:
    """Return the products with stored weights, and name and op of those that cannot be counted."""
    finder = _Finder(model)
    for node in model.graph.node:
        finder.look(node, "")
    return finder.found, finder.others


class _Finder:
    """Looks for products in a graph and in the steps of its loops."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
        self._fixed = fixed_values(model.graph)
        self._stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self._nodes = list(model.graph.node)
        self.found: list[Product] = []
        self.others: list[tuple[str, str]] = []

    def look(self, node: onnx.NodeProto, loop: str) -> None:
        """Add the products of a node."""
        body = body_of(node)
        if body is not None and not loop:
            self._fixed |= fixed_values(body)
            self._nodes = [*self._nodes, *body.node]
            for inner in body.node:
                self.look(inner, node.output[0])
            return
        if node.domain == DOMAIN:
            self._ours(node, loop)
        elif node.op_type in ("MatMul", "Gemm"):
            self._matrix(node, loop)
        elif node.op_type == "Conv":
            self._convolution(node, loop)
        elif node.op_type in _OTHERS and any(name in self._fixed for name in node.input):
            self._refuse(node)
        else:
            for inner in _within(node):
                if inner.op_type in ("MatMul", "Gemm", "Conv", *_OTHERS):
                    self._refuse(inner)

    def _refuse(self, node: onnx.NodeProto) -> None:
        self.others.append((self._name(node, ""), node.op_type))

    def _ours(self, node: onnx.NodeProto, loop: str) -> None:
        inputs, outputs = ends_of(node, self._functions)
        weights = weights_of(inputs)
        kind, name = base_op(node), layer_of(node) or node.name
        if not weights or (kind in SYNAPSES and kind not in ("Dense", "Conv")):
            return  # NeuroBench counts neither pools nor transposed convolutions
        if loop or len(weights) != 1 or weights[0] not in self._stored:
            self._refuse(node)
            return
        weight = Place(weights[0])
        if kind == "Dense":
            self._add(name, node, (Place(inputs["x"]),), weight, _of_rows)
        elif kind == "Conv":
            self._add(name, node, (Place(inputs["x"]),), weight, _kernel(node))
        elif "spikes" in inputs:
            fed = (Place(inputs["spikes"]), Place(outputs["s"]))
            self._add(f"{name} (feedback)", node, fed, weight, _of_rows)
        else:
            self._refuse(node)

    def _matrix(self, node: onnx.NodeProto, loop: str) -> None:
        left, right = node.input[0], node.input[1]
        if (left in self._fixed) == (right in self._fixed):
            return  # two values, as in attention, which NeuroBench has no layer for; or two weights
        turned = {a.name: bool(a.i) for a in node.attribute if a.name in ("transA", "transB")}
        rank = len(self._stored.get(right if right in self._fixed else left, (0, 0)))
        if rank not in (1, 2):
            self._refuse(node)
        elif right in self._fixed:
            inputs = 1 if turned.get("transB", False) else 0
            axis = -2 if turned.get("transA", False) else -1
            self._add(self._name(node, right), node, (Place(left, loop),), Place(right),
                      _matrix(inputs), axis)  # fmt: skip
        else:
            inputs = 0 if turned.get("transA", False) else 1
            axis = -1 if turned.get("transB", False) else -2
            self._add(self._name(node, left), node, (Place(right, loop),), Place(left),
                      _matrix(inputs), axis)  # fmt: skip

    def _convolution(self, node: onnx.NodeProto, loop: str) -> None:
        padded = next((a.s for a in node.attribute if a.name == "auto_pad"), b"NOTSET")
        if node.input[0] in self._fixed:
            return
        if node.input[1] not in self._fixed or padded not in (b"NOTSET", b"VALID"):
            self._refuse(node)
            return
        place = Place(node.input[0], loop)
        name = self._name(node, node.input[1])
        self._add(name, node, (place,), Place(node.input[1]), _kernel(node))

    def _add(
        self,
        name: str,
        node: onnx.NodeProto,
        inputs: tuple[Place, ...],
        weight: Place,
        fan: Callable[[Array, tuple[int, ...]], tuple[Array, Array]],
        axis: int | None = None,
    ) -> None:
        self.found.append(Product(name, node.op_type, inputs, weight, fan, axis))

    def _name(self, node: onnx.NodeProto, weight: str) -> str:
        """Return the path of a layer: of its weights, else of the bias that is added, or a name."""
        if weight.endswith(".weight"):
            return weight.removesuffix(".weight")
        for reader in self._nodes:
            if reader.op_type == "Add" and node.output[0] in reader.input:
                for name in reader.input:
                    if name in self._stored and name.endswith(".bias"):
                        return str(name.removesuffix(".bias"))
        return str(layer_of(node) or node.name or node.output[0])


def _kernel(node: onnx.NodeProto) -> Callable[[Array, tuple[int, ...]], tuple[Array, Array]]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return lambda weight, shape: _of_kernel(weight, shape, attributes=attributes)


def _matrix(inputs: int) -> Callable[[Array, tuple[int, ...]], tuple[Array, Array]]:
    return lambda weight, shape: _of_matrix(weight, shape, inputs=inputs)


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the graphs in a node."""
    graphs: Sequence[onnx.GraphProto] = [g for a in node.attribute for g in (a.g, *a.graphs)]
    for graph in graphs:
        for inner in graph.node:
            yield inner
            yield from _within(inner)
