"""Builds a NIR graph layer by layer: shapes, names, edges and the convention of the neurons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.readers._fields import Shape
from synapse_onnx.readers._network import Add, Network
from synapse_onnx.readers._nir.convention import Convention

#: (writer, layer, path, nodes that feed it) -> the nodes whose sum is its output
LayerWriter = Callable[["GraphWriter", Any, str, list[str]], list[str]]


class GraphWriter:
    """Collects the nodes and edges of a graph.

    Attributes:
        nodes: the nodes so far, by name.
        edges: pairs (source, target) of names.
        shapes: id of a layer -> shapes (C[, H, W]) of its input and of its output.
    """

    def __init__(self, nir: Any, dt: float, write_layer: LayerWriter) -> None:
        self.nir, self.dt = nir, Convention().with_values(dt=dt).dt
        self.write_layer = write_layer
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[int, tuple[Shape, Shape]] = {}
        #: field of the convention -> its value in the neurons so far, and the first such neuron
        self.convention: dict[str, tuple[Any, str]] = {}

    def write(self, module: nn.Module, shapes: list[Shape]) -> Any:
        """Return the graph of a network, given the shape (C[, H, W]) of each of its inputs."""
        self._record_shapes(module, shapes)
        names = list(getattr(module, "input_names", ())) or ["input"]
        sources = []
        for name, shape in zip(names, shapes, strict=True):
            self.nodes[name] = self.nir.Input(input_type=np.array(nir_shape(shape)))
            sources.append([name])
        if isinstance(module, Network):
            results = self._network(module, sources)
        else:
            results = [self.write_layer(self, module, "", sources[0])]
        output_shapes = self._output_shapes(module, shapes)
        for i, (ends, shape) in enumerate(zip(results, output_shapes, strict=True)):
            name = "output" if len(results) == 1 else f"output_{i}"
            self.nodes[name] = self.nir.Output(output_type=np.array(nir_shape(shape)))
            self.edges += [(end, name) for end in ends]
        values = {name: value for name, (value, _) in self.convention.items()}
        metadata = Convention().with_values(dt=self.dt, **values).metadata()
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=metadata, type_check=False)

    def _record_shapes(self, module: nn.Module, shapes: list[Shape]) -> None:
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
                module(*(torch.zeros(1, *shape, 2) for shape in shapes))
        except SynapseError:
            raise
        except Exception as error:
            raise InputError(f"to_nir: the network does not take {shapes}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
            module.train(training)

    def _output_shapes(self, module: nn.Module, shapes: list[Shape]) -> list[Shape]:
        if id(module) in self.shapes:
            return [self.shapes[id(module)][1]]
        assert isinstance(module, Network)
        inputs = dict(zip(module.input_names, shapes, strict=True))
        return [
            inputs[name] if name in inputs else self.shapes[id(getattr(module.layers, name))][1]
            for name in module.outputs
        ]

    def _network(self, network: Network, sources: list[list[str]]) -> list[list[str]]:
        """Write the layers of a network that was read; return the nodes of each output."""
        ends = dict(zip(network.input_names, sources, strict=True))
        for name, wires in network.wires.items():
            layer = getattr(network.layers, name)
            before = [end for wire in wires for end in ends[wire]]
            # several edges into a node are added, so a sum needs no node
            adds = isinstance(layer, Add)
            ends[name] = before if adds else self.write_layer(self, layer, name, before)
        return [ends[name] for name in network.outputs]

    def add(self, path: str, node: Any, sources: list[str]) -> list[str]:
        """Add a node under the path of its layer, fed by other nodes; return its name, alone."""
        stem, count = path.replace(".", "_") or "layer", 2
        name = stem
        while name in self.nodes:
            name, count = f"{stem}_{count}", count + 1
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return [name]

    def refused(self, path: str, layer: nn.Module, reason: str) -> InputError:
        """Return the error of a layer that cannot be written."""
        return InputError(
            f"to_nir: {path or 'the module'} is a {type(layer).__name__} that cannot be written: "
            f"{reason}"
        )

    def settle(self, path: str, layer: Any, **values: Any) -> None:
        """Record fields of the convention that a neuron needs; those of all neurons must agree."""
        for name, value in values.items():
            settled, first = self.convention.setdefault(name, (value, path))
            if settled != value:
                raise self.refused(
                    path, layer, f"its {name} is {value}, and that of {first} is {settled}"
                )


def nir_shape(shape: Shape) -> Shape:
    """Return a shape as NIR has it: an image of one row (C, 1, L) is (C, L)."""
    return (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 and shape[2] > 1 else shape
