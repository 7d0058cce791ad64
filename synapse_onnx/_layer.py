"""The contract of a torch module that has a deployment form, and of one that keeps states."""

from __future__ import annotations

import contextlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError

__all__ = [
    "Deployable",
    "LoopsOverTime",
    "Stateful",
    "argument_names",
    "named_states",
    "put_forward",
    "replaced_forward",
    "whole_scale",
]

#: with more, a state of 1.0, which is 64 * scale, times a decay of 4096ths leaves 64 bits
_LARGEST_SCALE = 1 << 44


class Deployable(nn.Module):
    """A layer that ``freeze`` turns into its deployment form and ``verify`` compares by itself.

    A layer that holds others freezes them too: nothing below it is visited.
    """

    #: whether it is a layer of the network, and not a part of this package's own that keeps states
    is_layer: bool = True
    #: whether the outputs are spikes, to be counted as flips where they differ
    spiking: bool = False
    #: paths of tensors, relative to this layer, that its frozen form holds with other values
    rewritten: frozenset[str] = frozenset()

    def freeze(self) -> None:
        """Turn this layer into its deployment form, in place, where that is another one."""

    def reset(self) -> None:
        """Forget the states that the layer keeps between calls, if it has any."""

    def describe(self) -> dict[str, Any]:
        """Return what a model's metadata says of this layer, frozen: plain JSON values."""
        raise NotImplementedError


class LoopsOverTime(nn.Module):
    """A module of this package whose ``forward`` loops over time in torch code.

    An export finds the loop, as it does in a user's code.
    """


class Stateful(Deployable):
    """A layer with states, one number a neuron each, that may persist between calls.

    State ``x`` lives in the buffer ``x_state``, which no checkpoint holds: one number until the
    first input, then (N, C[, H, W]), or (N, C[, H, W], D) where D steps are kept. While
    :attr:`persistent_state` is on, a call goes on where the one before it ended, so that a
    sequence may come in chunks.
    """

    #: what an error calls this layer, and what it says of an input of another shape
    noun = "layer"
    takes = "an input"
    advice = ""
    #: shape of the first input without batch and time, (C[, H, W]); None before it
    shape: torch.Size | None = None
    persistent_state: bool = False
    #: states that the caller carries instead of the buffers, while a streamed graph is traced
    carried: dict[str, Tensor] | None = None

    def register_state(self, name: str, dtype: torch.dtype, start: float = 0) -> None:
        """Declare a state that starts from a number."""
        self.__dict__.setdefault("_state_starts", {})[name] = start
        self.register_buffer(
            f"{name}_state", torch.full((1,), start, dtype=dtype), persistent=False
        )

    @property
    def state_starts(self) -> dict[str, float]:
        """The number that each state starts from, by the name of the state."""
        return dict(self.__dict__.get("_state_starts", {}))

    @property
    def _title(self) -> str:
        """What an error about the rank of an input begins with."""
        return self.noun

    def _check_rank(self, x: Tensor) -> None:
        if x.dim() not in (3, 5):
            raise ShapeError(
                f"{self._title}: expected {self.takes} of shape (N, C, T) or (N, C, H, W, T), got "
                f"{tuple(x.shape)}"
            )

    def _check_shape(self, x: Tensor) -> bool:
        """Check an input against the first one; return whether it is the first."""
        self._check_rank(x)
        if self.shape is None:
            self.shape = x.shape[1:-1]
            return True
        if self.shape != x.shape[1:-1]:
            raise ShapeError(
                f"the {self.noun} was built up with shape {tuple(self.shape)} (C[, H, W]) and got "
                f"{self.takes} of shape {tuple(x.shape)}{self.advice}"
            )
        return False

    def freeze(self) -> None:
        """Forget the states, and keep none from now on."""
        self.persistent_state = False
        self.reset()

    def state_depth(self, name: str) -> int | None:
        """Return how many steps a state keeps; None for a single one, without an axis for it."""
        return None

    def reset(self) -> None:
        """Forget the states: the next call starts afresh, with any batch size."""
        for name, start in self.state_starts.items():
            old: Tensor = getattr(self, f"{name}_state")
            setattr(
                self, f"{name}_state", torch.full((1,), start, dtype=old.dtype, device=old.device)
            )

    def load_states(self, x: Tensor, *names: str) -> tuple[Tensor, ...]:
        """Return the states (all, or those named) that a sequence x (N, C[, H, W], T) starts from.

        Raises:
            ShapeError: the states kept are for another batch size or shape.
        """
        names = names or tuple(self.state_starts)
        if self.carried is not None:
            return tuple(self.carried[name] for name in names)
        states = []
        for name in names:
            state: Tensor = getattr(self, f"{name}_state")
            depth = self.state_depth(name)
            shape = (*x.shape[:-1], *(() if depth is None else (depth,)))
            if not self.persistent_state or state.dim() == 1:
                start = self.state_starts[name]
                state = torch.zeros(shape, dtype=state.dtype, device=x.device)
                if start:
                    state = state + start
            elif state.dim() != len(shape) or state.shape[1:] != shape[1:]:
                raise ShapeError(
                    f"the {self.noun} keeps its {name} state in shape {tuple(state.shape)} and got "
                    f"an input of shape {tuple(x.shape)}, which needs {tuple(shape)}; call reset() "
                    f"before the shape changes"
                )
            elif state.shape[0] != shape[0]:
                raise ShapeError(
                    f"the {self.noun} keeps states for a batch of {state.shape[0]} and got a batch "
                    f"of {x.shape[0]}; call reset() before the batch size changes"
                )
            states.append(state)
        return tuple(states)

    def save_states(self, **states: Tensor) -> None:
        """Keep the last states of a call, where they persist."""
        if self.carried is not None:
            self.carried.update(states)
        elif self.persistent_state:
            for name, state in states.items():
                setattr(self, f"{name}_state", state.detach())


def argument_names(module: nn.Module) -> list[str]:
    """Return the names of the arguments of ``forward``; none where it takes ``*args``."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return []
    return [p.name for p in parameters]


@contextlib.contextmanager
def replaced_forward(
    module: nn.Module,
    make: Callable[[Callable[..., Any]], Callable[..., Any]],
    names: Sequence[str],
) -> Iterator[None]:
    """Give a module another ``forward``, with arguments of these names, for a while.

    ``make`` returns it, and is given a function that runs the module as before. The module's own
    hooks, which know the arguments of before, belong to that one.
    """
    plain = before = module.forward
    hooks = module._forward_pre_hooks, module._forward_hooks
    if any(hooks):

        def plain(*args: Any, **kwargs: Any) -> Any:
            with put_forward(module, before, hooks):
                return module(*args, **kwargs)

    forward = make(plain)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    with put_forward(module, forward, (OrderedDict(), OrderedDict())):
        yield


@contextlib.contextmanager
def put_forward(
    module: nn.Module, forward: Callable[..., Any], hooks: tuple[Any, Any] | None = None
) -> Iterator[None]:
    """Give a module this ``forward``, and these hooks before and after it, for a while.

    ``hooks`` of None leaves it its own.
    """
    old, before = module.__dict__.get("forward"), (module._forward_pre_hooks, module._forward_hooks)
    module.forward = forward
    module._forward_pre_hooks, module._forward_hooks = before if hooks is None else hooks
    try:
        yield
    finally:
        module._forward_pre_hooks, module._forward_hooks = before
        if old is None:
            del module.forward
        else:
            module.forward = old


def named_states(module: nn.Module) -> Iterator[tuple[str, Stateful, str]]:
    """Yield (name, layer, state) of every state below a module; the name is the state's path."""
    for path, layer in module.named_modules():
        if isinstance(layer, Stateful):
            for state in layer.state_starts:
                yield f"{path}.{state}" if path else state, layer, state


def whole_scale(scale: Any) -> int:
    """Return a scale, the integer that represents 1.0, as an int.

    Raises:
        InputError: it is no positive integer, or so large that states of 64 bits cannot hold 1.0.
    """
    try:
        whole = int(scale)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole < 1 or whole != scale:
        raise InputError(f"scale must be a positive integer, got {scale}")
    if whole > _LARGEST_SCALE:
        raise InputError(
            f"scale must be at most 2**44, so that a state of 1.0 fits into 64 bits, got {scale}"
        )
    return whole
