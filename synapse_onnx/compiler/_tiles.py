"""Convolutions of a whole sequence, in tiles of images that stay in the processor's cache.

Torch code that runs once over a sequence folds time into the batch. Its convolutions, norms and
pools then take T·N images at once, and each writes to memory what the next one reads there. The
images do not depend on each other, so any number of them may go through all of these operators
before the next ones do ::

    x (T, N, C, H, W) -> Reshape (T·N, C, H, W) -> Conv -> MaxPool -> Reshape          becomes
    x (T, N, C, H, W) -> Reshape (T·N, C, H, W) -> Reshape (tiles, images, C, H, W)
        -> Scan <body = Conv -> MaxPool> -> Reshape

The graph finds the number of images when it runs: the largest of some numbers that divides T·N, and
with which no value of a tile is larger than :data:`BYTES_AT_ONCE`. So no image is left over, and
small calls have one tile. Small images stay as they are, for they gain nothing. The Scan has no
states. Its weights lie in its body, for ONNX Runtime has its fast convolutions where weights are
constants of the same graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from synapse_onnx.compiler.names import unique
from synapse_onnx.model.tiles import TILES

__all__ = ["BYTES_AT_ONCE", "BYTES_OF_IMAGE", "put_in_tiles"]

#: most bytes of a value of a tile: some such values fit into the cache of one core
BYTES_AT_ONCE = 1 << 19

#: images whose largest value has fewer bytes stay as they are: 12 kB gained nothing, 24 kB a sixth
BYTES_OF_IMAGE = 20 << 10

#: numbers of images of a tile
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 18, 20, 24, 25, 28, 30, 32, 36, 40, 48, 50,
          56, 60, 64, 72, 80, 96, 100, 120, 128, 160, 192, 200, 256)  # fmt: skip

#: operators that compute every image by itself, from one value that has images
_OF_IMAGES = {"AveragePool", "BatchNormalization", "Conv", "MaxPool", "Relu"}


def put_in_tiles(graph: ir.Graph) -> int:
    """Put convolutions over whole sequences, with what follows them, in tiles; return how many."""
    writer = _Writer(graph)
    found = [(node, chain) for node in list(graph) if (chain := _chain_after(node))]
    for fold, chain in found:
        writer.put(fold, chain)
    return len(found)


def _chain_after(fold: ir.Node) -> list[ir.Node]:
    """Return the operators of images that follow a Reshape, of which one is a convolution.

    The Reshape makes (T * N, C, ...) of (T, N, C, ...). What the operators take besides the images
    is read by nothing else, so that it can go with them.
    """
    if not _folds_time(fold):
        return []
    chain: list[ir.Node] = []
    value = fold.outputs[0]
    while (node := _only_reader(value)) is not None and _is_of_images(node, value):
        chain.append(node)
        value = node.outputs[0]
    constants = {x for node in chain for x in node.inputs[1:] if x is not None}
    alone = {use.node for constant in constants for use in constant.uses()} <= set(chain)
    suits = alone and any(node.op_type == "Conv" for node in chain)
    if not suits or _bytes(fold.outputs[0], chain) < BYTES_OF_IMAGE:
        return []
    return [] if _fits(fold.outputs[0], chain) else chain


def _fits(folded: ir.Value, chain: Sequence[ir.Node]) -> bool:
    """Whether the number of images is fixed, and all of them fit in one tile."""
    images = folded.shape[0] if folded.shape is not None else None
    return isinstance(images, int) and images * _bytes(folded, chain) <= BYTES_AT_ONCE


def _bytes(folded: ir.Value, chain: Sequence[ir.Node]) -> int:
    """Return the bytes of an image where it is largest on its way."""
    return 4 * max(prod(_image(value) or []) for value in (folded, *(n.outputs[0] for n in chain)))


def _folds_time(node: ir.Node) -> bool:
    """Whether a node is a Reshape from (T, N, C, ...) to (T * N, C, ...)."""
    if node.op_type != "Reshape" or node.domain or node.inputs[0] is None:
        return False
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None or _image(node.outputs[0]) is None:
        return False
    return len(before) == len(after) + 1 and list(before)[2:] == list(after)[1:]


def _image(value: ir.Value) -> list[int] | None:
    """Return the sizes of an image of floats, (C, ...); None where a size is not known."""
    if value.dtype != ir.DataType.FLOAT or value.shape is None or len(value.shape) < 3:
        return None
    sizes = [size for size in list(value.shape)[1:] if isinstance(size, int) and size > 0]
    return sizes if len(sizes) == len(value.shape) - 1 else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _is_of_images(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node of the same graph computes every image of a value by itself."""
    producer = value.producer()
    if node.domain or node.op_type not in _OF_IMAGES or len(node.outputs) != 1:
        return False
    if producer is None or node.graph is not producer.graph or node.inputs[0] is not value:
        return False
    constants = [x for x in node.inputs[1:] if x is not None]
    known = all(x.is_initializer() and not x.is_graph_output() for x in constants)
    return known and _image(node.outputs[0]) is not None


class _Writer:
    """Writes tiles into a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        nodes = list(graph.all_nodes())
        self._names = {node.name for node in nodes}
        self._taken = {value.name for node in nodes for value in node.outputs}
        self._taken |= {value.name for value in graph.inputs} | set(graph.initializers)
        self._constants: dict[tuple[int, ...], ir.Value] = {}
        #: T * N -> the number when the file runs, and numbers of images that divide it
        self._known: dict[object, tuple[ir.Value, ir.Value]] = {}

    def put(self, fold: ir.Node, chain: Sequence[ir.Node]) -> None:
        """Put operators that follow one another, and a Reshape, in tiles."""
        folded, result = fold.outputs[0], chain[-1].outputs[0]
        before, after = _image(folded) or [], _image(result) or []
        self._last, self._stem = fold, f"{chain[0].name}{TILES}"
        images, shape = self._sizes(folded, _bytes(folded, chain), before)
        parted = self._op("Reshape", folded, shape, allowzero=1)
        parted.type, parted.shape = folded.type, ir.Shape([None, None, *before])
        whole = self._op("Concat", images, self._ints(*after), axis=0)
        final = self._op("Reshape", result, whole, allowzero=1)
        final.type, final.shape = result.type, result.shape
        self._take_the_place_of(result, final)
        self._last = whole.producer() or fold
        joined = self._op("Scan", parted, body=self._body(chain, folded), num_scan_inputs=1)
        joined.type, joined.shape = final.type, ir.Shape([None, None, *after])
        last = final.producer()
        assert last is not None
        last.replace_input_with(0, joined)

    def _take_the_place_of(self, result: ir.Value, final: ir.Value) -> None:
        """Let all that reads a value read another one instead, which is computed from it."""
        for use in list(result.uses()):
            if use.node is not final.producer():
                use.node.replace_input_with(use.idx, final)
        if result.is_graph_output():
            final.name, result.name = result.name, final.name
            self._graph.outputs[:] = [final if x is result else x for x in self._graph.outputs]

    def _sizes(
        self, folded: ir.Value, size_of_image: int, image: Sequence[int]
    ) -> tuple[ir.Value, ir.Value]:
        """Write T * N, and the shape of all tiles of images of so many bytes.

        Of no images there is one tile, for ONNX Runtime has no Scan without steps.
        """
        one = self._ints(1)
        assert folded.shape is not None
        key = folded.shape[0]
        if not isinstance(key, int) and key.value is None:
            key = folded  # type: ignore[assignment]
        if key not in self._known:
            images = self._op("Shape", folded, start=0, end=1)
            some = self._op("Max", images, one)
            tried = self._op("Concat", self._ints(*_SIZES), some, axis=0)
            divides = self._op("Equal", self._op("Mod", some, tried), self._ints(0))
            self._known[key] = images, self._op("Where", divides, tried, one)
        images, sizes = self._known[key]
        small = self._op("LessOrEqual", sizes, self._ints(max(1, BYTES_AT_ONCE // size_of_image)))
        size = self._op("ReduceMax", self._op("Where", small, sizes, one), keepdims=1)
        tiles = self._op("Max", self._op("Div", images, size), one)
        each = self._op("Div", images, tiles)
        return images, self._op("Concat", tiles, each, self._ints(*image), axis=0)

    def _body(self, chain: Sequence[ir.Node], folded: ir.Value) -> ir.Graph:
        """Move operators and their constants to a graph of their own, over one tile."""
        assert folded.shape is not None
        tile = ir.Value(name=unique(f"{self._stem}:in", self._taken), type=folded.type)
        constants = {x: None for node in chain for x in node.inputs[1:] if x is not None}
        for constant in constants:
            del self._graph.initializers[str(constant.name)]
        self._graph.remove(chain)
        chain[0].replace_input_with(0, tile)
        open_size = ir.SymbolicDim("images")
        tile.shape = ir.Shape([open_size, *list(folded.shape)[1:]])
        for node in chain:
            (value,) = node.outputs
            value.shape = ir.Shape([open_size, *list(value.shape or ())[1:]])
        return ir.Graph(
            [tile], [chain[-1].outputs[0]], nodes=chain, initializers=list(constants),
            name=self._stem,
        )  # fmt: skip

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Write a node after the last one, and return its output."""
        node = ir.node(
            op_type, inputs, attributes, name=unique(f"{self._stem}/{op_type}", self._names)
        )  # fmt: skip
        node.outputs[0].name = unique(f"{node.name}:out", self._taken)
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def _ints(self, *numbers: int) -> ir.Value:
        """Return a constant of int64."""
        if numbers not in self._constants:
            tensor = ir.tensor(list(numbers), dtype=ir.DataType.INT64)
            value = ir.Value(
                name=unique("constant_0", self._taken), const_value=tensor,
                shape=ir.Shape([len(numbers)]), type=ir.TensorType(ir.DataType.INT64),
            )  # fmt: skip
            self._graph.initializers.add(value)
            self._constants[numbers] = value
        return self._constants[numbers]
