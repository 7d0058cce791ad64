"""Convolutions of a whole sequence, in tiles of images that stay in the processor's cache.

Torch code that runs once over a sequence folds time into the batch. Its convolutions, norms and
pools then take T·N images at once, and each writes to memory what the next one reads there. The
images do not depend on each other, so any number of them may go through all of these operators
before the next ones do ::

    x (T, N, C, H, W) -> Reshape (T·N, C, H, W) -> Conv -> MaxPool -> Reshape          becomes
    x (T, N, C, H, W) -> Reshape (T·N, C, H, W) -> Reshape (tiles, images, C, H, W)
        -> Scan <body = Conv -> MaxPool> -> Reshape

A convolution or pool of this package is a node over a sequence (T, N, C, H, W). Its tiles are
sequences of one sample, and the node stands in the body as it is ::

    x (T, N, C, H, W) -> QuantizedConv                                                 becomes
    x (T, N, C, H, W) -> Reshape (tiles, images, 1, C, H, W)
        -> Scan <body = QuantizedConv> -> Reshape

The graph finds the number of images when it runs: the largest of some numbers that divides T·N, and
with which no value of a tile is larger than :data:`BYTES_AT_ONCE`. So no image is left over, and
small calls have one tile. Small images stay as they are, for they gain nothing; a graph that has
tiles already takes somewhat smaller ones, too, which cost it less. The Scan has no
states. Its weights lie in its body, for ONNX Runtime has its fast convolutions where weights are
constants of the same graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import onnx_ir as ir

from synapse_onnx.compiler.names import unique
from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.model.tiles import TILES

__all__ = ["BYTES_AT_ONCE", "BYTES_BESIDE", "BYTES_OF_IMAGE", "put_in_tiles"]

#: most bytes of a value of a tile: some such values fit into the cache of one core
BYTES_AT_ONCE = 1 << 19

#: a graph has tiles where some image has so many bytes: 12 KiB alone gained nothing, 24 a sixth
BYTES_OF_IMAGE = 20 << 10

#: smaller ones stay as they are in any case
BYTES_BESIDE = 10 << 10

#: numbers of images of a tile
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 18, 20, 24, 25, 28, 30, 32, 36, 40, 48, 50,
          56, 60, 64, 72, 80, 96, 100, 120, 128, 160, 192, 200, 256)  # fmt: skip

#: operators that compute every image by itself, from one value that has images
_OF_IMAGES = {"AveragePool", "BatchNormalization", "Conv", "MaxPool", "Relu"}

#: nodes of this package that do, from a sequence (T, N, C, H, W)
_OF_SEQUENCES = {
    *("Conv", "ConvTranspose", "Pool", "Unpool"),
    *("QuantizedConv", "QuantizedConvTranspose", "QuantizedPool", "QuantizedUnpool"),
    *("QuantizedBiasedConv", "QuantizedBiasedConvTranspose"),
}


class _Chain(NamedTuple):
    """Operators of images that follow one another, and what the first of them reads.

    Attributes:
        entry: the images, (T * N, C, ...) or (T, N, C, ...).
        axes: how many axes of it count images, 1 or 2.
        nodes: the operators.
    """

    entry: ir.Value
    axes: int
    nodes: Sequence[ir.Node]

    @property
    def result(self) -> ir.Value:
        """What the last one gives."""
        return self.nodes[-1].outputs[0]

    @property
    def constants(self) -> list[ir.Value]:
        """What they read besides the images."""
        found = {x: None for node in self.nodes for x in node.inputs[1:] if x is not None}
        return list(found)

    @property
    def size_of_image(self) -> int:
        """The bytes of an image where it is largest on its way."""
        values = (self.entry, *(node.outputs[0] for node in self.nodes))
        return 4 * max(prod(_image(value, self.axes) or []) for value in values)

    @property
    def fits(self) -> bool:
        """Whether the number of images is fixed, and all of them fit in one tile."""
        fixed = [n for n in list(self.entry.shape or ())[: self.axes] if isinstance(n, int)]
        return len(fixed) == self.axes and prod(fixed) * self.size_of_image <= BYTES_AT_ONCE


def put_in_tiles(graph: ir.Graph) -> int:
    """Put convolutions over whole sequences, with what follows them, in tiles; return how many."""
    writer = _Writer(graph)
    places = {node: place for place, node in enumerate(graph)}
    found = [chain for node in graph if (chain := _chain_at(node)) and not chain.fits]
    largest = max((chain.size_of_image for chain in found), default=0)
    # what one convolution needs to know of N and T serves the others
    least = BYTES_OF_IMAGE if largest < BYTES_OF_IMAGE else min(BYTES_BESIDE, BYTES_OF_IMAGE)
    found = [chain for chain in found if chain.size_of_image >= least]
    for chain in sorted(found, key=lambda chain: places[chain.nodes[0]]):
        writer.put(chain)
    return len(found)


def _chain_at(node: ir.Node) -> _Chain | None:
    """Return the chain that begins with a node of this package, or behind a Reshape.

    The Reshape makes (T * N, C, ...) of (T, N, C, ...). What the operators take besides the images
    is read by nothing else, so that it can go with them.
    """
    chain = _of_sequences(node) or _behind(node)
    if chain is None:
        return None
    alone = all(use.node in chain.nodes for value in chain.constants for use in value.uses())
    return chain if alone and all(map(_is_stored, chain.constants)) else None


def _of_sequences(node: ir.Node) -> _Chain | None:
    """Return a node of this package that computes images by themselves."""
    if node.domain != DOMAIN or node.op_type not in _OF_SEQUENCES or node.inputs[0] is None:
        return None
    _infer(node.inputs[0])
    ends = (node.inputs[0], *node.outputs)
    if len(ends) != 2 or not all(_image(value, 2) for value in ends):
        return None
    return _Chain(node.inputs[0], 2, [node])


def _infer(value: ir.Value) -> None:
    """Give a value its type and shape, which what prepares an input lacks: Transpose, Cast."""
    made = value.producer()
    if value.shape is not None or made is None or made.domain or not made.inputs:
        return
    source = made.inputs[0]
    if source is None or made.op_type not in ("Cast", "Transpose"):
        return
    _infer(source)
    if source.shape is None:
        return
    if made.op_type == "Cast":
        kind = ir.DataType(made.attributes["to"].as_int())
        value.shape, value.type = ir.Shape(source.shape), ir.TensorType(kind)
    elif "perm" in made.attributes:
        axes = made.attributes["perm"].as_ints()
        value.shape, value.type = ir.Shape([source.shape[i] for i in axes]), source.type


def _behind(fold: ir.Node) -> _Chain | None:
    """Return the operators of images behind a Reshape, if one is a convolution."""
    if not _folds_time(fold):
        return None
    nodes: list[ir.Node] = []
    value = fold.outputs[0]
    while (node := _only_reader(value)) is not None and _is_of_images(node, value):
        nodes.append(node)
        value = node.outputs[0]
    if not any(node.op_type == "Conv" for node in nodes):
        return None
    return _Chain(fold.outputs[0], 1, nodes)


def _folds_time(node: ir.Node) -> bool:
    """Whether a node is a Reshape from (T, N, C, ...) to (T * N, C, ...)."""
    if node.op_type != "Reshape" or node.domain or node.inputs[0] is None:
        return False
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None or _image(node.outputs[0], 1) is None:
        return False
    return len(before) == len(after) + 1 and list(before)[2:] == list(after)[1:]


def _image(value: ir.Value, axes: int) -> list[int] | None:
    """Return the sizes of an image, (C, ...), behind so many axes; None where one is not known."""
    # a node of this package takes bytes, too, and computes with floats
    if value.shape is None or (axes == 1 and value.dtype != ir.DataType.FLOAT):
        return None
    inner = list(value.shape)[axes:]
    sizes = [size for size in inner if isinstance(size, int) and size > 0]
    return sizes if len(sizes) == len(inner) >= 2 else None


def _is_stored(value: ir.Value) -> bool:
    """Whether a value is a constant of the file, and no output."""
    return value.is_initializer() and not value.is_graph_output()


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
    known = all(_is_stored(x) for x in node.inputs[1:] if x is not None)
    return known and _image(node.outputs[0], 1) is not None


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

    def put(self, chain: _Chain) -> None:
        """Put operators that follow one another in tiles."""
        entry, result = chain.entry, chain.result
        before, after = (_image(value, chain.axes) or [] for value in (entry, result))
        self._next, self._last = chain.nodes[0], None
        self._stem = f"{chain.nodes[0].name}{TILES}"
        lead = self._op("Shape", entry, start=0, end=chain.axes)
        counts = [1] * (chain.axes - 1)  # a tile is a sequence of one sample
        parted = self._op(
            "Reshape", entry, self._tiles(chain, lead, [*counts, *before]), allowzero=1
        )
        parted.type, parted.shape = entry.type, ir.Shape([None, None, *counts, *before])
        whole = self._op("Concat", lead, self._ints(*after), axis=0)
        final = self._op("Reshape", result, whole, allowzero=1)
        final.type, final.shape = result.type, result.shape
        self._take_the_place_of(result, final)
        self._last = whole.producer()
        body = self._body(chain)
        joined = self._op("Scan", parted, body=body, num_scan_inputs=1)
        joined.type, joined.shape = final.type, ir.Shape([None, None, *counts, *after])
        last = final.producer()
        assert last is not None
        last.replace_input_with(0, joined)

    def _take_the_place_of(self, result: ir.Value, final: ir.Value) -> None:
        """Let all that reads a value read another one, of the same name, computed from it."""
        for use in list(result.uses()):
            if use.node is not final.producer():
                use.node.replace_input_with(use.idx, final)
        final.name, result.name = result.name, final.name
        if result.is_graph_output():
            self._graph.outputs[:] = [final if x is result else x for x in self._graph.outputs]

    def _tiles(self, chain: _Chain, lead: ir.Value, image: Sequence[int]) -> ir.Value:
        """Write the shape of all tiles of images.

        Of no images there is one tile, for ONNX Runtime has no Scan without steps.
        """
        one = self._ints(1)
        sizes = tuple(
            n if isinstance(n, int) else n.value
            for n in list(chain.entry.shape or ())[: chain.axes]
        )
        key: object = chain.entry if None in sizes else sizes
        if key not in self._known:
            images = self._op("ReduceProd", lead, keepdims=1) if chain.axes > 1 else lead
            some = self._op("Max", images, one)
            tried = self._op("Concat", self._ints(*_SIZES), some, axis=0)
            divides = self._op("Equal", self._op("Mod", some, tried), self._ints(0))
            self._known[key] = images, self._op("Where", divides, tried, one)
        images, fitting = self._known[key]
        most = max(1, BYTES_AT_ONCE // chain.size_of_image)
        small = self._op("LessOrEqual", fitting, self._ints(most))
        size = self._op("ReduceMax", self._op("Where", small, fitting, one), keepdims=1)
        tiles = self._op("Max", self._op("Div", images, size), one)
        each = self._op("Div", images, tiles)
        return self._op("Concat", tiles, each, self._ints(*image), axis=0)

    def _body(self, chain: _Chain) -> ir.Graph:
        """Move operators and their constants to a graph of their own, over one tile."""
        entry, constants, result = chain.entry, chain.constants, chain.result
        tile = ir.Value(name=unique(f"{self._stem}:in", self._taken), type=entry.type)
        for constant in constants:
            del self._graph.initializers[str(constant.name)]
        self._graph.remove(chain.nodes)
        chain.nodes[0].replace_input_with(0, tile)
        images: list[Any] = [ir.SymbolicDim("images"), *([1] * (chain.axes - 1))]
        tile.shape = ir.Shape([*images, *list(entry.shape or ())[chain.axes :]])
        for node in chain.nodes:
            (value,) = node.outputs
            value.shape = ir.Shape([*images, *list(value.shape or ())[chain.axes :]])
        return ir.Graph(
            [tile], [result], nodes=chain.nodes, initializers=constants, name=self._stem
        )

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Write a node after the last one, and return its output."""
        node = ir.node(
            op_type, inputs, attributes, name=unique(f"{self._stem}/{op_type}", self._names)
        )  # fmt: skip
        node.outputs[0].name = unique(f"{node.name}:out", self._taken)
        if self._last is None:
            self._graph.insert_before(self._next, node)
        else:
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
