"""Networks that loop over time in torch code, alone or between layers of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

import synapse_onnx as so

from . import parts

#: an input of one step and the states before it -> what a step returns, and the states after it
Step = Callable[["Cell", Tensor, Any], tuple[Tensor, Any]]


class Spike(torch.autograd.Function):
    """A step, with the gradient of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, voltage: Tensor) -> Tensor:
        ctx.save_for_backward(voltage)
        return (voltage > 0).to(voltage.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (voltage,) = ctx.saved_tensors
        return grad / (1 + voltage.abs()) ** 2


def _subtracted(cell: Cell, i: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = cell.beta * v + i
    k = Spike.apply(v - 1.0)
    return k, v - k


def _zeroed(cell: Cell, i: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = v + (i - v) / 2.0
    k = (v >= 0.5).float()
    return k, v * (1 - k)


def _late(cell: Cell, i: Tensor, v: Any) -> tuple[Tensor, Any]:
    """The reset comes with the next step, as in snnTorch."""
    v = cell.beta * v + i - (v > 1.0).float()
    return (v > 1.0).float(), v


def _voltage(cell: Cell, i: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = torch.where(v > 1.0, torch.zeros_like(v), 0.75 * v) + i
    return v, v


def _graded(cell: Cell, i: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = cell.decays * v + i
    k = torch.floor(torch.relu(v)).clamp(max=3)
    return k, v - k


def _two_states(cell: Cell, i: Tensor, state: Any) -> tuple[Tensor, Any]:
    u, v = state if isinstance(state, tuple) else (state, state)
    u = 0.5 * u + i
    v = 0.875 * v + u
    k = (v > 1.25).float()
    return k, (u, v - 1.25 * k)


def _adaptive(cell: Cell, i: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, a = state if isinstance(state, tuple) else (state, state)
    v = 0.5 * v + i
    k = Spike.apply(v - (1.0 + 0.25 * a))
    return k, (v * (1.0 - k), 0.75 * a + k)


def _recurrent(cell: Cell, i: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, k = state if isinstance(state, tuple) else (state, state)
    v = 0.5 * v + i + (cell.back(k) if isinstance(k, Tensor) else 0.0)
    k = (v > 1.0).float()
    return k, (v - k, k)


def _gated(cell: Cell, i: Tensor, h: Any) -> tuple[Tensor, Any]:
    h = cell.gru(i, h if isinstance(h, Tensor) else torch.zeros_like(i))
    return h, h


STEPS: dict[str, Step] = {
    "subtracted": _subtracted, "zeroed": _zeroed, "late reset": _late, "voltage": _voltage,
    "graded": _graded, "two states": _two_states, "adaptive": _adaptive, "recurrent": _recurrent,
    "GRU": _gated,
}  # fmt: skip

STARTS = ("zeros", "number", "zeros_like", "None", "learned")


class Cell(nn.Module):
    """A linear map and a neuron, for one step: (N, C) -> (N, C')."""

    def __init__(self, rng: Random, count: int, out: int) -> None:
        super().__init__()
        self.kind, self.start = rng.choice(list(STEPS)), rng.choice(STARTS)
        self.fc, self.back = nn.Linear(count, out), nn.Linear(out, out, bias=False)
        self.norm = rng.choice([nn.Identity(), nn.Identity(), nn.BatchNorm1d(out)])
        self.gru = nn.GRUCell(out, out) if self.kind == "GRU" else None
        self.beta, self.out = rng.choice([0.5, 0.9, 0.875]), out
        self.register_buffer("decays", torch.linspace(0.25, 0.9, out))
        self.first = nn.Parameter(torch.linspace(-0.5, 0.5, out))
        with torch.no_grad():
            self.fc.weight.mul_(3)
            if rng.random() < 0.5:  # sums of eighths are exact in any order
                for parameter in (self.fc.weight, self.fc.bias, self.back.weight):
                    parameter.copy_((parameter * 8).round() / 8)

    def begin(self, x: Tensor) -> Any:
        """The states before the first step, for an input (N, C)."""
        if self.start == "number":
            return torch.tensor(0.0) if self.kind in ("voltage", "late reset") else 0.0
        if self.start == "learned" and self.kind != "GRU":
            return self.first
        if self.start == "zeros_like":
            return torch.zeros_like(self.fc(x))
        return None if self.start == "None" else torch.zeros(x.shape[0], self.out)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state is None:
            state = torch.zeros(x.shape[0], self.out, device=x.device)
        return STEPS[self.kind](self, self.norm(self.fc(x)), state)


def _moments(form: str, x: Tensor, time: int) -> Iterator[Tensor]:
    """The steps of a sequence, as code picks them."""
    if form == "unbind":
        yield from x.unbind(time)
    elif form == "split":
        yield from (part.squeeze(time) for part in x.split(1, time))
    elif form == "iterated":
        yield from x.movedim(time, 0)
    elif form == "while":
        t = 0
        while t < x.shape[time]:
            yield x.select(time, t)
            t += 1
    else:
        yield from (x.select(time, t) for t in range(x.shape[time]))


MOMENTS = ("range", "unbind", "split", "iterated", "while")

#: outputs, from the sequences of what each cell returns; each with whether it has time
HEADS: dict[str, tuple[bool, Callable[[list[list[Tensor]], int], Any]]] = {
    "stacked": (True, lambda ys, time: torch.stack(ys[-1], time)),
    "joined": (True, lambda ys, time: torch.cat([y.unsqueeze(time) for y in ys[-1]], time)),
    "two sequences": (True, lambda ys, time: tuple(torch.stack(y, time) for y in ys[-2:])),
    "dict": (True, lambda ys, time: {f"y{i}": torch.stack(y, time) for i, y in enumerate(ys)}),
    "list of steps": (True, lambda ys, time: ys[-1]),
    "two lists": (True, lambda ys, time: (ys[0], ys[-1])),
    "last value": (False, lambda ys, time: ys[-1][-1]),
    "last and all": (False, lambda ys, time: (torch.stack(ys[0], time), ys[-1][-1])),
    "mean": (False, lambda ys, time: torch.stack(ys[-1]).mean(0)),
    "sum": (False, lambda ys, time: sum(ys[-1])),
    "largest": (False, lambda ys, time: torch.stack(ys[-1]).max(0).values),
    "class": (False, lambda ys, time: torch.stack(ys[-1]).sum(0).argmax(1)),
}  # fmt: skip


class Loop(nn.Module):
    """Cells in one loop over time, and a head."""

    def __init__(self, rng: Random, widths: list[int], time: int, head: str) -> None:
        super().__init__()
        self.cells = nn.ModuleList(Cell(rng, a, b) for a, b in pairwise(widths))
        self.form, self.together = rng.choice(MOMENTS), rng.random() < 0.7
        self.time, self.head = time, head

    def forward(self, x: Tensor) -> Any:
        moments = list(_moments(self.form, x, self.time))
        sequences: list[list[Tensor]] = [[] for _ in self.cells]
        if self.together:  # all layers in one loop
            states: list[Any] = []
            for moment in moments:
                y = moment
                for i, cell in enumerate(self.cells):
                    if len(states) == i:
                        states.append(cell.begin(y))
                    y, states[i] = cell(y, states[i])
                    sequences[i].append(y)
        else:  # a loop for every layer
            for cell, sequence in zip(self.cells, sequences, strict=True):
                state = cell.begin(moments[0])
                for moment in moments:
                    y, state = cell(moment, state)
                    sequence.append(y)
                moments = sequence
        return HEADS[self.head][1](sequences, self.time)


class Between(nn.Module):
    """Layers of ours on whole sequences (N, C, T), and a loop before, after or between them."""

    def __init__(self, first: nn.Module | None, loop: Loop, last: nn.Module | None) -> None:
        super().__init__()
        self.first, self.loop, self.last = first, loop, last

    def forward(self, x: Tensor) -> Any:
        x = x if self.first is None else self.first(x)
        y = self.loop(x)
        return y if self.last is None else self.last(y)


class Within(nn.Module):
    """A loop over single steps of a synapse of ours, (N, C, T) -> (N, C', T)."""

    def __init__(self, rng: Random, count: int, out: int) -> None:
        super().__init__()
        self.synapse = so.synapse.Dense(count, out, weight_scale=3, pre_hook_fx=parts.HOOKS["q8"])
        self.form = rng.choice(["slices", "one axis"])

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0.0
        spikes = []
        for t in range(x.shape[-1]):
            step = x[..., t : t + 1] if self.form == "slices" else x[..., t].unsqueeze(-1)
            v = 0.5 * v + self.synapse(step)
            k = (v > 1.0).float()
            v = v - k
            spikes.append(k)
        return torch.cat(spikes, -1)


AXES = {"TNC": 0, "NTC": 1, "NCT": 2}


def network(rng: Random, count: int, streaming: bool) -> tuple[list[str], str, nn.Module]:
    """Draw a network: names of what it is, the axes of its forward, and the module."""
    timed = rng.random() < (0.9 if streaming else 0.5)
    head = rng.choice([name for name, (has_time, _) in HEADS.items() if has_time == timed])
    widths = [count, *(rng.choice([2, 3, 6, 8]) for _ in range(rng.choice([1, 1, 2, 3])))]
    mixed = rng.choice(["alone"] * 5 + ["before", "after", "around"] * 2 + ["within"])
    if mixed == "within":
        return ["loop within ours"], "NCT", Within(rng, count, widths[-1])
    axes = rng.choice(list(AXES)) if mixed == "alone" else "NCT"
    if mixed in ("after", "around"):
        head = rng.choice(["stacked", "joined"])
    loop = Loop(rng, widths, AXES[axes], head)
    names = ["loop", f"loop of {axes}", f"loop: {head}", *(f"cell: {c.kind}" for c in loop.cells)]
    names += [f"start: {c.start}" for c in loop.cells]
    if mixed == "alone":
        return names, axes, loop
    first = parts.stage(rng, count, count) if mixed in ("before", "around") else None
    last = parts.stage(rng, widths[-1], 4) if mixed in ("after", "around") else None
    return [*names, f"ours {mixed}"], axes, Between(first, loop, last)
