"""Sample calls of the ops of an equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._neuron import drive
from synapse_onnx.ops._registry import Sample
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.ops.equation._interface import Interface

__all__ = ["samples"]


def samples(op: Interface) -> Sequence[Sample]:
    """Sample calls: shared and channel parameters, images, graded spikes."""
    unit, scale = (DECAY_ONE, 1 << 12) if op.fixed else (1, 1)
    e, kind = op.e, torch.int64 if op.fixed else torch.float32
    constants = [e.samples[name] * scale for name in e.constants]
    numbers = [int(value) for value in constants] if op.fixed else constants

    def call(
        index: int, shape: tuple[int, ...], spread: bool, graded: bool, size: float = 0.5
    ) -> tuple[Any, ...]:
        channels = shape[1]
        currents = [drive(10 * index + i, *shape) for i in range(len(e.currents))]
        offsets = torch.linspace(0.8, 1.2, channels) if spread else torch.ones(1)
        parameters = [
            torch.round(unit * p.typical * offsets)
            if op.fixed and not (p.level or p.real)
            else p.typical * _of_neurons(offsets, shape, one_each=p.level or p.real)
            for p in op.table
        ]
        states = [
            (drive(100 * index + i, *shape[:-1]) * scale * size).to(kind)
            + (int(e.samples[s.start] * scale) if s.start else 0)
            for i, s in enumerate(e.states)
        ]
        fed: list[Any] = []
        if op.kind == "recurrent":
            square = (channels, channels, 1, 1, 1)
            draws = [torch.Generator().manual_seed(i) for i in range(len(e.currents))]
            fed += [torch.randint(-9, 9, square, generator=g).to(torch.int8) for g in draws]
            fed += [torch.full((1, 1, 1, 1, 1), 1 / 32)] * len(e.currents)
            fed.append((drive(7, *shape[:-1]) > 0.3).to(torch.float32))
        tail = ([1 << 12] if op.fixed else []) + numbers
        if op.kind != "dynamics":
            tail += [100.0, 0.1, graded]
        return (*currents, *fed, *parameters, *states, *tail)

    calls = {
        "shared": call(0, (2, 3, 20), False, False),
        "channels": call(1, (2, 3, 20), True, False),
    }
    if op.kind != "recurrent":
        calls["images"] = call(2, (1, 2, 3, 4, 9), True, False)
    if op.kind != "dynamics":
        calls["graded"] = call(3, (2, 3, 20), False, True)
    if op.regime == "loihi":  # states at the end of 24 bits, currents that lead beyond it
        full = list(call(4, (2, 3, 20), False, False, size=STATE_LIMIT / scale))
        full[: len(e.currents)] = [400 * x for x in full[: len(e.currents)]]
        calls["full"] = tuple(full)
    # a multiply-add of floats rounds once where it is fused, else twice
    rtol = 0.0 if op.fixed else 2e-6
    return [Sample(name, args, rtol) for name, args in calls.items()]


def _of_neurons(offsets: Tensor, shape: tuple[int, ...], *, one_each: bool) -> Tensor:
    """Offsets of channels, for images with one a neuron where parameters may have it."""
    if not one_each or len(shape) < 5:
        return offsets
    size = shape[1:-1]
    spread = torch.linspace(0.8, 1.2, math.prod(size)).reshape(size)
    return offsets.reshape(-1, 1, 1) * spread
