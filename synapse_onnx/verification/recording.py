"""What layers compute, apart from the code that users put around them.

A node of a model is what a layer of this package computes. The user may put more around it: hooks
that change what goes in or comes out, a subclass that goes on with what ``super().forward``
returns. That is part of the graph between the nodes. So a layer is recorded where its own
``forward`` begins and ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx._layer import Deployable, Stateful, named_states

__all__ = ["State", "keeping_states", "kept_states", "of_own_class", "own_forward", "recorded"]

_PACKAGE = __name__.partition(".")[0]


class State(NamedTuple):
    """Last state of a layer: its value (N, C[, H, W][, T]), and whether it has an axis of time."""

    value: NDArray[Any]
    timed: bool


def own_forward(layer: Deployable, *args: Any) -> Any:
    """Run a layer as its node does: without the user's hooks, and without a subclass's code."""
    return _own_class(layer).forward(layer, *args)


@contextlib.contextmanager
def of_own_class(layer: Deployable) -> Iterator[None]:
    """Take a subclass's methods away from a layer for a while."""
    kind = type(layer)
    layer.__class__ = _own_class(layer)
    try:
        yield
    finally:
        layer.__class__ = kind


@contextlib.contextmanager
def keeping_states(module: nn.Module) -> Iterator[None]:
    """Let the layers of a module, or one layer, keep the states that they end with, for a while."""
    parts = {part for _, part, _ in named_states(module)}
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.callback(setattr, part, "persistent_state", part.persistent_state)
            part.persistent_state = True
        yield


def kept_states(layer: Deployable) -> dict[str, State]:
    """Return the states that a layer has kept, by name; those of parts that have run."""
    states = {}
    for _, part, name in named_states(layer):
        value: Tensor = getattr(part, f"{name}_state")
        if value.dim() > 1:  # else one number: this part has not run
            states[name] = State(value.numpy(), timed=part.state_depth(name) is not None)
    return states


@contextlib.contextmanager
def recorded(
    layer: Deployable, record: Callable[[Any, Any, Mapping[str, State] | None], None]
) -> Iterator[None]:
    """Call ``record(argument, result, states)`` after every run of a layer's own ``forward``.

    The states are those that it ends with, by name; None of a layer that keeps some by itself.

    For the time being the layer's class gets one more base, right before the class of this package,
    so that ``super().forward`` of a subclass finds it as well.
    """
    kind, own = type(layer), _own_class(layer)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        states = None
        if any(part.persistent_state for _, part, _ in named_states(layer)):
            result = own.forward(self, *args, **kwargs)
        else:
            with keeping_states(layer):
                result = own.forward(self, *args, **kwargs)
            states = kept_states(layer)
            layer.reset()  # the next call starts afresh, as this one has
        record(args[0] if args else next(iter(kwargs.values())), result, states)
        return result

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    between = type(own.__name__, (own,), {**names, "forward": forward})
    layer.__class__ = between if kind is own else type(kind.__name__, (kind, between), names)
    try:
        yield
    finally:
        layer.__class__ = kind


def _own_class(layer: Deployable) -> Any:
    """Return the class whose ``forward`` the layer's node is: the nearest of this package.

    A class that begins with the contract of layers alone is its own.
    """
    for kind in type(layer).__mro__:
        if kind in (Deployable, Stateful):
            break
        if kind.__module__.partition(".")[0] == _PACKAGE:
            return kind
    return type(layer)
