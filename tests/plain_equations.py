"""Plain statements of the equations of neurons, encoders and decoders.

They loop over elements in Python numbers. :class:`Integers` is lava-dl's arithmetic on the CPU,
with ``np.float32`` where lava-dl hands a state from one function to the next;
:class:`Reals` is float64, and keeps how near any decision came to hang on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import synapse_onnx as so

SHAPES = [(2, 3, 25), (1, 2, 2, 3, 12)]
IDS = ["neurons", "images"]


class Integers:
    """Python integers in units of 1 / scale; decays are integers in 4096ths."""

    one = 4096

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def take(self, x: Any) -> int:
        return int(np.float32(self.scale) * np.float32(x))  # int() truncates towards zero

    def give(self, state: int) -> Any:
        return np.float32(state) / np.float32(self.scale)

    def times(self, state: int, factor: int) -> int:
        """A product, shifted right by 12 bits towards zero."""
        size = abs(state * factor) >> 12
        return size if state * factor >= 0 else -size

    def level(self, value: float) -> int:
        return int(value * self.scale)

    def reaches(self, value: Any, limit: Any) -> bool:
        return bool(value >= limit)


class Reals:
    """float64, and the least distance of a compared value from its limit."""

    one = 1.0

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.margin = math.inf

    def take(self, x: Any) -> float:
        return float(x)

    give = level = take

    def times(self, state: float, factor: float) -> float:
        return state * factor

    def reaches(self, value: Any, limit: Any) -> bool:
        self.margin = min(self.margin, abs(value - limit))
        return bool(value >= limit)


class Plain:
    """One neuron: parameters ``p``, threshold and step from the module, states in attributes."""

    def __init__(self, a: Any, p: Mapping[str, Any], module: Any) -> None:
        self.a, self.p = a, p
        self.threshold = module.threshold
        self.u = self.v = self.real = self.imag = self.refractory = 0
        self.base = self.limit = a.level(module.threshold)
        self.jump = a.level(getattr(module, "threshold_step", 0))
        self.below = False  # whether the imaginary part was negative

    def keep(self, state: Any, name: str) -> Any:
        return self.a.times(state, self.a.one - self.p[name])

    def leak(self, x: Any) -> None:
        """Current and voltage of cuba and alif; the current passes through float32 in between."""
        self.u = self.keep(self.u, "current_decay") + self.a.take(x)
        self.v = self.keep(self.v, "voltage_decay") + self.a.take(self.a.give(self.u))

    def turn(self, x: Any, y: Any) -> None:
        """z[t] = (cos + i sin) z[t-1] + x + i y."""
        sin, cos, times = self.p["sin_decay"], self.p["cos_decay"], self.a.times
        real, imag = self.real, self.imag
        self.real = times(real, cos) - times(imag, sin) + self.a.take(x)
        self.imag = times(real, sin) + times(imag, cos) + self.a.take(y)

    def crosses(self) -> bool:
        """Whether the imaginary part has come from below zero to zero or above."""
        was, self.below = self.below, not self.a.reaches(self.imag, 0)
        return was and not self.below

    def recover(self) -> None:
        """Let the added threshold and the refractory response decay."""
        self.limit = self.keep(self.limit - self.base, "threshold_decay") + self.base
        self.refractory = self.keep(self.refractory, "refractory_decay")

    def adapt(self, fired: bool) -> None:
        if fired:
            self.refractory += 2 * self.limit
            self.limit += self.jump

    def above(self, membrane: Any) -> bool:
        """The spike function, on what the dynamics gave as float32."""
        give = self.a.give
        return self.a.reaches(give(membrane), give(self.limit) + give(self.refractory))


class Cuba(Plain):
    def step(self, x: Any) -> tuple[bool, Any]:
        eps = 0.01 / self.a.scale if self.a.one == 4096 else 0.0
        level = self.threshold + eps
        self.leak(x)
        out = self.a.give(self.v)
        fired = self.a.reaches(out, np.float32(level))
        if self.a.one != 4096:
            reset = fired
        else:
            reset = np.float32(self.v) >= np.float32(level * self.a.scale)
        self.v = 0 if reset else self.v
        return fired, out


class Alif(Plain):
    def step(self, x: Any) -> tuple[bool, Any]:
        self.leak(x)
        self.recover()
        fired, out = self.above(self.v), self.a.give(self.v)
        self.adapt(self.a.take(out) >= self.limit + self.refractory)
        return fired, out


class Rf(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        out = self.a.give(self.real)
        crossed = self.crosses()
        return crossed and self.a.reaches(out, self.threshold), out


class RfIz(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        out = self.a.give(self.imag)
        fired = self.a.reaches(out, self.threshold)
        if fired:  # to just below the threshold
            self.real, self.imag = 0, self.base - (1 if self.a.one == 4096 else 1 / self.a.scale)
        else:  # lava-dl's reset computes the imaginary part in float32
            self.imag = int(np.float32(self.imag)) if self.a.one == 4096 else self.imag
        return fired, out


class Adrf(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        self.recover()
        out = self.a.give(self.real)
        crossed = self.crosses()
        fired = crossed and self.above(self.real)
        self.adapt(crossed and self.a.take(out) >= self.limit + self.refractory)
        return fired, out


class AdrfIz(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        self.recover()
        fired, out = self.above(self.imag), self.a.give(self.imag)
        self.adapt(self.imag >= self.limit + self.refractory)
        return fired, out


PLAIN: dict[str, type[Any]] = {
    "alif": Alif, "rf": Rf, "rf_iz": RfIz, "adrf": Adrf, "adrf_iz": AdrfIz, "cuba": Cuba,
}  # fmt: skip
ADAPTIVE = {"threshold": 0.4, "threshold_step": 0.2, "refractory_decay": 0.3}
PHASE = {"period": 6.5, "decay": 0.1}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "cuba": {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05},
    "alif": {**ADAPTIVE, "current_decay": 0.25, "voltage_decay": 0.1, "threshold_decay": 0.1},
    "rf": {"threshold": 0.3, **PHASE},
    "rf_iz": {"threshold": 0.9, **PHASE},
    "adrf": {**ADAPTIVE, **PHASE, "threshold_decay": 0.1},
    "adrf_iz": {**ADAPTIVE, **PHASE, "threshold_decay": 0.1},
}


def values(*shape: int, seed: int = 0, unit: float = 0.0301) -> torch.Tensor:
    """Return random multiples of a unit that is not on the grid of the states, mostly positive."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 40, shape, generator=generator).float() * unit


def drawn(neuron: Any, channel: int) -> dict[str, Any]:
    """The parameters of a channel, read back from the module: rounded in fixed point."""
    found = {}
    for name in neuron.decays:
        numbers = getattr(neuron, name).detach().double().numpy()
        number = numbers[channel if numbers.size > 1 else 0]
        found[name] = int(np.round(number)) if neuron.regime == "slayer" else float(number)
    return found


def assert_some_spike(spikes: np.ndarray) -> None:
    """The case shows something: some spike, and not all the time."""
    assert 0.01 < float((spikes != 0).mean()) < 0.9


class Pair(nn.Module):
    """A resonator as a network of two inputs."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
        return self.neuron((real, imag))


def through_onnx(module: nn.Module, *x: torch.Tensor) -> np.ndarray:
    module = (Pair(module) if len(x) == 2 else module).eval()
    result: np.ndarray = so.Session(so.export(module, x)).run(*(each.numpy() for each in x))
    return result


def floored(value: np.float32, scale: int) -> np.float32:
    step = np.float32(1 / scale)
    return np.float32(np.floor(value / step) * step)


def encoded(x: np.ndarray, threshold: np.ndarray, scale: int, cumulative: bool) -> np.ndarray:
    """What a delta encoder sends, in float32 and in lava-dl's order."""
    sent = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        pre = residual = error = np.float32(0)
        level = threshold[index[1] if threshold.size > 1 else 0]
        for t in range(x.shape[-1]):
            now = x[(*index, t)]
            change = (now - pre) + residual
            error = error + change
            reached = abs(error if cumulative else change) >= level
            out = change if reached else np.float32(0)
            error = np.float32(0) if out != 0 else error
            residual, pre = change - out, now
            sent[(*index, t)] = floored(out, scale)
    return sent


def summed(x: np.ndarray) -> np.ndarray:
    """The running sum, in float64, rounded to float32."""
    sums = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        total = 0.0
        for t in range(x.shape[-1]):
            total += float(x[(*index, t)])
            sums[(*index, t)] = np.float32(total)
    return sums
