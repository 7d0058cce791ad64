"""One entry of the collection: a network, its inputs, and what is expected of its export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so

__all__ = ["Network", "frames", "numbers", "of_steps", "spikes"]


@dataclass(frozen=True)
class Network:
    """A network of somebody else, as it is.

    Attributes:
        name: what the table calls it; unique within its framework.
        make: returns a fresh module; called with torch seeded.
        example: returns the arguments of its forward for T steps of N samples, on which every
            layer of it spikes.
        axes: where forward has time and batch: "TNC", "NTC" or "NCT".
        says_axes: whether the user has to say ``axes=``.
        setup: the lines that a user writes besides those that export and verify.
        steps: T, where the author has fixed it; None where it is open.
        refused: part of the sentence with which it is refused; "" where it has a file.
        gap: whether it is refused although a file could be right: what is to be done.
        taken_off: the output with the spikes of a step where several of them, each a threshold of
            1, are taken off the voltages that are another output: these were rounded before that.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[[int, int], tuple[Any, ...]]
    axes: str = "TNC"
    says_axes: bool = False
    setup: tuple[str, ...] = ()
    steps: int | None = None
    refused: str = ""
    gap: bool = False
    taken_off: int | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that a user writes, after ``import synapse_onnx as so``."""
        said = f", axes={self.axes!r}" if self.says_axes else ""
        return (
            *self.setup,
            f'model = so.export(net, x, "net.onnx"{said})',
            "print(so.verify(net, model, x))",
        )

    def fresh(self) -> nn.Module:
        """Return the network in evaluation mode: the same weights every time."""
        torch.manual_seed(0)
        np.random.seed(0)
        return self.make().eval()

    def inputs(self, steps: int, batch: int) -> tuple[Any, ...]:
        """Return inputs of this size: the same ones every time."""
        torch.manual_seed(1000 * steps + batch)
        return self.example(steps, batch)


def of_steps(
    name: str, make: Callable[[], nn.Module], example: Callable[[int, int], tuple[Any, ...]]
) -> list[Network]:
    """Return the entries of a module that takes one step and keeps its states.

    As it is it is refused, with the way to a file; over time it has one.
    """
    return [
        Network(
            f"{name}, one step",
            make,
            lambda t, n: tuple(x[0] for x in example(t, n)),
            refused="so.over_time(module)",
        ),
        Network(
            f"{name}, over time",
            lambda: so.over_time(make()),
            example,
            setup=("net = so.over_time(net)",),
        ),
    ]


def numbers(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape) * scale + shift


def frames(*shape: int, scale: float = 1.0) -> Tensor:
    """Return numbers from 0 to ``scale``, as pixels are."""
    return torch.rand(*shape) * scale


def spikes(*shape: int, rate: float = 0.4) -> Tensor:
    """Return ones at a rate, else zeros."""
    return (torch.rand(*shape) < rate).float()
