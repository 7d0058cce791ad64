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

    Raises:
        ExportError: a layer with states is called more than once.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.network = network
        self.chunk = steps_per_bin(network)
        self.states = self._find(inputs)
        self._inputs = len(inputs)

    def _find(self, inputs: Sequence[Tensor]) -> list[State]:
        """Run once, to see which states are used and of what shape."""
        layers = [
            (path, layer)
            for path, layer in self.network.named_modules()
            if isinstance(layer, Stateful) and layer.state_starts
        ]
        calls: Counter[str] = Counter()
        with contextlib.ExitStack() as stack, torch.no_grad():
            for path, layer in layers:
                layer.persistent_state = True
                stack.callback(layer.reset)
                stack.callback(setattr, layer, "persistent_state", False)  # before the reset
                hook = layer.register_forward_pre_hook(lambda *_, path=path: calls.update([path]))
                stack.enter_context(hook)
            self.network(*inputs)
            states = [
                State(
                    name, layer, key, layer.state_starts[key],
                    torch.full_like(getattr(layer, f"{key}_state"), layer.state_starts[key]),
                )
                for name, layer, key in named_states(self.network)
                if getattr(layer, f"{key}_state").dim() > 1
            ]  # fmt: skip
        twice = [path for path, number in calls.items() if number > 1]
        if twice:
            raise ExportError(
                f"streaming: forward() calls {twice[0]} {calls[twice[0]]} times, and it keeps one "
                f"state; give every call a layer of its own"
            )
        return states

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """Give the network a ``forward(*inputs, *states)`` that returns outputs and states."""
        plain = self.network.forward
        names = argument_names(self.network)[: self._inputs]
        names = names or [f"input_{i}" for i in range(self._inputs)]
        # the tracer names inputs after the arguments, which must be identifiers; the states get
        # their paths as names afterwards
        names += [f"carried_state_{i}" for i in range(len(self.states))]

        def forward(*args: Tensor) -> tuple[Any, ...]:
            return self.run(plain, args[: self._inputs], args[self._inputs :])

        with replaced_forward(self.network, forward, names):
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
