"""``to_nir``: networks of ours as NIR graphs, where NIR can say it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx import neuron, synapse
from synapse_onnx._extra import needed
from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.block.base import Bias, Block, Flatten
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.readers._conventions import Convention
from synapse_onnx.readers._network import Add, Network

__all__ = ["to_nir"]

Shape = tuple[int, ...]
Array = NDArray[np.float64]


def to_nir(
    module: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    input_shape: Shape | None = None,
    dt: float = 1e-4,
) -> Any:
    """Write a network as a NIR graph.

    What NIR can say: real Dense and Conv synapses with the weights in use, pools whose windows
    cover the image, lif neurons, cuba neurons in the float regime, delays, Flatten, and whatever
    :func:`load_nir` made. ``nn.Sequential``, blocks and networks of :func:`load_nir` are followed.
    The graph's metadata hold what NIR leaves open (dt, reset, strictness), so that ``load_nir``
    gives the same network back.

    Args:
        module: the network.
        path: where to write the graph; the file is written whole or not at all.
        input_shape: shape of one sample without batch and time, (C,) or (C, H, W); known of
            networks that were read from a file.
        dt: seconds of a time step.

    Returns:
        The graph, a ``nir.NIRGraph``.

    Raises:
        InputError: a layer that NIR cannot say, by its path; or nir is not installed.
        ShapeError: the input's shape does not fit the network.
    """
    nir = needed("nir", "nir", "to_nir")
    shapes = [input_shape] if input_shape is not None else getattr(module, "input_shapes", None)
    if not shapes or None in shapes:
        raise InputError("to_nir: give input_shape, (C,) or (C, H, W) of one sample")
    writer = _Writer(nir, dt)
    writer.measure(module, shapes)
    graph = writer.graph(module, shapes)
    if path is not None:
        buffer = io.BytesIO()
        nir.write(buffer, graph)
        write_atomically(path, buffer.getvalue())
    return graph


class _Writer:
    """Collects nodes and edges."""

    def __init__(self, nir: Any, dt: float) -> None:
        self.nir, self.dt = nir, Convention().changed(dt=dt).dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        #: module -> shapes of what goes in and comes out, without batch and time
        self.shapes: dict[int, tuple[Shape, Shape]] = {}
        #: what the neurons so far do that NIR leaves open, and the first that did it
        self.settled: dict[str, Any] = {}
        self.first: dict[str, str] = {}

    def measure(self, module: nn.Module, shapes: list[Shape]) -> None:
        """Run the network once, to learn the shapes of its layers."""
        handles = []

        def record(layer: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
                self.shapes[id(layer)] = tuple(args[0].shape[1:-1]), tuple(output.shape[1:-1])

        training = module.training
        module.eval()
        try:
            handles = [child.register_forward_hook(record) for child in module.modules()]
            with torch.no_grad():
                module(*(torch.zeros(1, *shape, 2) for shape in shapes))
        except SynapseError:
            raise
        except Exception as error:
            raise InputError(f"to_nir: the network does not take {shapes}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
            module.train(training)

    def graph(self, module: nn.Module, shapes: list[Shape]) -> Any:
        """Return the graph of a network."""
        names = list(getattr(module, "input_names", ())) or ["input"]
        sources = []
        for name, shape in zip(names, shapes, strict=True):
            self.nodes[name] = self.nir.Input(input_type=np.array(_nir_shape(shape)))
            sources.append([name])
        if isinstance(module, Network):
            results = self.network(module, sources)
        else:
            results = [self.emit(module, "", sources[0])]
        for i, (ends, shape) in enumerate(zip(results, self._outputs(module, shapes), strict=True)):
            name = "output" if len(results) == 1 else f"output_{i}"
            self.nodes[name] = self.nir.Output(output_type=np.array(_nir_shape(shape)))
            self.edges += [(end, name) for end in ends]
        convention = Convention().changed(dt=self.dt, **self.settled)
        return self.nir.NIRGraph(
            self.nodes, self.edges, metadata=convention.metadata(), type_check=False
        )

    def _outputs(self, module: nn.Module, shapes: list[Shape]) -> list[Shape]:
        if id(module) in self.shapes:
            return [self.shapes[id(module)][1]]
        assert isinstance(module, Network)
        given = dict(zip(module.input_names, shapes, strict=True))
        found = []
        for name in module.outputs:
            layer = getattr(module.layers, name, None)
            found.append(given[name] if layer is None else self.shapes[id(layer)][1])
        return found

    def network(self, net: Network, sources: list[list[str]]) -> list[list[str]]:
        """Add the layers of a network that was read; return the ends of its outputs."""
        ends = dict(zip(net.input_names, sources, strict=True))
        for name, wires in net.wires.items():
            layer = getattr(net.layers, name)
            before = [end for wire in wires for end in ends[wire]]
            # several edges into a node add up
            ends[name] = before if isinstance(layer, Add) else self.emit(layer, name, before)
        return [ends[name] for name in net.outputs]

    def add(self, name: str, node: Any, sources: list[str]) -> list[str]:
        """Add a node behind others; return it as the only end."""
        stem, count = name.replace(".", "_") or "layer", 2
        label = stem
        while label in self.nodes:
            label, count = f"{stem}_{count}", count + 1
        self.nodes[label] = node
        self.edges += [(source, label) for source in sources]
        return [label]

    def emit(self, module: nn.Module, path: str, sources: list[str]) -> list[str]:
        """Add a module behind some nodes; return the nodes whose sum it gives."""
        for kind, write in _WRITERS.items():
            if isinstance(module, kind):
                return write(self, module, path, sources)
        if type(module).__module__ == f"{__package__}.nir":
            return self.emit_read(module, path, sources)
        if isinstance(module, nn.Sequential | Block):
            return self.chain(module, path, sources)
        raise self.refused(path, module, "NIR has no node for it")

    def chain(self, module: nn.Module, path: str, sources: list[str]) -> list[str]:
        """Add the children of a container, one behind another."""
        if getattr(module, "mask", None) is not None or getattr(module, "count_log", False):
            raise self.refused(path, module, "masks and count_log are not written")
        children = list(module.named_children())
        if hasattr(module, "recurrent_synapse"):
            raise self.refused(path, module, "write recurrent layers that load_nir made")
        for name, child in children:
            sources = self.emit(child, f"{path}.{name}" if path else name, sources)
        return sources

    def emit_read(self, module: Any, path: str, sources: list[str]) -> list[str]:
        """Add a layer of the reader's own, for which there is just one node."""
        nir, kind = self.nir, type(module).__name__
        shape = self.shapes[id(module)][0]
        if kind == "_Scaled":
            return self.add(path, nir.Scale(_full(module.scale, shape)), sources)
        if kind == "_Above":
            return self.add(path, nir.Threshold(_full(module.threshold, shape)), sources)
        if kind == "_Shaped":
            if len(module.shape) != 1:
                raise self.refused(path, module, "only a flattening to one axis is written")
            return _flatten(self, module, path, sources)
        if kind == "_Window":
            node = nir.SumPool2d if module.count == 1 else nir.AvgPool2d
            return self.add(path, node(*_window(module.pool)), sources)
        if kind == "_Shifted":
            raise self.refused(path, module, "a readout that rests elsewhere than at zero")
        if kind == "_Fed":
            sources = self.emit(module.neuron, f"{path}.neuron", sources)
            weight = _plain(module.recurrent_synapse)
            node = nir.Linear(weight)
            if module.bias is not None:
                node = nir.Affine(weight, -_array(module.bias.mean))
            again = self.add(f"{path}.recurrent", node, sources)
            self.edges.append((again[0], sources[0]))
            return sources
        raise self.refused(path, module, "NIR has no node for it")

    def refused(self, path: str, module: nn.Module, why: str) -> InputError:
        """The error of a layer that is not written."""
        return InputError(
            f"to_nir: {path or 'the module'} is a {type(module).__name__} that cannot be written: "
            f"{why}"
        )

    def spiking(self, path: str, module: Any, **settings: Any) -> None:
        """Note what a neuron does that NIR leaves open; one graph has one convention."""
        for name, value in settings.items():
            self.first.setdefault(name, path)
            if self.settled.setdefault(name, value) != value:
                raise self.refused(
                    path,
                    module,
                    f"its {name} is {value}, and that of {self.first[name]} is "
                    f"{self.settled[name]}",
                )


def _nir_shape(shape: Shape) -> Shape:
    return (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 and shape[2] > 1 else shape


def _array(value: Tensor) -> Array:
    return np.atleast_1d(value.detach().cpu().double().numpy())


def _full(value: Tensor, shape: Shape) -> Array:
    """A parameter as one value a neuron, as NIR has it."""
    found = _array(value)
    if found.size == shape[0] and found.ndim == 1:
        found = found.reshape(-1, *(1,) * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(found, shape)).reshape(_nir_shape(shape))


def _plain(layer: Any) -> Array:
    """A weight in use, without axes of size 1 behind the first two."""
    weight = _array(layer.effective_weight)
    return weight.reshape(weight.shape[:2])


def _window(pool: Any) -> tuple[Array, ...]:
    return tuple(np.array(size[:2]) for size in (pool.kernel_size, pool.stride, pool.padding))


def _dense(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    if layer.kernel_size != (1, 1, 1):
        raise writer.refused(path, layer, "flatten the image before a dense synapse")
    return writer.add(path, writer.nir.Linear(_plain(layer)), sources)


def _conv(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    weight = _array(layer.effective_weight)[..., 0]
    shape = writer.shapes[id(layer)][0]
    sizes: list[Any] = [
        tuple(int(n) for n in v[:2]) for v in (layer.stride, layer.padding, layer.dilation)
    ]
    where: Any = shape[1:]
    kind = writer.nir.Conv2d
    if len(_nir_shape(shape)) == 2:  # an image of one row
        kind, where, weight = writer.nir.Conv1d, shape[2], weight[:, :, 0]
        sizes = [size[1] for size in sizes]
    stride, padding, dilation = sizes
    node = kind(where, weight, stride, padding, dilation, layer.groups, np.zeros(len(weight)))
    return writer.add(path, node, sources)


def _pool(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape, behind = writer.shapes[id(layer)]
    kernel, stride, padding = _window(layer)
    whole = tuple((np.array(shape[1:]) + 2 * padding - kernel) // stride + 1)
    if layer.merge_channels or whole != behind[1:] or tuple(layer.dilation[:2]) != (1, 1):
        raise writer.refused(path, layer, "its windows reach beyond the image or across channels")
    sources = writer.add(path, writer.nir.SumPool2d(kernel, stride, padding), sources)
    weight = _array(layer.effective_weight).reshape(-1)
    if (weight != weight[0]).any():
        raise writer.refused(path, layer, "its weights differ")
    if weight[0] != 1:
        scale = np.full(_nir_shape(behind), weight[0])
        sources = writer.add(f"{path}.scale", writer.nir.Scale(scale), sources)
    return sources


def _bias(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    """Put a bias into the linear node before it."""
    (before,) = sources if len(sources) == 1 else ("",)
    node: Any = writer.nodes.get(before)
    bias = -_array(layer.mean)
    shared = sum(source == before for source, _ in writer.edges)
    kind = type(node).__name__
    if shared or kind not in ("Linear", "Conv1d", "Conv2d"):
        raise writer.refused(path, layer, "a bias stands behind a synapse of its own")
    if kind == "Linear":
        writer.nodes[before] = writer.nir.Affine(
            node.weight, np.broadcast_to(bias, len(node.weight)).copy()
        )
    else:
        node.bias = np.broadcast_to(bias, len(node.bias)).copy()
    return sources


def _flatten(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape = writer.shapes[id(layer)][0]
    node = writer.nir.Flatten({"input": np.array(_nir_shape(shape))}, 0, -1)
    return writer.add(path, node, sources)


def _delay(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape = writer.shapes[id(layer)][0]
    steps = torch.ones(1) if isinstance(layer, StepDelay) else layer._steps().float()
    steps = steps.reshape(shape) if steps.numel() == math.prod(shape) else steps
    return writer.add(path, writer.nir.Delay(_full(steps, shape) * writer.dt), sources)


def _identity(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    return sources


def _lif(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    values = {name: _full(getattr(layer, name), shape := writer.shapes[id(layer)][0])
              for name in ("alpha", "beta", "gain", "drive")}  # fmt: skip
    level = None
    if not layer.readout:
        kind = layer.reset_kind
        if kind.endswith("zero") and (bool(layer.alpha.any()) or layer._fed):
            writer.spiking(path, layer, reset="zero", zero_behind=kind, strict=layer.strict)
        elif kind == "delayed_zero":
            raise writer.refused(path, layer, "this reset goes with a current or with feedback")
        else:
            writer.spiking(path, layer, reset=kind, strict=layer.strict)
        level = layer.v_threshold.detach()
        if layer.strict:
            level = torch.nextafter(level, torch.tensor(-math.inf))
        level = _full(level, shape)
    value = 0 * values["gain"]
    if layer.reset_kind.endswith("zero"):
        value = _full(layer.v_reset, shape)
    return _neuron(writer, layer, path, sources, values, level, value)


def _cuba(writer: _Writer, layer: Any, path: str, sources: list[str]) -> list[str]:
    if layer.regime != "float" or layer.graded_spike:
        raise writer.refused(path, layer, "NIR has float states and spikes of 1; regime='float'")
    shape = writer.shapes[id(layer)][0]
    values = {
        "alpha": 1 - _full(layer.current_decay, shape),
        "beta": 1 - _full(layer.voltage_decay, shape),
        "gain": np.ones(_nir_shape(shape)),
        "drive": np.zeros(_nir_shape(shape)),
    }
    level = None
    if not layer.readout:
        current = {"zero_behind": "zero"} if values["alpha"].any() else {}
        writer.spiking(path, layer, reset="zero", strict=False, **current)
        level = np.full(_nir_shape(shape), layer.threshold)
    return _neuron(writer, layer, path, sources, values, level, 0 * values["gain"])


def _neuron(
    writer: _Writer,
    layer: Any,
    path: str,
    sources: list[str],
    values: dict[str, Array],
    level: Array | None,
    reset: Array,
) -> list[str]:
    """Add a neuron from the terms of its difference equation; without a level it is a readout."""
    if any(getattr(layer, name) is not None for name in layer._norm_names()):
        raise writer.refused(path, layer, "NIR has no norm")
    nir, dt = writer.nir, writer.dt
    alpha, beta, gain, drive = (values[name] for name in ("alpha", "beta", "gain", "drive"))
    spikes = {} if level is None else {"v_threshold": level, "v_reset": reset}
    if (beta == 1).all() and not alpha.any() and not drive.any():
        kind = nir.I if level is None else nir.IF
        return writer.add(path, kind(r=gain / dt, **spikes), sources)
    if (beta >= 1).any() or (alpha >= 1).any() or (beta < 0).any() or (alpha < 0).any():
        raise writer.refused(path, layer, "what it keeps of its states must lie in [0, 1)")
    lost = 1 - beta
    leak = {"r": gain / lost, "v_leak": drive / lost}
    if not alpha.any():
        kind = nir.LI if level is None else nir.LIF
        return writer.add(path, kind(tau=dt / lost, **leak, **spikes), sources)
    kind = nir.CubaLI if level is None else nir.CubaLIF
    fades = 1 - alpha
    more = {"tau_syn": dt / fades, "tau_mem": dt / lost, "w_in": 1 / fades}
    return writer.add(path, kind(**more, **leak, **spikes), sources)


#: layer of ours -> what writes it
_WRITERS: dict[type, Callable[[_Writer, Any, str, list[str]], list[str]]] = {
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
}
