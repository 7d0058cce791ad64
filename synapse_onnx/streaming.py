"""A network as one chunk of an endless sequence: states in, states out.

:class:`Streamed` gives a frozen network a ``forward`` that takes and returns every state, so that
what is traced keeps nothing to itself.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import ExportError
from synapse_onnx.layout import has_time
from synapse_onnx.module import Stateful, argument_names, named_states, replaced_forward

__all__ = ["State", "Streamed", "bin_of"]


@dataclass(frozen=True)
class State:
    """One state of a network.

    Attributes:
        name: path of the layer and name of the state; also the name of the graph's input.
        layer: the layer that keeps it.
        key: its name in the layer.
        start: the number that it starts from.
        example: a fresh one, for the batch of the example inputs.
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


def bin_of(network: nn.Module) -> int:
    """Return the number of steps that a chunk's steps must be a multiple of, except the last's."""
    layers = [layer for layer in network.modules() if hasattr(layer, "describe")]
    return math.prod(getattr(layer, "factor", 1) for layer in layers)


class Streamed:
    """The states of a frozen network, and its forward pass with them as arguments.

    Args:
        network: a frozen network; its ``forward`` is replaced until :meth:`restore`.
        inputs: example inputs.

    Attributes:
        states: every state that the forward pass uses.
        chunk: number of steps that a call's steps must be a multiple of, except the last call.

    Raises:
        ExportError: a layer with states is called more than once.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.network = network
        self.count = len(inputs)
        self.states = self._find(inputs)
        self.chunk = bin_of(network)

    def _find(self, inputs: Sequence[Tensor]) -> list[State]:
        """Run once, to see which states there are and of what shape."""
        calls: Counter[str] = Counter()

        def count(path: str) -> Any:
            def hook(*_: Any) -> None:
                calls[path] += 1

            return hook

        layers = [
            (path, layer)
            for path, layer in self.network.named_modules()
            if isinstance(layer, Stateful) and layer.state_starts
        ]
        handles = [layer.register_forward_pre_hook(count(path)) for path, layer in layers]
        for _, layer in layers:
            layer.persistent_state = True
        try:
            with torch.no_grad():
                self.network(*inputs)
            found = [
                State(
                    name, layer, key, layer.state_starts[key],
                    torch.full_like(getattr(layer, f"{key}_state"), layer.state_starts[key]),
                )
                for name, layer, key in named_states(self.network)
                if getattr(layer, f"{key}_state").dim() > 1
            ]  # fmt: skip
        finally:
            for handle in handles:
                handle.remove()
            for _, layer in layers:
                layer.persistent_state = False
                layer.reset()
        twice = [path for path, number in calls.items() if number > 1]
        if twice:
            raise ExportError(
                f"streaming: forward() calls {twice[0]} {calls[twice[0]]} times, and it keeps one "
                f"state; give every call a layer of its own"
            )
        return found

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """Give the network a ``forward(*inputs, *states)`` that returns outputs and states."""
        plain = self.network.forward
        names = argument_names(self.network)[: self.count]
        names = names or [f"input_{i}" for i in range(self.count)]
        # the tracer names inputs after the arguments, which must be identifiers
        names += [f"carried_state_{i}" for i in range(len(self.states))]

        def forward(*args: Tensor) -> tuple[Any, ...]:
            return self.run(plain, args[: self.count], args[self.count :])

        with replaced_forward(self.network, forward, names):
            yield

    def run(
        self, forward: Any, inputs: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[Any, ...]:
        """Run from given states; return the outputs, flat, and the states behind them."""
        layers = {id(state.layer): state.layer for state in self.states}
        for layer in layers.values():
            layer.carried = {}
        for state, value in zip(self.states, states, strict=True):
            carried: Any = state.layer.carried
            carried[state.key] = value
        try:
            outputs, _ = torch.utils._pytree.tree_flatten(forward(*inputs))
            after = []
            for state in self.states:
                carried = state.layer.carried
                after.append(carried[state.key])
        finally:
            for layer in layers.values():
                del layer.carried
        return (*(y for y in outputs if y is not None), *after)

    def check(self, inputs: Sequence[Tensor], *, exact: bool) -> None:
        """Refuse a network whose outputs in two chunks are not those of the whole sequence.

        Raises:
            ExportError: an output has no time axis, or code between the layers looks at more
                than one time step.
        """
        steps = min((x.shape[-1] for x in inputs if has_time(x.dim())), default=0)
        cut = steps // 2 // self.chunk * self.chunk
        with torch.no_grad():
            starts = [state.example for state in self.states]
            whole = self.run(self.network.forward, inputs, starts)[: -len(starts) or None]
            for i, y in enumerate(whole):
                if not has_time(y.dim()):
                    raise ExportError(
                        f"streaming: output {i} of shape {tuple(y.shape)} has no time axis, so it "
                        f"cannot come step by step; return (N, C[, H, W], T)"
                    )
            if cut < 1:
                return
            parts: list[tuple[Tensor, ...]] = []
            states: Sequence[Tensor] = starts
            for a, b in ((0, cut), (cut, steps)):
                chunk = [x[..., a:b] if has_time(x.dim()) else x for x in inputs]
                results = self.run(self.network.forward, chunk, states)
                parts.append(results[: len(whole)])
                states = results[len(whole) :]
        for i, (y, first, second) in enumerate(zip(whole, *parts, strict=True)):
            joined = torch.cat([first, second], dim=-1)
            if joined.shape != y.shape or (exact and not torch.equal(joined, y)):
                raise ExportError(
                    f"streaming: output {i} of two chunks is not that of the whole sequence; code "
                    f"between the layers looks at more than one time step, or keeps a state that "
                    f"no layer of this package knows of"
                )
