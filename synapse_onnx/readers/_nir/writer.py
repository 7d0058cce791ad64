"""Writes networks as NIR graphs: one function a layer class, in the table ``_WRITERS``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx import neuron, synapse
from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.block.base import Bias, Block, Flatten
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.readers._fields import Array, Shape
from synapse_onnx.readers._network import Add, Network, unused
from synapse_onnx.readers._nir import modules
from synapse_onnx.readers._nir.convention import Convention


class GraphWriter:
    """Collects the nodes and edges of a graph.

    Attributes:
        nodes: the nodes so far, by name.
        edges: pairs (source, target) of names.
        shapes: id of a layer -> shapes (C[, H, W]) of its input and of its output.
        convention: field of the convention -> its value in the neurons so far, and the path of the
            first such neuron.
        lowest: values of ``min_v_mem`` that fit all neurons so far; None before the first.
    """

    def __init__(self, nir: Any, dt: float) -> None:
        self.nir, self.dt = nir, Convention().with_values(dt=dt).dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[int, tuple[Shape, Shape]] = {}
        self.convention: dict[str, tuple[Any, str]] = {}
        self.lowest: set[str] | None = None

    def write(self, module: nn.Module, shapes: list[Shape]) -> Any:
        """Return the graph of a network, given the shape (C[, H, W]) of each of its inputs."""
        outputs = self._record_shapes(module, shapes)
        names = list(getattr(module, "input_names", ())) or ["input"]
        for name, shape in zip(names, shapes, strict=True):
            self.nodes[name] = self.nir.Input(input_type=np.array(nir_shape(shape)))
        if isinstance(module, Network):
            results = self._network(module)
        else:
            results = [write_layer(Site(self, module, "", names))]
        for i, (ends, output) in enumerate(zip(results, outputs, strict=True)):
            name = "output" if len(results) == 1 else f"output_{i}"
            shape = nir_shape(tuple(output.shape[1:-1]))
            self.nodes[name] = self.nir.Output(output_type=np.array(shape))
            self.edges += [(end, name) for end in ends]
        values = {name: value for name, (value, _) in self.convention.items()}
        if self.lowest is not None:
            values["min_v_mem"] = "none" if "none" in self.lowest else min(self.lowest)
        metadata = Convention().with_values(dt=self.dt, **values).metadata()
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=metadata, type_check=False)

    def _record_shapes(self, module: nn.Module, shapes: list[Shape]) -> tuple[Any, ...]:
        """Run the network once on zeros, and record the shapes at each layer."""
        handles = []

        def record(layer: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
                self.shapes[id(layer)] = tuple(args[0].shape[1:-1]), tuple(output.shape[1:-1])

        training = module.training
        module.eval()
        try:
            handles = [child.register_forward_hook(record) for child in module.modules()]
            with torch.no_grad():
                outputs = module(*(torch.zeros(1, *shape, 2) for shape in shapes))
        except SynapseError:
            raise
        except Exception as error:
            raise InputError(f"to_nir: the network does not take {shapes}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
            module.train(training)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def _network(self, network: Network) -> list[list[str]]:
        """Write the layers of a network that was read; return the nodes of each output."""
        ends = {name: [name] for name in network.input_names}
        for name, wires in network.wires.items():
            layer = getattr(network.layers, name)
            before = [end for wire in wires for end in ends[wire]]
            # several edges into a node are added, so a sum needs no node
            adds = isinstance(layer, Add)
            ends[name] = before if adds else write_layer(Site(self, layer, name, before))
        return [ends[name] for name in network.outputs]


@dataclass(frozen=True)
class Site:
    """A layer that is written.

    Attributes:
        graph: what collects the nodes.
        layer: the layer.
        path: its path in the network, for names of nodes and for errors.
        sources: the nodes whose sum is its input.
    """

    graph: GraphWriter
    layer: Any
    path: str
    sources: list[str]

    @property
    def nir(self) -> Any:
        """The package nir."""
        return self.graph.nir

    @property
    def shape(self) -> Shape:
        """Shape (C[, H, W]) of the input."""
        return self.graph.shapes[id(self.layer)][0]

    def child(self, name: str, layer: Any, sources: list[str]) -> Site:
        """Return the site of a part of the layer."""
        return Site(self.graph, layer, f"{self.path}.{name}" if self.path else name, sources)

    def add(self, node: Any) -> list[str]:
        """Add a node; return its name, alone."""
        name = unused(self.path.replace(".", "_") or "layer", self.graph.nodes)
        self.graph.nodes[name] = node
        self.graph.edges += [(source, name) for source in self.sources]
        return [name]

    def refused(self, reason: str) -> InputError:
        """Return the error of a layer that cannot be written."""
        return InputError(
            f"to_nir: {self.path or 'the module'} is a {type(self.layer).__name__} that cannot be "
            f"written: {reason}"
        )

    def settle(self, **values: Any) -> None:
        """Record fields of the convention that a neuron needs; those of all neurons must agree."""
        for name, value in values.items():
            settled, first = self.graph.convention.setdefault(name, (value, self.path))
            if settled != value:
                raise self.refused(f"its {name} is {value}, and that of {first} is {settled}")

    def settle_lowest(self, choices: set[str]) -> None:
        """Record the values of ``min_v_mem`` that fit a neuron; one must fit all."""
        left = choices if self.graph.lowest is None else self.graph.lowest & choices
        if not left:
            raise self.refused("its lowest voltage is not that of the neurons before it")
        self.graph.lowest = left

    def per_neuron(self, value: Tensor) -> Array:
        """Return a parameter as NIR stores it: one value a neuron."""
        values, shape = _array(value), self.shape
        if values.size == shape[0] and values.ndim == 1:
            values = values.reshape(-1, *(1,) * (len(shape) - 1))
        return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(nir_shape(shape))


def write_layer(at: Site) -> list[str]:
    """Add a layer or a container to a graph; return the nodes whose sum is its output."""
    for kind, write in _WRITERS.items():
        if isinstance(at.layer, kind):
            return write(at)
    raise at.refused("NIR has no node for it")


def _container(at: Site) -> list[str]:
    """Add the children of a sequence or a block, one after another."""
    if getattr(at.layer, "mask", None) is not None or getattr(at.layer, "count_log", False):
        raise at.refused("masks and count_log are not written")
    if hasattr(at.layer, "recurrent_synapse"):
        raise at.refused("write recurrent layers that load_nir made")
    if next(at.layer.parameters(recurse=False), None) is not None:
        raise at.refused("it has parameters besides those of its parts")
    # only a forward that calls the children one after another says what a chain of nodes says
    if not type(at.layer).forward.__module__.startswith(("torch.nn.", "synapse_onnx.")):
        raise at.refused("its class has a forward of its own")
    sources = at.sources
    for name, child in at.layer.named_children():
        sources = write_layer(at.child(name, child, sources))
    return sources


# -- parameters ----------------------------------------------------------------------------------


def nir_shape(shape: Shape) -> Shape:
    """Return a shape as NIR has it: an image of one row (C, 1, L) is (C, L)."""
    return (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 and shape[2] > 1 else shape


def _array(value: Tensor) -> Array:
    return np.atleast_1d(value.detach().cpu().double().numpy())


def _matrix(synapse: Any) -> Array:
    """The weight in use of a dense synapse, (outputs, inputs)."""
    weight = _array(synapse.effective_weight)
    return weight.reshape(weight.shape[:2])


def _window(pool: Any) -> tuple[Array, ...]:
    """Kernel, stride and padding, (height, width) each."""
    return tuple(np.array(size[:2]) for size in (pool.kernel_size, pool.stride, pool.padding))


# -- synapses ------------------------------------------------------------------------------------


def _dense(at: Site) -> list[str]:
    if at.layer.kernel_size != (1, 1, 1):
        raise at.refused("flatten the image before a dense synapse")
    return at.add(at.nir.Linear(_matrix(at.layer)))


def _conv(at: Site) -> list[str]:
    layer, shape = at.layer, at.shape
    weight = _array(layer.effective_weight)[..., 0]
    sizes: list[Any] = [
        tuple(int(n) for n in v[:2]) for v in (layer.stride, layer.padding, layer.dilation)
    ]
    image_size: Any = shape[1:]
    kind = at.nir.Conv2d
    if len(nir_shape(shape)) == 2:
        kind, image_size, weight = at.nir.Conv1d, shape[2], weight[:, :, 0]
        sizes = [size[1] for size in sizes]
    return at.add(kind(image_size, weight, *sizes, layer.groups, np.zeros(len(weight))))


def _pool(at: Site) -> list[str]:
    layer, (shape, output) = at.layer, at.graph.shapes[id(at.layer)]
    kernel, stride, padding = _window(layer)
    whole = tuple((np.array(shape[1:]) + 2 * padding - kernel) // stride + 1)
    if layer.merge_channels or whole != output[1:] or tuple(layer.dilation[:2]) != (1, 1):
        raise at.refused("its windows reach beyond the image or across channels")
    ends = at.add(at.nir.SumPool2d(kernel, stride, padding))
    weight = _array(layer.effective_weight).reshape(-1)
    if (weight != weight[0]).any():
        raise at.refused("its weights differ")
    if weight[0] != 1:
        scale = np.full(nir_shape(output), weight[0])
        ends = at.child("scale", layer, ends).add(at.nir.Scale(scale))
    return ends


def _bias(at: Site) -> list[str]:
    """Store a bias in the node of the synapse before it."""
    nodes, (before,) = at.graph.nodes, at.sources if len(at.sources) == 1 else ("",)
    node: Any = nodes.get(before)
    bias = -_array(at.layer.mean)
    shared = sum(source == before for source, _ in at.graph.edges)
    kind = type(node).__name__
    if shared or kind not in ("Linear", "Conv1d", "Conv2d"):
        raise at.refused("a bias must follow a synapse that feeds nothing else")
    bias = np.broadcast_to(bias, len(node.weight)).copy()
    if kind == "Linear":
        nodes[before] = at.nir.Affine(node.weight, bias)
    else:
        node.bias = bias
    return at.sources


# -- layers without parameters, delays -----------------------------------------------------------


def _identity(at: Site) -> list[str]:
    return at.sources


def _flatten(at: Site) -> list[str]:
    if isinstance(at.layer, modules.Reshape) and len(at.layer.shape) != 1:
        raise at.refused("only a flattening to one axis is written")
    return at.add(at.nir.Flatten({"input": np.array(nir_shape(at.shape))}, 0, -1))


def _delay(at: Site) -> list[str]:
    steps = torch.ones(1) if isinstance(at.layer, StepDelay) else at.layer._steps().float()
    steps = steps.reshape(at.shape) if steps.numel() == math.prod(at.shape) else steps
    return at.add(at.nir.Delay(at.per_neuron(steps) * at.graph.dt))


# -- layers that load_nir made -------------------------------------------------------------------


def _scale(at: Site) -> list[str]:
    return at.add(at.nir.Scale(at.per_neuron(at.layer.scale)))


def _threshold(at: Site) -> list[str]:
    return at.add(at.nir.Threshold(at.per_neuron(at.layer.threshold)))


def _pool_windows(at: Site) -> list[str]:
    kind = at.nir.SumPool2d if at.layer.count == 1 else at.nir.AvgPool2d
    return at.add(kind(*_window(at.layer.pool)))


def _offset(at: Site) -> list[str]:
    raise at.refused("a readout must start from zero")


def _feedback(at: Site) -> list[str]:
    """Add a neuron, and a matrix whose edges lead from the neuron back into it."""
    ends = write_layer(at.child("neuron", at.layer.neuron, at.sources))
    node = at.nir.Linear(_matrix(at.layer.recurrent_synapse))
    if at.layer.bias is not None:
        node = at.nir.Affine(node.weight, -_array(at.layer.bias.mean))
    (recurrent,) = at.child("recurrent", at.layer, ends).add(node)
    at.graph.edges.append((recurrent, ends[0]))
    return ends


# -- neurons -------------------------------------------------------------------------------------


def _lif(at: Site) -> list[str]:
    layer = at.layer
    terms = {
        name: at.per_neuron(getattr(layer, name)) for name in ("alpha", "beta", "gain", "drive")
    }
    level = None
    if not layer.readout:
        reset = layer.reset_kind
        if reset.endswith("zero") and (bool(layer.alpha.any()) or layer._fed):
            at.settle(reset="zero", zero_behind=reset, strict=layer.strict)
        elif reset == "delayed_zero":
            raise at.refused("this reset goes with a current or with feedback")
        else:
            at.settle(reset=reset, strict=layer.strict)
        at.settle(max_spikes=_most(layer.max_spikes))
        level = layer.v_threshold.detach()
        if layer.strict:  # "above 1" is stored as "at the next float32 after 1"
            level = torch.nextafter(level, torch.tensor(-math.inf))
        level = at.per_neuron(level)
    at.settle_lowest(_lowest(layer, terms))
    reset_value = 0 * terms["gain"]
    if layer.reset_kind.endswith("zero"):
        reset_value = at.per_neuron(layer.v_reset)
    return _neuron(at, terms, level, reset_value)


def _most(max_spikes: float) -> float:
    return math.inf if max_spikes >= float(torch.finfo(torch.float32).max) else max_spikes


def _lowest(layer: Any, terms: Mapping[str, Array]) -> set[str]:
    """Return the values of ``min_v_mem`` that say a neuron's lowest voltage."""
    lowest = getattr(layer, "lowest", None)
    is_if = (terms["beta"] == 1).all() and not (terms["alpha"].any() or terms["drive"].any())
    if lowest is None:
        if layer.readout:
            return {"none", "if", "-v_threshold"}
        return {"none"} if is_if else {"none", "if"}
    choices = {repr(float(lowest[0]))} if lowest.numel() == 1 else set()
    if not layer.readout and bool((lowest == -layer.v_threshold).all()):
        choices |= {"-v_threshold", "if"} if is_if else {"-v_threshold"}
    return choices


def _cuba(at: Site) -> list[str]:
    layer = at.layer
    if layer.regime != "float" or layer.graded_spike:
        raise at.refused("NIR has float states and spikes of 1; regime='float'")
    shape = nir_shape(at.shape)
    terms = {
        "alpha": 1 - at.per_neuron(layer.current_decay),
        "beta": 1 - at.per_neuron(layer.voltage_decay),
        "gain": np.ones(shape),
        "drive": np.zeros(shape),
    }
    level = None
    if not layer.readout:
        with_current = {"zero_behind": "zero"} if terms["alpha"].any() else {}
        at.settle(reset="zero", strict=False, max_spikes=1.0, **with_current)
        level = np.full(shape, layer.threshold)
    return _neuron(at, terms, level, np.zeros(shape))


def _neuron(
    at: Site, terms: dict[str, Array], level: Array | None, reset_value: Array
) -> list[str]:
    """Add a neuron from the terms of its difference equation; without a threshold, a readout.

    The inverse of the neurons in ``primitives.py``, by the Euler method: decay = dt / tau.
    """
    if any(getattr(at.layer, name) is not None for name in at.layer._norm_names()):
        raise at.refused("NIR has no norm")
    dt = at.graph.dt
    alpha, beta, gain, drive = (terms[name] for name in ("alpha", "beta", "gain", "drive"))
    if (beta == 1).all() and not alpha.any() and not drive.any():
        kind, values = "I", {"r": gain / dt}
    elif (beta >= 1).any() or (alpha >= 1).any() or (beta < 0).any() or (alpha < 0).any():
        raise at.refused("what it keeps of its states must lie in [0, 1)")
    else:
        decay, current_decay = 1 - beta, 1 - alpha
        kind, values = "LI", {"tau": dt / decay}
        if alpha.any():
            kind = "CubaLI"
            values = {"tau_mem": dt / decay, "tau_syn": dt / current_decay}
            values["w_in"] = 1 / current_decay
        values |= {"r": gain / decay, "v_leak": drive / decay}
    if level is not None:
        kind, values = f"{kind}F", values | {"v_threshold": level, "v_reset": reset_value}
    return at.add(getattr(at.nir, kind)(**values))


#: class of a layer -> the function that writes it; the first that fits is taken
_WRITERS: dict[type, Callable[[Site], list[str]]] = {
    synapse.Dense: _dense,
    synapse.Conv: _conv,
    synapse.Pool: _pool,
    Bias: _bias,
    Flatten: _flatten,
    Delay: _delay,
    StepDelay: _delay,
    nn.Identity: _identity,
    neuron.lif.Neuron: _lif,
    neuron.cuba.Neuron: _cuba,
    modules.Scale: _scale,
    modules.Offset: _offset,
    modules.Threshold: _threshold,
    modules.PoolWindows: _pool_windows,
    modules.Reshape: _flatten,
    modules.FeedbackNeuron: _feedback,
    nn.Sequential: _container,
    Block: _container,
}
