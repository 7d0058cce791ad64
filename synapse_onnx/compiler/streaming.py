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
from typing import Any, Self

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable, Stateful, argument_names, named_states, replaced_forward
from synapse_onnx.errors import ExportError
from synapse_onnx.model.layout import has_time

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

    def check(self, inputs: Sequence[Tensor]) -> None:
        """Refuse a network that makes of two chunks something else than of the whole sequence.

        While chunks are run, every layer is given, and gives, what it was given and gave with the
        whole: a sum of floats that is rounded otherwise in a chunk flips no spike behind it. What
        is compared is the code between two layers, and every layer by itself.

        Raises:
            ExportError: an output has no time axis, or two chunks are not the whole.
        """
        steps = min((x.shape[-1] for x in inputs if has_time(x.dim())), default=0)
        cut = steps // 2 // self.chunk * self.chunk
        states: Sequence[Tensor] = [state.example for state in self.states]
        with torch.no_grad(), _Recorded(self.network) as recorded:
            whole = self.run(self.network.forward, inputs, states)[: -len(states) or None]
            for i, y in enumerate(whole):
                if not has_time(y.dim()):
                    raise ExportError(
                        f"streaming: output {i} of shape {tuple(y.shape)} has no time axis, so it "
                        f"cannot come step by step; return (N, C[, H, W], T)"
                    )
            if cut < 1:
                return
            recorded.give_outputs(whole)
            for a, b in ((0, cut), (cut, steps)):
                recorded.next_chunk()
                chunk = [x[..., a:b] if has_time(x.dim()) else x for x in inputs]
                results = self.run(self.network.forward, chunk, states)
                recorded.give_outputs(results[: len(whole)])
                states = results[len(whole) :]
            recorded.end()


#: float32 sums of another order, relative to the largest value; a wrong step is far more than this
_TOLERANCE = 1e-4

_CODE = "code between the layers"


class _Recorded:
    """What a network and its layers take and give: noted, then compared chunk by chunk."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        #: by place, who is to blame for it, and call
        self.noted: dict[tuple[str, str, int], Tensor] = {}
        self.done: Counter[tuple[str, str, int]] = Counter()
        self.calls: Counter[str] = Counter()
        self.compares = False

    def __enter__(self) -> Self:
        self.handles = []
        for path, layer in self.network.named_modules():
            if isinstance(layer, Deployable):
                name = path or "the network"

                def before(_: Any, args: Any, kwargs: Any, name: str = name) -> Any:
                    return self.pass_on(f"the input of {name}", _CODE, (args, kwargs))

                def behind(_: Any, __: Any, y: Any, name: str = name) -> Any:
                    return self.pass_on(f"the output of {name}", "the layer", y)

                self.handles += [
                    layer.register_forward_pre_hook(before, with_kwargs=True),
                    layer.register_forward_hook(behind),
                ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def next_chunk(self) -> None:
        """Compare from here on, with what was noted behind the last chunk."""
        self.calls.clear()
        self.compares = True

    def give_outputs(self, outputs: Sequence[Tensor]) -> None:
        """Pass on the network's own outputs."""
        for i, y in enumerate(outputs):
            self.pass_on(f"output {i}", _CODE, y)

    def pass_on(self, place: str, who: str, values: Any) -> Any:
        """Note values, or compare them with those noted and return the latter.

        Raises:
            ExportError: they differ.
        """
        leaves, form = torch.utils._pytree.tree_flatten(values)
        for i, value in enumerate(leaves):
            if not isinstance(value, Tensor) or not has_time(value.dim()):
                continue
            key = (place, who, self.calls[place])
            self.calls[place] += 1
            if not self.compares:
                self.noted[key] = value
                continue
            start = self.done[key]
            self.done[key] += value.shape[-1]
            whole = self.noted[key][..., start : self.done[key]] if key in self.noted else None
            if whole is None or not _is_close(value, whole):
                raise _differs(place, who)
            leaves[i] = whole
        return torch.utils._pytree.tree_unflatten(leaves, form)

    def end(self) -> None:
        """See that the chunks had all that was noted.

        Raises:
            ExportError: something is missing.
        """
        for (place, who, call), value in self.noted.items():
            if self.done[place, who, call] != value.shape[-1]:
                raise _differs(place, who)


def _differs(place: str, who: str) -> ExportError:
    return ExportError(
        f"streaming: in two chunks, {place} is not that of the whole sequence; {who} looks at more "
        f"than one time step, or keeps a state that no layer of this package knows of"
    )


def _is_close(value: Tensor, whole: Tensor) -> bool:
    if value.shape != whole.shape:
        return False
    value, whole = value.double(), whole.double()
    finite = whole[whole.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    return torch.allclose(value, whole, rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True)
