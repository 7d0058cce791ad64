"""What layers compute, apart from the code that users put around them.

A node of a model is what a layer of this package computes. The user may put more around it: hooks
that change what goes in or comes out, a subclass that goes on with what ``super().forward``
returns. That is part of the graph between the nodes. So a layer is recorded where its own
``forward`` begins and ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from synapse_onnx._layer import Deployable, Stateful

__all__ = ["of_own_class", "own_forward", "recorded"]

_PACKAGE = __name__.partition(".")[0]


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
def recorded(layer: Deployable, record: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call ``record(argument, result)`` after every run of a layer's own ``forward``.

    For the time being the layer's class gets one more base, right before the class of this package,
    so that ``super().forward`` of a subclass finds it as well.
    """
    kind, own = type(layer), _own_class(layer)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = own.forward(self, *args, **kwargs)
        record(args[0] if args else next(iter(kwargs.values())), result)
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
