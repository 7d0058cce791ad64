"""NIR graphs: networks of snnTorch, Norse, SpikingJelly, sinabs, Rockpool and others.

A graph holds nodes and edges; several edges into a node add up. NIR states neurons as differential
equations, and :mod:`synapse_onnx.readers._conventions` says how each framework steps through them.
Source of the format: the package nir, ``nir/ir/*.py``.
"""

from __future__ import annotations

import dataclasses
import graphlib
import keyword
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx import neuron, synapse
from synapse_onnx._extra import needed
from synapse_onnx.axon import Delay
from synapse_onnx.block.base import Bias
from synapse_onnx.errors import InputError, ShapeError, SynapseError
from synapse_onnx.readers._conventions import CONVENTIONS, Convention
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._network import Add, Network
from synapse_onnx.readers._nir_writer import to_nir
from synapse_onnx.readers._place import Place, located
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_nir", "to_nir"]

#: most neurons of a layer that are believed
MAX_NEURONS = 1 << 24
#: longest delay that is believed, in steps
MAX_DELAY = 1 << 16

Shape = tuple[int, ...]
Array = NDArray[Any]


def load_nir(
    path: Any,
    dt: float | None = None,
    framework: str = "",
    reset: str = "",
    integration: str = "",
) -> nn.Module:
    """Read a NIR graph as a torch module in the float regime.

    Args:
        path: a ``.nir`` file, or a ``nir.NIRGraph``.
        dt: seconds of a time step; that of the framework unless given.
        framework: who wrote the graph, which settles what NIR leaves open: nir (the equations by
            the Euler method), snntorch, norse, spikingjelly, sinabs, rockpool. Taken from the
            graph's metadata unless given, and nir where they do not say it.
        reset: "zero" (to v_reset), "subtract" (the threshold), "delayed" (subtract in the next
            step) or "delayed_zero"; that of the framework unless given.
        integration: "euler" or "exponential", likewise.

    Returns:
        A module that takes (N, C[, H, W], T), and (N, C, 1, L, T) for NIR's one-dimensional
        images (C, L); in evaluation mode. Its layers are children of ``layers``, by their names.

    Raises:
        InputError: no such file, no NIR graph or a damaged one, an unknown node, a parameter that
            cannot be right, or nir is not installed; the message names file and node.
        ShapeError: nodes that do not fit each other.
    """
    nir = needed("nir", "nir", "load_nir")
    where = os.fspath(path) if isinstance(path, str | os.PathLike) else "the graph"
    graph = path if isinstance(path, nir.NIRGraph) else _read(nir, where)
    nodes, edges = _flat(where, graph)
    convention = _convention(where, graph, framework).changed(
        dt=dt, reset=reset, integration=integration
    )
    return _Builder(where, nodes, edges, convention).build().eval()


# -- reading -------------------------------------------------------------------------------------


def _read(nir: Any, where: str) -> Any:
    with open_hdf5(where, "nir", "load_nir") as file:
        if "node" not in file or not hasattr(file["node"], "keys") or "type" not in file["node"]:
            raise InputError(f"{where} is no graph of NIR: it has no group 'node' with a type")
        if "nodes" not in file["node"]:
            raise InputError(f"{where} holds a single node of NIR and no graph")
        _check_keys(nir, where, file["node"], "", 0)
        try:
            return nir.read(file.filename, type_check=False)
        except (SynapseError, MemoryError):
            raise
        except Exception as error:  # nir raises whatever its constructors run into
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise InputError(f"{where}: nir cannot read it: {reason[:200]}") from error


def _check_keys(nir: Any, where: str, graph: Any, prefix: str, depth: int) -> None:
    """Check that every node has a type and what its type needs: nir would not say where."""
    _check_depth(where, depth)
    nodes = graph.get("nodes")
    if not hasattr(nodes, "items"):
        raise InputError(f"{where}: graph {prefix or 'node'} has no nodes")
    for key, group in nodes.items():
        name, kind = f"{prefix}{key}", ""
        if hasattr(group, "keys") and hasattr(group.get("type"), "shape"):
            said = group["type"][()]
            kind = _text(said) if isinstance(said, bytes | str) else ""
        if not kind:
            raise InputError(f"{where}: node {name} has no type")
        if kind == "NIRGraph":
            _check_keys(nir, where, group, f"{name}.", depth + 1)
            continue
        _check_kind(where, name, kind)
        needs = [
            field.name
            for field in dataclasses.fields(getattr(nir, kind))
            if field.init
            and field.default is field.default_factory is dataclasses.MISSING
            and field.name not in ("input_type", "output_type", "input_shape")
        ]
        for need in needs or ["shape"]:  # Input and Output have nothing but a shape
            if need not in group and kind != "Flatten":
                raise InputError(f"{where}: node {name} ({kind}), {need}: it is missing")


def _check_depth(where: str, depth: int) -> None:
    if depth > 20:
        raise InputError(f"{where}: graphs within graphs, more than 20 deep")


def _check_kind(where: str, name: str, kind: str) -> None:
    if kind not in {*_CONVERTERS, "Input", "Output"}:
        known = ", ".join(sorted({*_CONVERTERS, "Input", "Output", "NIRGraph"}))
        raise InputError(f"{where}: node {name} is a {kind}; known are: {known}")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _convention(where: str, graph: Any, framework: str) -> Convention:
    """The convention that is asked for, or the one that the metadata name."""
    metadata = graph.metadata if isinstance(graph.metadata, Mapping) else {}
    written = {str(key).lower(): value for key, value in metadata.items()}
    if not framework:
        said = _text(written.get("framework", written.get("generator", "nir"))).lower()
        # "nir" is within many a name
        names = (name for name in CONVENTIONS if name in said.replace(" ", ""))
        framework = max(names, key=len, default="nir")
    if framework not in CONVENTIONS:
        raise InputError(f"framework must be one of {', '.join(CONVENTIONS)}, got {framework!r}")
    try:
        return CONVENTIONS[framework].told(written)
    except InputError as error:
        raise InputError(f"{where}: the graph's metadata: {error}") from error


def _flat(where: str, graph: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes and edges with the graphs inside the graph dissolved, Input and Output gone."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    inner: list[str] = []

    def add(graph: Any, prefix: str, depth: int) -> None:
        _check_depth(where, depth)
        try:
            pairs = [(str(source), str(target)) for source, target in graph.edges]
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: its edges are no pairs of nodes") from error
        subgraphs = {}
        for key, node in graph.nodes.items():
            name = prefix + str(key)
            if type(node).__name__ == "NIRGraph":
                add(node, f"{name}.", depth + 1)
                subgraphs[str(key)] = {
                    kind: [f"{name}.{k}" for k, n in node.nodes.items() if type(n).__name__ == kind]
                    for kind in ("Input", "Output")
                }
                inner.extend(subgraphs[str(key)]["Input"] + subgraphs[str(key)]["Output"])
            else:
                nodes[name] = node
        for source, target in pairs:
            ends = []
            for key, kind in ((source, "Output"), (target, "Input")):
                if key not in graph.nodes:
                    raise InputError(f"{where}: an edge names {prefix}{key}, which is no node")
                borders = subgraphs.get(key, {kind: [prefix + key]})[kind]
                if len(borders) != 1:
                    raise InputError(
                        f"{where}: node {prefix}{key} is a graph with {len(borders)} {kind} nodes, "
                        f"and an edge needs one"
                    )
                ends.append(borders[0])
            edges.append((ends[0], ends[1]))

    add(graph, "", 0)
    for name in inner:  # the borders of a graph within pass on what they are given
        before = [a for a, b in edges if b == name]
        behind = [b for a, b in edges if a == name]
        edges = [edge for edge in edges if name not in edge]
        edges += [(a, b) for a in before for b in behind]
        del nodes[name]
    return nodes, list(dict.fromkeys(edges))


# -- building ------------------------------------------------------------------------------------


@dataclass
class _Node(Place):
    """One node: its values, checked as they are read."""

    where: str
    name: str
    node: Any
    convention: Convention
    shape: Shape | None
    feedback: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return type(self.node).__name__

    def place(self, key: str) -> str:
        return f"{self.where}: node {self.name} ({self.kind}), {key}"

    def array(self, key: str) -> Array:
        """A parameter as float64 numbers, all of them finite."""
        value: Any = getattr(self.node, key, None)
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if np.iscomplexobj(value):
            raise self.fail(key, "it holds complex numbers")
        try:
            found = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self.fail(key, "it holds no numbers") from error
        if value is None or found.size == 0:
            raise self.fail(key, "it is missing or empty")
        if not np.isfinite(found).all():
            raise self.fail(key, "it holds values that are no finite numbers")
        if np.abs(found).max() > np.finfo(np.float32).max:
            raise self.fail(key, "it holds values that are too large for float32")
        return found

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.array(key).astype(np.float32))

    def positive(self, key: str) -> Array:
        found = self.array(key)
        if not (found > 0).all():
            raise self.fail(key, f"it must be above zero, got {found.min():g}")
        return found

    def integers(self, key: str, count: int, least: int) -> tuple[int, ...]:
        """Whole numbers, one for each axis; one stands for all."""
        value = self.array(key).reshape(-1)
        whole = len(value) in (1, count) and (value == np.rint(value)).all()
        if not whole or value.min() < least or value.max() > MAX_NEURONS:
            what = "an integer" if count == 1 else f"{count} integers"
            raise self.fail(
                key, f"it must be {what} from {least} to {MAX_NEURONS}, got {value.tolist()}"
            )
        return tuple(int(v) for v in np.broadcast_to(value, count))

    def each(self, value: Array) -> Tensor:
        """A parameter for neurons: one for all, one a channel, or one a neuron."""
        shape = self.shape
        with np.errstate(over="ignore"):  # what is infinite is refused by the neuron
            flat = torch.from_numpy(np.asarray(value, np.float64).astype(np.float32)).reshape(-1)
        same = bool((flat == flat[0]).all())
        if same and (shape is None or flat.numel() in (1, shape[0], math.prod(shape))):
            return flat[:1]
        if shape is None or flat.numel() == shape[0]:
            return flat
        if flat.numel() != math.prod(shape):
            raise self.misfit(
                "its parameters", f"there are {flat.numel()} for neurons of shape {shape}"
            )
        return flat.reshape(shape)


_Made = tuple[nn.Module, Shape | None]
_CONVERTERS: dict[str, Callable[[_Node], _Made]] = {}
#: a child may not be called as an attribute of every module, such as "type" or "training"
_RESERVED = {"self", *dir(nn.Module())}
#: nodes that spike, in whose feedback a step passes
_SPIKING = ("IF", "LIF", "CubaLIF")
#: nodes that may stand in a feedback: what they do is a matrix
_LINEAR = ("Linear", "Affine", "Scale")


def _converts(*kinds: str) -> Callable[[Callable[[_Node], _Made]], Callable[[_Node], _Made]]:
    """Register what makes a layer of a kind of node."""

    def add(function: Callable[[_Node], _Made]) -> Callable[[_Node], _Made]:
        _CONVERTERS.update(dict.fromkeys(kinds, function))
        return function

    return add


class _Builder:
    """Builds the network of nodes and edges."""

    def __init__(
        self,
        where: str,
        nodes: dict[str, Any],
        edges: list[tuple[str, str]],
        convention: Convention,
    ) -> None:
        self.where, self.nodes, self.edges = where, nodes, edges
        self.convention = convention
        self.feedback: dict[str, list[tuple[Tensor, Tensor | None]]] = {}

    def kind(self, name: str) -> str:
        return type(self.nodes[name]).__name__

    def node(self, name: str, shape: Shape | None) -> _Node:
        found = self.feedback.get(name, [])
        return _Node(self.where, name, self.nodes[name], self.convention, shape, found)

    def build(self) -> Network:
        """Return the network."""
        for name in self.nodes:
            _check_kind(self.where, name, self.kind(name))
        order, fresh = self._order(), _Labels()
        labels = {name: fresh.of(name) for name in order}
        layers: dict[str, nn.Module] = {}
        wires: dict[str, list[str]] = {}
        inputs: dict[str, Shape | None] = {}
        outputs: list[str] = []
        #: node -> what its output is called, and its shape
        given: dict[str, tuple[str, Shape | None]] = {}
        feeds: dict[str, list[str]] = {name: [] for name in order}
        for before, behind in self.edges:
            feeds[behind].append(before)
        for name in order:
            if self.kind(name) == "Input":
                shape = self._input_shape(name)
                inputs[labels[name]] = shape
                given[name] = labels[name], shape
                continue
            sources = [given[before] for before in feeds[name]]
            if not sources:
                raise InputError(f"{self.where}: nothing leads into node {name}")
            source, shape = sources[0]
            if len(sources) > 1:
                shapes = {s for _, s in sources if s is not None}
                if len(shapes) > 1:
                    raise ShapeError(
                        f"{self.where}: what leads into node {name} has several shapes: "
                        f"{', '.join(map(str, sorted(shapes)))}"
                    )
                source, shape = fresh.of(f"{labels[name]}_sum"), next(iter(shapes), None)
                layers[source], wires[source] = Add(), [label for label, _ in sources]
            if self.kind(name) == "Output":
                outputs.append(source)
                given[name] = source, shape
                continue
            with located(self.where, f"node {name} ({self.kind(name)})"):
                layer, shape = _CONVERTERS[self.kind(name)](self.node(name, shape))
            if shape is not None and math.prod(shape) > MAX_NEURONS:
                raise ShapeError(f"{self.where}: node {name} has too many neurons, {shape}")
            layers[labels[name]], wires[labels[name]] = layer, [source]
            given[name] = labels[name], shape
        if not inputs or not outputs:
            missing = "Input" if not inputs else "Output"
            raise InputError(f"{self.where}: the graph has no {missing} node")
        return Network(layers, wires, inputs, outputs)

    def _input_shape(self, name: str) -> Shape | None:
        """The shape of an input; some writers leave the batch of their sample in it."""
        try:
            sizes = _declared(self.nodes[name])
            ends = [self.nodes[b] for a, b in self.edges if a == name]
            axes = {"Linear": 1, "Affine": 1, "Conv1d": 2, "Conv2d": 3}
            if sizes and ends:
                wanted = axes.get(type(ends[0]).__name__)
                own = np.shape(getattr(ends[0], "r", ()))  # of a neuron
                if len(sizes) - 1 == wanted or (own and own == sizes[1:]):
                    sizes = sizes[1:]
            return _image(sizes)
        except ShapeError as error:
            raise ShapeError(f"{self.where}: node {name} (Input): {error}") from error

    def _order(self) -> list[str]:
        """The nodes, each behind those that feed it; cycles become feedback of their neurons."""
        while True:
            before: dict[str, set[str]] = {name: set() for name in self.nodes}
            for source, target in self.edges:
                before[target].add(source)
            try:
                return list(graphlib.TopologicalSorter(before).static_order())
            except graphlib.CycleError as error:
                self._close(error.args[1][:-1])

    def _close(self, cycle: list[str]) -> None:
        """Turn a cycle through one neuron into a matrix of its feedback."""
        spiking = [name for name in cycle if self.kind(name) in _SPIKING]
        around = " -> ".join([*cycle, cycle[0]])
        if not spiking:
            raise InputError(
                f"{self.where}: the nodes {around} are a cycle without a spiking neuron, so that "
                f"no step passes in it"
            )
        if len(spiking) > 1:
            raise InputError(
                f"{self.where}: the nodes {around} are a cycle through {len(spiking)} neurons; "
                f"feedback through one is supported"
            )
        start = cycle.index(spiking[0])
        chain = [*cycle[start + 1 :], *cycle[:start]]
        for name in chain:
            if self.kind(name) not in _LINEAR:
                raise InputError(
                    f"{self.where}: node {name} ({self.kind(name)}) stands in a feedback, where "
                    f"{', '.join(_LINEAR)} may stand"
                )
            if sum(b == name for _, b in self.edges) > 1:
                raise InputError(f"{self.where}: several edges lead into node {name}, in a cycle")
        self.feedback.setdefault(spiking[0], []).append(self._matrix(spiking[0], chain))
        self.edges.remove((chain[-1] if chain else spiking[0], spiking[0]))
        for name in reversed(chain):  # what fed the neuron alone is gone with the edge
            if any(a == name for a, _ in self.edges):
                break
            self.edges = [edge for edge in self.edges if edge[1] != name]
            del self.nodes[name]

    def _matrix(self, spiking: str, chain: list[str]) -> tuple[Tensor, Tensor | None]:
        """Multiply the nodes of a chain up to one weight and one bias."""
        weight: Array | None = None
        bias: Array | None = None
        for name in chain:
            node = self.node(name, None)
            if node.kind == "Scale":
                next_ = np.diag(node.array("scale").reshape(-1))
            else:
                next_ = node.array("weight")
            if next_.ndim != 2 or (weight is not None and next_.shape[1] != weight.shape[0]):
                raise node.misfit("weight", f"{next_.shape} does not fit what is before it")
            weight = next_ if weight is None else next_ @ weight
            bias = None if bias is None else next_ @ bias
            if node.kind == "Affine":
                own = node.array("bias").reshape(-1)
                bias = own if bias is None else bias + own
        if weight is None:  # spikes that come back as they are
            count = max(self.node(spiking, None).array("v_threshold").size, 1)
            weight = np.eye(count)
        if weight.shape[0] != weight.shape[1]:
            raise ShapeError(
                f"{self.where}: the feedback of node {spiking} has the shape {weight.shape} and "
                f"must be square"
            )
        found = torch.from_numpy(weight.astype(np.float32))
        return found, None if bias is None else torch.from_numpy(bias.astype(np.float32))


class _Labels:
    """Names that children and arguments may have, each of its own."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def of(self, name: str) -> str:
        """Return the name, or one like it."""
        label = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not label or label[0].isdigit() or keyword.iskeyword(label) or label in _RESERVED:
            label = f"node_{label}"
        stem, count = label, 2
        while label in self.taken:
            label, count = f"{stem}_{count}", count + 1
        self.taken.add(label)
        return label


def _declared(node: Any) -> Shape | None:
    """The shape that an Input or Flatten says it takes."""
    kinds = node.input_type
    value = next(iter(kinds.values()), None) if isinstance(kinds, Mapping) else kinds
    if value is None:
        return None
    try:
        # what is complex is never a whole number
        sizes = np.asarray(np.nan if np.iscomplexobj(value) else value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ShapeError("its shape holds no numbers") from error
    if not (np.isfinite(sizes) & (sizes == np.rint(sizes))).all():
        raise ShapeError(f"its shape holds no whole numbers: {sizes.tolist()}")
    return tuple(int(size) for size in sizes)


def _image(sizes: Shape | None) -> Shape | None:
    """NIR's shape of one sample as ours: (C,), or (C, H, W); (C, L) is an image of one row."""
    if sizes is None:
        return None
    if not sizes:
        return (1,)
    if len(sizes) > 3 or min(sizes) < 1 or math.prod(sizes) > MAX_NEURONS:
        raise ShapeError(
            f"an input of shape {sizes} is none of (C), (C, L) and (C, H, W), of at most "
            f"{MAX_NEURONS} values"
        )
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else sizes


# -- nodes ---------------------------------------------------------------------------------------


def _over_time(value: Any, x: Tensor) -> Tensor:
    """Bring (1,), (C,) or (C, H, W) to act on x (N, C[, H, W], T)."""
    found: Tensor = value.reshape(*value.shape, *(1,) * (x.dim() - 1 - value.dim()))
    return found


class _Scaled(nn.Module):
    """Every neuron's value times a factor."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C[, H, W], T)."""
        return x * _over_time(self.scale, x)


class _Shifted(nn.Module):
    """Every neuron's value and a constant."""

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C[, H, W], T)."""
        return x + _over_time(self.offset, x)


class _Above(nn.Module):
    """1 where a value is above a threshold."""

    def __init__(self, threshold: Tensor) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C[, H, W], T), 0 or 1."""
        return (x > _over_time(self.threshold, x)).to(torch.float32)


class _Window(nn.Module):
    """Sums, or means, over whole windows; what is left over at the end is dropped, as in torch."""

    def __init__(self, pool: Any, size: tuple[int, int] | None, count: int) -> None:
        super().__init__()
        self.pool, self.size, self.count = pool, size, count

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W, T)."""
        y: Tensor = self.pool(x)
        if self.size is not None:
            y = y[:, :, : self.size[0], : self.size[1]]
        return y if self.count == 1 else y / self.count


class _Shaped(nn.Module):
    """Another shape for the same neurons."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, *shape, T)."""
        return x.reshape(x.shape[0], *self.shape, x.shape[-1])


class _Padded(nn.Module):
    """Zeros at the bottom and right, where a kernel of even size keeps the shape."""

    def __init__(self, below: int, right: int) -> None:
        super().__init__()
        self.missing = below, right

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H + below, W + right, T)."""
        below, right = self.missing
        return nn.functional.pad(x, (0, 0, 0, right, 0, below))


def _chain(*layers: nn.Module | None) -> nn.Module:
    found = [layer for layer in layers if layer is not None]
    return found[0] if len(found) == 1 else nn.Sequential(*found)


def _biased(node: _Node, channels: int) -> Bias | None:
    """The bias of a node; None where there is none, or only zeros."""
    if getattr(node.node, "bias", None) is None:
        return None
    bias = node.tensor("bias").reshape(-1)
    if bias.numel() != channels:
        raise node.misfit("bias", f"it holds {bias.numel()} values for {channels} channels")
    return Bias(bias) if bool(bias.any()) else None


@_converts("Linear", "Affine")
def _linear(node: _Node) -> _Made:
    weight = node.tensor("weight")
    if weight.dim() != 2:
        raise node.misfit("weight", f"it must have two axes, got {tuple(weight.shape)}")
    outputs, inputs = weight.shape
    before = None
    if node.shape is not None and node.shape != (inputs,):
        if node.shape not in ((inputs, 1, 1), (1, 1, inputs)):
            raise node.misfit(
                "weight", f"it takes {inputs} inputs, and what comes in has the shape {node.shape}"
            )
        before = _Shaped((inputs,))
    dense = synapse.Dense(inputs, outputs)
    dense.weight.data = weight.reshape(outputs, inputs, 1, 1, 1)
    return _chain(before, dense, _biased(node, outputs)), (outputs,)


@_converts("Scale")
def _scale(node: _Node) -> _Made:
    return _Scaled(node.each(node.array("scale"))), node.shape


@_converts("Threshold")
def _threshold(node: _Node) -> _Made:
    return _Above(node.each(node.array("threshold"))), node.shape


def _slid(
    node: _Node,
    key: str,
    kernel: Shape,
    stride: Shape,
    padding: Shape,
    dilation: Shape = (1, 1),
    extra: Shape = (0, 0),
) -> tuple[int, int] | None:
    """Height and width behind a window that slides over an image; None where none is known."""
    shape = node.shape
    if math.prod(kernel) > MAX_NEURONS:
        raise node.misfit(key, f"its kernel {kernel} is too large")
    if shape is None:
        return None
    if len(shape) != 3:
        raise node.misfit("its input", f"it takes images, and {shape} comes in")
    padded = [n + 2 * p + e for n, p, e in zip(shape[1:], padding, extra, strict=True)]
    if shape[0] * math.prod(padded) > MAX_NEURONS:
        raise node.misfit("padding", f"an image of {tuple(padded)} with it is too large")
    height, width = (
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded, dilation, kernel, stride, strict=True)
    )
    if min(height, width) < 1:
        raise node.misfit(key, f"its kernel {kernel} is larger than the image {shape}")
    return height, width


@_converts("Conv1d", "Conv2d")
def _convolution(node: _Node) -> _Made:
    axes = int(node.kind[4])
    weight = node.tensor("weight")
    if weight.dim() != 2 + axes:
        raise node.misfit("weight", f"it must have {2 + axes} axes, got {tuple(weight.shape)}")

    def both(value: tuple[int, ...], other: int) -> tuple[int, int]:
        return (value[0], value[1]) if axes == 2 else (other, value[0])

    stride = both(node.integers("stride", axes, 1), 1)
    dilation = both(node.integers("dilation", axes, 1), 1)
    (groups,) = node.integers("groups", 1, 1)
    kernel = both(tuple(weight.shape[2:]), 1)
    padding, extra = (0, 0), (0, 0)
    given = node.node.padding
    word = _text(given) if isinstance(given, bytes | str) else ""
    if word == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if stride != (1, 1):
            raise node.fail("padding", "same goes with a stride of 1")
        padding, extra = (reach[0] // 2, reach[1] // 2), (reach[0] % 2, reach[1] % 2)
    elif word != "valid":
        padding = both(node.integers("padding", axes, 0), 0)
    outputs, inputs = int(weight.shape[0]), int(weight.shape[1]) * groups
    shape = node.shape
    if shape is not None and shape[0] != inputs:
        raise node.misfit("weight", f"it takes {inputs} channels, and {shape} comes in")
    sizes = _slid(node, "weight", kernel, stride, padding, dilation, extra)
    conv = synapse.Conv(inputs, outputs, kernel, stride, padding, dilation, groups)
    conv.weight.data = weight.reshape(outputs, -1, *kernel, 1)
    if sizes is not None:
        shape = (outputs, *sizes)
    pad = _Padded(*extra) if any(extra) else None
    return _chain(pad, conv, _biased(node, outputs)), shape


@_converts("SumPool2d", "AvgPool2d")
def _pool(node: _Node) -> _Made:
    kernel = node.integers("kernel_size", 2, 1)
    stride = node.integers("stride", 2, 1)
    padding = node.integers("padding", 2, 0)
    size = _slid(node, "kernel_size", kernel, stride, padding)
    shape = None if node.shape is None or size is None else (node.shape[0], *size)
    pool = synapse.Pool(kernel, stride, padding)
    pool.weight.data.fill_(1)
    count = math.prod(kernel) if node.kind == "AvgPool2d" else 1
    return _Window(pool, size, count), shape


def _axis(node: _Node, key: str, sizes: Shape) -> int:
    """An axis of what comes in; a negative one counts from the end."""
    (axis,) = node.integers(key, 1, -len(sizes))
    if axis >= len(sizes):
        raise node.fail(key, f"there is no axis {axis} in {sizes}")
    return axis % len(sizes)


@_converts("Flatten")
def _flatten(node: _Node) -> _Made:
    if node.shape is None:
        raise node.fail("input_type", "the shape of what it flattens is not known")
    sizes, said = node.shape, _declared(node.node)
    declared = _image(said)
    if declared is not None and math.prod(declared) != math.prod(sizes):
        raise node.misfit("input_type", f"it says {said}, and {node.shape} comes in")
    if len(sizes) == 3 and sizes[1] == 1 and said is not None and len(said) == 2:
        sizes = (sizes[0], sizes[2])  # an image of one row is (C, L) in NIR
    start, end = (_axis(node, key, sizes) for key in ("start_dim", "end_dim"))
    if start > end:
        raise node.fail("start_dim", f"it lies behind end_dim, {start} and {end}")
    flat = (*sizes[:start], math.prod(sizes[start : end + 1]), *sizes[end + 1 :])
    shape = _image(flat)
    assert shape is not None
    return (nn.Identity() if shape == node.shape else _Shaped(shape)), shape


@_converts("Delay")
def _delay(node: _Node) -> _Made:
    steps = node.array("delay") / node.convention.dt
    whole = np.rint(steps)
    if steps.min() < 0 or steps.max() > MAX_DELAY:
        raise node.fail("delay", f"it must be 0 to {MAX_DELAY} steps, got {steps.max():g}")
    if (np.abs(steps - whole) > 1e-3 * np.maximum(steps, 1)).any():
        raise node.fail(
            "delay",
            f"{node.array('delay').max():g} s is no whole number of steps of "
            f"{node.convention.dt:g} s; give another dt",
        )
    line = Delay()
    line.load_state_dict({"delay": node.each(whole).flatten()})
    return line, node.shape


def _neuron(node: _Node, *, alpha: Any, gain: Any, decay: Any, drive: Any, spikes: bool) -> _Made:
    """A neuron from the terms of its difference equation, arrays of NumPy."""
    convention = node.convention
    threshold, value = np.asarray(0.0), np.asarray(0.0)
    if spikes:
        threshold = node.array("v_threshold")
        if getattr(node.node, "v_reset", None) is not None:
            value = node.array("v_reset")
    # voltages are counted from where they start
    rests = {"v_reset": value, "v_leak": np.asarray(0.0)}
    if getattr(node.node, "v_leak", None) is not None:
        rests["v_leak"] = node.array("v_leak")
    shift = rests.get(convention.rest, np.asarray(0.0))
    terms = {
        "alpha": alpha,
        "gain": gain,
        "beta": 1 - np.asarray(decay),
        "drive": np.asarray(drive) - np.asarray(decay) * shift,
    }
    if spikes:
        terms |= {"threshold": threshold - shift, "reset_value": value - shift}
    reset = convention.reset
    if reset == "zero" and (np.any(np.asarray(alpha) != 0) or node.feedback):
        reset = convention.zero_behind
    given: dict[str, Any] = {name: node.each(value) for name, value in terms.items()}
    made = neuron.lif.Neuron(**given, reset=reset, strict=convention.strict)
    if not spikes:
        made.as_readout()
        offset = _Shifted(node.each(shift)) if shift.any() else None
        return _chain(made, offset), node.shape
    for weight, _ in node.feedback[1:]:
        if weight.shape != node.feedback[0][0].shape:
            raise node.misfit("its feedback", "several have several shapes")
    before = None
    if node.feedback:
        total = torch.stack([weight for weight, _ in node.feedback]).sum(0)
        if node.shape is not None and node.shape != (len(total),):
            raise node.misfit(
                "its feedback", f"it has {len(total)} neurons, and the node {node.shape}"
            )
        again = synapse.Dense(len(total), len(total))
        again.weight.data = total.reshape(*total.shape, 1, 1, 1)
        biases = [bias for _, bias in node.feedback if bias is not None]
        before = Bias(torch.stack(biases).sum(0)) if biases else None
        return _Fed(made, again, before), node.shape
    return made, node.shape


class _Fed(nn.Module):
    """A neuron that sees its own spikes one step later."""

    def __init__(self, neuron: Any, recurrent_synapse: Any, bias: Bias | None) -> None:
        super().__init__()
        self.bias, self.recurrent_synapse, self.neuron = bias, recurrent_synapse, neuron
        neuron.feed_back(recurrent_synapse)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes (N, C, T)."""
        spikes: Tensor = self.neuron(x if self.bias is None else self.bias(x))
        return spikes


def _lost(node: _Node, key: str) -> Array:
    """The fraction of a state that is lost in a step, by its time constant."""
    lost = node.convention.decay(node.positive(key))
    if lost.max() > 1 + 1e-6:
        raise node.fail(
            key,
            f"a step of {node.convention.dt:g} s is longer than this time constant; give another "
            f"dt, or framework='norse' for a graph that Norse wrote",
        )
    return np.minimum(lost, 1)


@_converts("I", "IF")
def _integrator(node: _Node) -> _Made:
    steps = node.convention.dt if node.convention.integrate == "dt" else 1.0
    gain = node.array("r") * steps
    return _neuron(node, alpha=0.0, gain=gain, decay=0.0, drive=0.0, spikes=node.kind == "IF")


@_converts("LI", "LIF")
def _leaky(node: _Node) -> _Made:
    spikes = node.kind == "LIF"
    tau, lost = node.positive("tau"), _lost(node, "tau")
    return _neuron(
        node,
        alpha=0.0,
        gain=node.convention.entering(tau, lost, spikes=spikes) * node.array("r"),
        decay=lost,
        drive=lost * node.array("v_leak"),
        spikes=spikes,
    )


@_converts("CubaLI", "CubaLIF")
def _current_based(node: _Node) -> _Made:
    spikes = node.kind == "CubaLIF"
    tau, lost, fades = node.positive("tau_mem"), _lost(node, "tau_mem"), _lost(node, "tau_syn")
    enters = node.convention.entering(tau, lost, spikes=spikes) * node.array("r")
    return _neuron(
        node,
        alpha=1 - fades,
        gain=enters * node.array("w_in") * node.convention.arriving(fades),
        decay=lost,
        drive=lost * node.array("v_leak"),
        spikes=spikes,
    )


register(
    Reader(
        name="NIR",
        suffixes=(".nir",),
        extra="nir",
        load=load_nir,
        doc="graphs of snnTorch, Norse, SpikingJelly, sinabs, Rockpool, in floats",
    )
)
