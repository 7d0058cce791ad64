"""Modules of plain torch that take one step, (N, 6) -> (N, 8), and keep a state between calls.

Weights are multiples of 1/8, inputs whole numbers and decays powers of two, so that sums are exact
in whatever order, and everything is compared bit for bit.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["CELLS", "KEEPING", "Keeping", "as_sequence", "example", "looped"]


class Pair(NamedTuple):
    v: Tensor
    i: Tensor


class Keeping(nn.Module):
    """A layer whose membrane is kept as ``begin`` makes it; ``go`` takes a step from it."""

    def __init__(self, begin: Callable[[nn.Module], None], go: Callable[..., Any]) -> None:
        super().__init__()
        self.fc = exact(nn.Linear(6, 8))
        begin(self)
        self.go = go

    def forward(self, x: Tensor) -> Any:
        return self.go(self, self.fc(x))


def exact(layer: nn.Module) -> Any:
    """Give a layer weights that are multiples of 1/8."""
    draw = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randint(-4, 9, parameter.shape, generator=draw) / 8
    return layer


def lif(v: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return spikes and voltages of one step."""
    v = 0.5 * v + x
    spikes = (v > 1).float()
    return spikes, v - spikes


def _attribute(self: Any, x: Tensor) -> Tensor:
    spikes, self.v = lif(torch.zeros_like(x) if self.v is None else self.v, x)
    return spikes


def _in_place(self: Any, x: Tensor) -> Tensor:
    if self.v.shape != x.shape:
        self.v = self.v.expand(x.shape).clone()
    self.v.mul_(0.5).add_(x)
    spikes = (self.v > 1).float()
    self.v.sub_(spikes)
    return spikes


def _mean(self: Any, x: Tensor) -> Tensor:
    """A number for each neuron, of the whole batch; changed in place from the first step on."""
    self.mean.mul_(0.5).add_(x.detach().sum(0))
    return x + self.mean


def _dictionary(self: Any, x: Tensor) -> Tensor:
    spikes, self.memory["v"] = lif(self.memory["v"], x)
    return spikes


def _list(self: Any, x: Tensor) -> Tensor:
    spikes, v = lif(self.states[-1] if self.states else 0.0, x)
    self.states.append(v)
    return spikes


def _named(self: Any, x: Tensor) -> Tensor:
    i = 0.5 * self.state.i + x
    spikes, v = lif(self.state.v, i)
    self.state = Pair(v, i)
    return spikes


def _delayed(self: Any, x: Tensor) -> Tensor:
    self.line.append(x)
    return x if isinstance(self.line[0], float) else x + self.line[0]


def _made(self: Any, x: Tensor) -> Tensor:
    if not hasattr(self, "v"):
        self.v = torch.zeros_like(x)
    spikes, self.v = lif(self.v, x)
    return spikes


def _several(self: Any, x: Tensor) -> Any:
    spikes, self.v = lif(self.v, x)
    return spikes, {"v": self.v, "none": None, "both": [x, (self.v, x)]}


def _set(name: str, value: Any) -> Callable[[nn.Module], None]:
    return lambda module: setattr(module, name, value() if callable(value) else value)


def _buffer(module: nn.Module) -> None:
    module.register_buffer("v", torch.full((8,), 0.25))


#: how a state is kept -> what makes such a module
KEEPING: dict[str, Callable[[], nn.Module]] = {
    name: (lambda begin=begin, go=go: Keeping(begin, go))
    for name, (begin, go) in {
        "attribute": (_set("v", None), _attribute),
        "number": (_set("v", 0.0), _several),
        "buffer": (_buffer, _in_place),
        "in place": (lambda module: module.register_buffer("mean", torch.ones(8)), _mean),
        "dictionary": (_set("memory", lambda: {"v": 0.25}), _dictionary),
        "list": (_set("states", list), _list),
        "named tuple": (_set("state", Pair(0.0, 0.0)), _named),
        "delay line": (_set("line", lambda: collections.deque([0.0, 0.0, 0.0], 3)), _delayed),
        "made by a call": (lambda _: None, _made),
    }.items()
}


class Cell(nn.Module):
    """A layer that is given its voltage."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = exact(nn.Linear(6, 8))

    def forward(self, x: Tensor, state: Any = None) -> Any:
        return lif(0.0 if state is None else state, self.fc(x))


class TwoStates(Cell):
    """Two states, which the first step is given as None; two outputs."""

    def forward(self, x: Tensor, mem1: Any, mem2: Any) -> Any:
        spikes, mem1 = lif(0.0 if mem1 is None else mem1, self.fc(x))
        mem2 = spikes if mem2 is None else 0.5 * mem2 + spikes
        return spikes, mem2 + x.sum(), mem1, mem2


class StateIsOutput(Cell):
    """Nothing but its state is returned, as of torch's GRUCell."""

    def forward(self, x: Tensor, hidden: Any = None) -> Tensor:
        return self.fc(x) if hidden is None else self.fc(x) + 0.5 * hidden


class PairIsState(Cell):
    """All that is returned is the state, as of torch's LSTMCell."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        h, c = (0.0, 0.0) if hx is None else hx
        c = 0.5 * c + self.fc(x)
        return (c > 1).float() - 0.5 * h, c


#: cells that are given their states -> how many of what they return are states
CELLS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "one state": (Cell, 1),
    "two states": (TwoStates, 2),
    "state and output": (StateIsOutput, 0),
    "all is state": (PairIsState, 0),
}


def example(steps: int, batch: int, *, seed: int = 0) -> Tensor:
    """Return whole numbers, (T, N, 6)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 3, (steps, batch, 6), generator=draw).float()


def as_sequence(x: Tensor) -> Tensor:
    """Return the sequence that a stream's export makes of one step; one search finds both loops."""
    return torch.stack([x.roll(-t, 0) for t in range(8)])


def looped(make: Callable[[], nn.Module], x: Tensor) -> Any:
    """Return the outputs of a fresh module, step by step, stacked by hand."""
    module = make()
    rows = [module(x_t) for x_t in x]
    structure = torch.utils._pytree.tree_flatten(rows[0])[1]
    columns = zip(*map(torch.utils._pytree.tree_leaves, rows), strict=True)
    stacked = [None if column[0] is None else torch.stack(column) for column in columns]
    return torch.utils._pytree.tree_unflatten(stacked, structure)
