"""What a model does with an input: spikes and synaptic operations.

A synaptic operation (SynOp) is one non-zero value that goes through one connection. Its dense
counterpart is the multiply-accumulate (MAC) of every value, zero or not. The zeros that pad an
image are no values, and what they would be multiplied by counts on neither side; weights of zero
are connections like others. A complex synapse has two connections where a real one has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import ModelError, ShapeError, SynapseError
from synapse_onnx.model.graph import DOMAIN, ends_of, places_along, with_outputs
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.report._ops import SYNAPSES, base_op, weights_of
from synapse_onnx.runtime.session import Session

__all__ = ["Activity", "Spikes", "Synapse", "count_activity"]

#: standard operators with weights that ordinary torch code may bring
_PRODUCTS = ("MatMul", "MatMulInteger", "Gemm", "Conv", "ConvInteger", "ConvTranspose", "Einsum")


@dataclass(frozen=True)
class Spikes:
    """Values that one layer gave: their number over batch, channels and time, and how many spiked.

    Attributes:
        layer: path of the layer.
        op: its op.
        values: number of values.
        nonzero: how many are not zero.
    """

    layer: str
    op: str
    values: int
    nonzero: int

    @property
    def rate(self) -> float:
        """Return the fraction of values that are not zero."""
        return _fraction(self.nonzero, self.values)


@dataclass(frozen=True)
class Synapse(Spikes):
    """Values that entered one synapse, and what they cost.

    Attributes:
        synops: connections that a non-zero value went through.
        macs: connections that any value went through: the work of a dense run.
    """

    synops: int
    macs: int

    @property
    def ratio(self) -> float:
        """Return SynOps by MACs."""
        return _fraction(self.synops, self.macs)


@dataclass(frozen=True)
class Activity:
    """What a model did with an input.

    Attributes:
        synapses: one entry a synapse, in the order of the graph; the feedback of a recurrent
            neuron is one of its own.
        neurons: one entry a layer that gives spikes.
        uncounted: layer or node, and the op, of all that is neither.
        products: those of ``uncounted`` that multiply by weights, so that the sums lack them.
    """

    synapses: tuple[Synapse, ...]
    neurons: tuple[Spikes, ...]
    uncounted: tuple[tuple[str, str], ...]
    products: tuple[tuple[str, str], ...]

    @property
    def all_synapses(self) -> Synapse:
        """Return the sums over all synapses."""
        sums = [sum(getattr(row, name) for row in self.synapses) for name in _COUNTS]
        return Synapse("in all", "", *sums)

    @property
    def all_neurons(self) -> Spikes:
        """Return the sums over all layers that give spikes."""
        sums = [sum(getattr(row, name) for row in self.neurons) for name in _COUNTS[:2]]
        return Spikes("in all", "", *sums)


_COUNTS = ("values", "nonzero", "synops", "macs")


def count_activity(
    model: onnx.ModelProto,
    inputs: Sequence[ArrayLike],
    native: bool | None = None,
    providers: Sequence[str] | None = None,
) -> Activity:
    """Count the spikes and synaptic operations of one run, exactly.

    Args:
        model: an exported model; one for streaming starts from fresh states.
        inputs: as for :meth:`Session.run`.
        native: as for :class:`Session`.
        providers: as for :class:`Session`.

    Raises:
        ModelError: the model was not written by synapse-onnx, or ONNX Runtime refuses it.
        InputError: wrong number of inputs, or values that the type cannot hold.
        ShapeError: wrong rank or size.
    """
    Metadata.read(model)
    try:
        counter = _Counter(model)
        shown = {name: f"{name}/counted" for name in counter.watched()}
        session = Session(with_outputs(model, shown), providers, native)
        results = session.run(*inputs)
        arrays = results if isinstance(results, tuple) else (results,)
        values = dict(zip(session.outputs, arrays, strict=True))
        return counter.count({name: values[value] for name, value in shown.items()})
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, SynapseError):
            raise
        # nodes that call themselves ours and lack what ours have; which error, by what is missing
        raise ModelError("a layer of the model is not one that synapse-onnx writes") from error


# -- counting -------------------------------------------------------------------------------------


class _Counter:
    """Counts what goes through the nodes of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        model = without_tiles(model)
        functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
        #: every node, and names in the graph of what its function takes and returns
        self._nodes = [(node, *ends_of(node, functions)) for node in model.graph.node]
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._weights = {name: tuple(tensor.dims) for name, tensor in self._tensors.items()}
        self._makers = {name: node for node in model.graph.node for name in node.output}

    def watched(self) -> list[str]:
        """Return the names of the values that are counted."""
        names = []
        for node, inputs, outputs in self._nodes:
            if self._is_synapse(node, inputs):
                names.append(inputs["x"])
            if "s" in outputs:
                names.append(outputs["s"])
            if _is_recurrent(inputs):
                names.append(inputs["spikes"])
        return list(dict.fromkeys(names))

    def count(self, values: Mapping[str, NDArray[Any]]) -> Activity:
        """Count, given every value that is watched."""
        synapses, neurons, uncounted, products = [], [], [], []
        for node, inputs, outputs in self._nodes:
            is_synapse = self._is_synapse(node, inputs)
            if is_synapse:
                synapses.append(self._synapse(node, inputs, values[inputs["x"]]))
            if _is_recurrent(inputs):
                # the spikes before the first step, and those of every step that has a next one
                fed = (values[inputs["spikes"]], values[outputs["s"]][:-1])
                synapses.append(self._product(f"{_layer(node)} (feedback)", node, inputs, *fed))
            if "s" in outputs:
                neurons.append(Spikes(_layer(node), node.op_type, *_sizes(values[outputs["s"]])))
            elif not is_synapse:
                if node.domain == DOMAIN:
                    uncounted.append((_layer(node), node.op_type))
                if node.op_type in _PRODUCTS or base_op(node) in SYNAPSES:
                    products.append((_layer(node), node.op_type))
        both = dict.fromkeys([*uncounted, *products])
        return Activity(tuple(synapses), tuple(neurons), tuple(both), tuple(products))

    def _is_synapse(self, node: onnx.NodeProto, inputs: Mapping[str, str]) -> bool:
        """Whether a node is a synapse whose weights are in the file."""
        known = base_op(node) in SYNAPSES
        return known and all(name in self._weights for name in weights_of(inputs))

    def _synapse(self, node: onnx.NodeProto, inputs: Mapping[str, str], x: NDArray[Any]) -> Synapse:
        if base_op(node) == "Dense":
            return self._product(_layer(node), node, inputs, x)
        weights = [self._weights[name] for name in weights_of(inputs)]
        if x.ndim != 5:
            raise ShapeError(f"{_layer(node)}: expected images over time, got shape {x.shape}")
        fan_out = _image_fan_out(node, weights[0], x.shape[3:]) * len(weights)
        rows, columns = (
            slice(before, size - after)
            for size, (before, after) in zip(x.shape[3:], self._borders(inputs["x"]), strict=True)
        )
        x, fan_out = x[..., rows, columns], fan_out[rows, columns]
        active = np.count_nonzero(x, axis=(0, 1, 2))
        synops = int((active * fan_out).sum())
        macs = prod(x.shape[:3]) * int(fan_out.sum())
        return Synapse(_layer(node), node.op_type, *_sizes(x), synops, macs)

    def _borders(self, name: str) -> list[tuple[int, int]]:
        """Return the zeros that a Pad put before and after the rows and columns of an image.

        Pooling pads its input by a node of its own where the kernel does not divide it.
        """
        none = [(0, 0), (0, 0)]
        node = self._makers.get(name)
        order = list(range(5))
        if node is not None and node.op_type == "Transpose":
            order = list(onnx.helper.get_attribute_value(node.attribute[0]))
            node = self._makers.get(node.input[0])
        if node is None or node.op_type != "Pad" or any(node.input[2:]):
            return none  # the third input is a value other than zero
        modes = [a.s for a in node.attribute if a.name == "mode"]
        if modes not in ([], [b"constant"]) or node.input[1] not in self._tensors:
            return none
        sizes = onnx.numpy_helper.to_array(self._tensors[node.input[1]]).tolist()
        if len(sizes) != 2 * len(order) or min(sizes) < 0:
            return none
        borders = [(sizes[axis], sizes[len(order) + axis]) for axis in order]
        return borders[3:] if not any(map(any, borders[:3])) else none

    def _product(
        self, name: str, node: onnx.NodeProto, inputs: Mapping[str, str], *parts: NDArray[Any]
    ) -> Synapse:
        """Count what goes through the dense weights of a node."""
        outputs = sum(self._weights[weight][0] for weight in weights_of(inputs))
        values = sum(part.size for part in parts)
        nonzero = sum(int(np.count_nonzero(part)) for part in parts)
        return Synapse(name, node.op_type, values, nonzero, nonzero * outputs, values * outputs)


def _image_fan_out(
    node: onnx.NodeProto, weight: Sequence[int], size: Sequence[int]
) -> NDArray[np.int64]:
    """Return the connections of a pixel of one channel, for each pixel: (H, W)."""
    kind = base_op(node)
    transposed = kind in ("ConvTranspose", "Unpool")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    taps = []  # of each axis: how many (output, tap) pairs meet each position
    for axis, positions in enumerate(size):
        kernel, stride = weight[2 + axis], attributes["strides"][axis]
        dilation, pads = attributes["dilations"][axis], attributes["pads"][axis::2]
        outputs = places_along(
            positions, sum(pads), kernel, stride, dilation, transposed=transposed
        )
        strided, plain = (positions, outputs) if transposed else (outputs, positions)
        places = np.add.outer(np.arange(strided) * stride, np.arange(kernel) * dilation) - pads[0]
        met = (places >= 0) & (places < plain)
        counts = met.sum(axis=1) if transposed else np.bincount(places[met], minlength=positions)
        taps.append(counts)
    channels = {"Conv": weight[0] // attributes["group"], "ConvTranspose": weight[1]}.get(kind, 1)
    return np.asarray(np.multiply.outer(*taps) * channels, dtype=np.int64)


def _is_recurrent(inputs: Mapping[str, str]) -> bool:
    return "spikes" in inputs and bool(weights_of(inputs))


def _layer(node: onnx.NodeProto) -> str:
    return layer_of(node) or node.name or node.output[0]


def _sizes(array: NDArray[Any]) -> tuple[int, int]:
    return array.size, int(np.count_nonzero(array))


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
