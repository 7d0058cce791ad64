"""Inputs and outputs of a network, of many forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import synapse_onnx as so

from . import parts


class Result(NamedTuple):
    """An output of the user's own type."""

    spikes: Tensor
    last: Tensor


class Border(nn.Module):
    """Base of the networks: stages between an entry and a head, with a parameter and a buffer."""

    def __init__(self, stages: Sequence[nn.Module], head: Callable[..., Any]) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(stages), head
        if head is _bins:
            self.bins = so.block.cuba.TimeDecimation(2)
        self.own = nn.Parameter(torch.arange(3.0))
        self.register_buffer("table", torch.ones(1, 2, 1))

    def run(self, x: Tensor, given: Tensor) -> Any:
        values = []
        for stage in self.stages:
            x = stage(x)
            values.append(x)
        return self.head(self, given, values)


class Plain(Border):
    def forward(self, x: Tensor) -> Any:
        return self.run(x, x)


class WithBias(Border):
    """A second input (N, C) without time."""

    def forward(self, x: Tensor, bias: Tensor) -> Any:
        return self.run(x + bias.unsqueeze(-1), x)


class BiasFirst(Border):
    def forward(self, bias: Tensor, x: Tensor) -> Any:
        return self.run(x + bias.unsqueeze(-1), x)


class WithMap(Border):
    """An image in time, and one without."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.run((x * mask.unsqueeze(-1)).flatten(1, 3), x)


class WithGain(Border):
    """A second input (N,): one number a sample."""

    def forward(self, x: Tensor, gain: Tensor) -> Any:
        return self.run(x * gain[:, None, None], x)


class WithNumber(Border):
    """A second input without any axis."""

    def forward(self, x: Tensor, number: Tensor) -> Any:
        return self.run(x * number, x)


class Flat(Border):
    """One step, given without time (N, C)."""

    def forward(self, x: Tensor) -> Any:
        return self.run(x.unsqueeze(-1), x)


class Frames(Border):
    """An image without time (N, C, H, W) whose columns are the steps."""

    def forward(self, x: Tensor) -> Any:
        return self.run(x.flatten(1, 2), x)


class Parts(Border):
    """A complex input, as a pair."""

    def forward(self, z: tuple[Tensor, Tensor]) -> Any:
        return self.run(z[0] - 0.5 * z[1], z[1])


class Rest(Border):
    """Any number of inputs that are added."""

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return self.run(x + sum(others), x)


#: name -> network, and the shapes of its inputs for (N, C, T); C is even
INPUTS: dict[str, tuple[type[Border], Callable[[int, int, int], list[tuple[int, ...]]]]] = {
    "one input": (Plain, lambda n, c, t: [(n, c, t)]),
    "an input (N, C)": (WithBias, lambda n, c, t: [(n, c, t), (n, c)]),
    "(N, C) first": (BiasFirst, lambda n, c, t: [(n, c), (n, c, t)]),
    "an input (N, C, H, W)": (WithMap, lambda n, c, t: [(n, c // 2, 2, 1, t), (n, c // 2, 2, 1)]),
    "an input (N,)": (WithGain, lambda n, c, t: [(n, c, t), (n,)]),
    "an input ()": (WithNumber, lambda n, c, t: [(n, c, t), ()]),
    "only (N, C)": (Flat, lambda n, c, t: [(n, c)]),
    "only (N, C, H, W)": (Frames, lambda n, c, t: [(n, c // 2, 2, t)]),
    "a pair": (Parts, lambda n, c, t: [(n, c, t), (n, c, t)]),
    "*others": (Rest, lambda n, c, t: [(n, c, t), (n, c, t), (n, c, t)]),
}


def _deviation(net: Border, x: Tensor, ys: list[Tensor]) -> Any:
    return ys[-1], ys[-1].std(-1)


def _many(net: Border, x: Tensor, ys: list[Tensor]) -> Any:
    y = ys[-1]
    return y, y.sum(-1), y.sum((1, 2)), y.sum(), y.reshape(y.shape[0], 2, -1, y.shape[-1])


def _bins(net: Border, x: Tensor, ys: list[Tensor]) -> Any:
    return ys[-1], net.bins(ys[-1])


HEADS: dict[str, Callable[[Border, Tensor, list[Tensor]], Any]] = {
    "one output": lambda net, x, ys: ys[-1],
    "dict": lambda net, x, ys: {"last": ys[-1], "first": ys[0]},
    "NamedTuple": lambda net, x, ys: Result(ys[0], ys[-1]),
    "nested": lambda net, x, ys: {"a": [ys[0], (ys[-1] * 2, None)]},
    "twice the same": lambda net, x, ys: (ys[-1], ys[-1]),
    "input": lambda net, x, ys: (ys[-1], x),
    "parameter": lambda net, x, ys: (ys[-1], net.own),
    "buffer": lambda net, x, ys: (ys[-1], net.table),
    "scalar": lambda net, x, ys: (ys[-1], ys[-1].mean()),
    "scalar alone": lambda net, x, ys: ys[-1].sum(),
    "NaN at one step": _deviation,
    "ragged": _many,
    "integers": lambda net, x, ys: (ys[-1].sum(-1).argmax(1), ys[-1]),
    "bool": lambda net, x, ys: (ys[-1] > 0.5, ys[-1]),
    "half": lambda net, x, ys: ys[-1].half(),
    "double": lambda net, x, ys: ys[-1].double(),
    "views": lambda net, x, ys: (ys[-1][:, :1], ys[-1].flip(1), ys[-1]),
    "constant": lambda net, x, ys: (ys[-1], torch.tensor([0.5, 2.0])),
    "bins of time": _bins,
    "list of one": lambda net, x, ys: [ys[-1]],
}


#: heads with an output that has no time, so that a stream of them is refused
UNTIMED = {
    "parameter", "buffer", "scalar", "scalar alone", "NaN at one step", "ragged", "integers",
    "constant",
}  # fmt: skip


def inputs(rng: Random, shapes: Sequence[tuple[int, ...]]) -> tuple[str, list[Tensor]]:
    """Draw inputs of these shapes, and how they lie in memory."""
    tensors = [parts.spikes(rng, *shape) for shape in shapes]
    form = rng.choice(["contiguous", "contiguous", "turned", "gradients", "expanded"])
    if form == "turned":
        tensors = [x.movedim(0, -1).contiguous().movedim(-1, 0) if x.dim() else x for x in tensors]
    elif form == "gradients":
        tensors = [x.requires_grad_() for x in tensors]
    elif form == "expanded" and tensors[0].dim():
        tensors[0] = tensors[0][:1].expand(tensors[0].shape)
    return form, tensors
