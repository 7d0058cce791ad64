"""A network that was read from a file: layers with its values, and the edges between them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.axon import Delay

__all__ = ["Add", "Concatenate", "Network", "delay_line", "unused", "with_weight"]


class Network(nn.Module):
    """Layers in the order in which they run, and the edges between them.

    Args:
        layers: name -> layer, in the order in which they run. They become children of ``layers``,
            so a name holds no dot.
        wires: name of a layer -> names of the inputs and layers whose outputs are its arguments.
        inputs: name of an argument of ``forward`` -> shape of one sample without batch and time,
            (C,) or (C, H, W); None where the file does not state it.
        outputs: names of the layers (or inputs) that ``forward`` returns: one value, or a tuple.

    Attributes:
        layers: the layers, by name.
        input_shapes: the shapes of the inputs, in order.
    """

    input_names: tuple[str, ...] = ()

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        wires: Mapping[str, Sequence[str]],
        inputs: Mapping[str, tuple[int, ...] | None],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.__class__ = _with_arguments(tuple(inputs))
        self.layers = nn.Module()
        for name, layer in layers.items():
            self.layers.add_module(name, layer)
        self.wires = {name: tuple(wires[name]) for name in layers}
        self.input_shapes = list(inputs.values())
        self.outputs = tuple(outputs)

    def run(self, *inputs: Any) -> dict[str, Any]:
        """Return the value of every input and layer, by name.

        Args:
            inputs: the arguments of ``forward``, (N, C[, H, W], T) each; a pair (real, imag) for a
                complex current.
        """
        values: dict[str, Any] = dict(zip(self.input_names, inputs, strict=True))
        for name, sources in self.wires.items():
            layer: nn.Module = getattr(self.layers, name)
            values[name] = layer(*(values[source] for source in sources))
        return values

    def forward(self, *inputs: Any) -> Any:
        """Return the output of the network, or a tuple of several."""
        values = self.run(*inputs)
        results = tuple(values[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the names of the arguments: the class is made from them."""
        return _empty, (self.input_names,), self.__dict__


@functools.cache
def _with_arguments(names: tuple[str, ...]) -> type[Network]:
    """The subclass whose ``forward`` has arguments of these names.

    ``torch.export`` takes the names of a model's inputs from the signature.
    """

    def forward(self: Network, *inputs: Any) -> Any:
        return Network.forward(self, *inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body = {"forward": forward, "input_names": names, "__doc__": Network.__doc__}
    return type("Network", (Network,), {**body, "__module__": __name__})


def _empty(names: tuple[str, ...]) -> Network:
    return nn.Module.__new__(_with_arguments(names))


class Add(nn.Module):
    """Sum of the outputs of several layers."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the sum, in the order of the arguments."""
        return sum(inputs[1:], start=inputs[0])


class Concatenate(nn.Module):
    """Outputs of several layers, concatenated along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return (N, sum of the C[, H, W], T)."""
        return torch.cat(inputs, dim=1)


def unused(name: str, used: Container[str]) -> str:
    """Return a name, with a number after it where it is taken."""
    stem, count = name, 2
    while name in used:
        name, count = f"{stem}_{count}", count + 1
    return name


def with_weight(synapse: Any, weight: Tensor) -> Any:
    """Store a weight in a real synapse, and return the synapse.

    The weight may lack axes of size 1: (outputs, inputs), or (outputs, inputs, width).
    """
    synapse.weight.data = weight.reshape(synapse.weight.shape)
    return synapse


def delay_line(steps: Tensor, max_delay: int | None = None) -> Delay:
    """Return a delay in time steps: (1,) for all, one a channel (C,), or one a neuron, flat."""
    line = Delay(max_delay)
    line.load_state_dict({"delay": steps})
    return line
