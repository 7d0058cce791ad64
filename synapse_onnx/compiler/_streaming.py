"""Streaming: the states of a network become arguments and results of its ``forward``.

:class:`Streamed` replaces the ``forward`` of a frozen network while it is traced, so that the graph
is that of one chunk of an endless sequence: states in, states out.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Stateful, argument_names, named_states, replaced_forward
from synapse_onnx.compiler._dynamic import steps_per_bin
from synapse_onnx.errors import ExportError

__all__ = ["State", "Streamed"]


@dataclass(frozen=True)
class State:
    """One state of a network.

    Attributes:
        name: path of the layer and name of the state; also the name of the graph's input.
        layer: the layer that keeps it.
        key: its name in the layer.
        start: its initial value, one number for all elements.
        example: an initial state, for the batch of the example inputs.
    """

    name: str
    layer: Stateful
    key: str
    start: float
    example: Tensor

    @property
    def output(self) -> str:
        """Name of the graph's output."""
        return f"{self.name}.next"


class Streamed:
    """The states of a frozen network, and its forward pass with them as arguments.

    Args:
        network: a frozen network.
        inputs: example inputs.

    Attributes:
        states: every state that the forward pass uses.
        chunk: number of steps that a call's steps must be a multiple of, except the last call.
        last_values: indices of the outputs that are values after the last step, and have no time.

    Raises:
        ExportError: a layer with states is called more than once.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.network = network
        self.chunk = steps_per_bin(network)
        self.states = self._find(inputs)
        self._inputs = len(inputs)
        self.last_values: frozenset[int] = getattr(network, "last_values", frozenset())

    def _find(self, inputs: Sequence[Tensor]) -> list[State]:
        """Run once, to see which states are used and of what shape."""
        layers = [
            (path, layer)
            for path, layer in self.network.named_modules()
            if isinstance(layer, Stateful) and layer.state_starts
        ]
        calls: Counter[tuple[Stateful, str]] = Counter()
        last: dict[tuple[Stateful, str], Tensor] = {}
        with contextlib.ExitStack() as stack, torch.no_grad():
            for _, layer in layers:

                def save(layer: Stateful = layer, **states: Tensor) -> None:
                    for key, value in states.items():
                        calls[layer, key] += 1
                        last[layer, key] = value

                setattr(layer, "save_states", save)  # noqa: B010 (in place of the method)
                stack.callback(delattr, layer, "save_states")
            self.network(*(x.clone() for x in inputs))  # which it may change in place
        for path, layer in layers:
            number = max((calls[layer, key] for key in layer.state_starts), default=0)
            if number > 1:
                raise ExportError(
                    f"streaming: forward() calls {path or 'the layer'} {number} times, and it "
                    f"keeps one state; give every call a layer of its own"
                )
        return [
            State(
                name, layer, key, layer.state_starts[key],
                torch.full_like(last[layer, key], layer.state_starts[key]),
            )
            for name, layer, key in named_states(self.network)
            if (layer, key) in last
        ]  # fmt: skip

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """Give the network a ``forward(*inputs, *states)`` that returns outputs and states."""
        names = argument_names(self.network)[: self._inputs]
        names = names or [f"input_{i}" for i in range(self._inputs)]
        # the tracer names inputs after the arguments, which must be identifiers; the states get
        # their paths as names afterwards
        names += [f"carried_state_{i}" for i in range(len(self.states))]

        def make(plain: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: self.run(plain, args[: self._inputs], args[self._inputs :])

        with replaced_forward(self.network, make, names):
            yield

    def run(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[Any, ...]:
        """Run ``forward`` from these states; return the outputs, flattened, and the next states."""
        carried: dict[Stateful, dict[str, Tensor]] = {}
        for state, value in zip(self.states, states, strict=True):
            carried.setdefault(state.layer, {})[state.key] = value
        for layer, values in carried.items():
            layer.carried = values
        try:
            outputs, _ = torch.utils._pytree.tree_flatten(forward(*inputs))
        finally:
            for layer in carried:
                del layer.carried
        following = (carried[state.layer][state.key] for state in self.states)
        return (*(y for y in outputs if y is not None), *following)
