"""Generated inputs, with which layers are probed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["KINDS", "Domain", "stimulus"]


class Domain(NamedTuple):
    """What a layer's input may be.

    Attributes:
        spikes: whether it is 0 or 1 alone, wherever the network gets its inputs from.
        dtype: type of its elements in the graph.
        unit: a value that counts: the threshold of a neuron, else 1.
        resolution: units of a state in 1.0; 1 where the layer has no states in fixed point.
    """

    spikes: bool
    dtype: np.dtype[Any]
    unit: float = 1.0
    resolution: int = 1


def _signed(g: torch.Generator, shape: Sequence[int], domain: Domain) -> Tensor:
    """Return values of both signs, in three of ten places, from a quarter of the unit to eight."""
    return _spread(g, shape, domain.unit) * (_uniform(g, shape) < 0.3)


def _dense(g: torch.Generator, shape: Sequence[int], domain: Domain) -> Tensor:
    """Return positive values everywhere, in 64ths of the unit, up to two of them."""
    return torch.randint(1, 129, tuple(shape), generator=g) / 64 * domain.unit


def _large(g: torch.Generator, shape: Sequence[int], domain: Domain) -> Tensor:
    """Return values around 2**24, in units of a state, of one sign each neuron: states add up."""
    return _spread(g, shape, 2.0**24 / domain.resolution, fixed_signs=True)


def _huge(g: torch.Generator, shape: Sequence[int], domain: Domain) -> Tensor:
    """Return the same around 2**34: more than 32 bits hold."""
    return _spread(g, shape, 2.0**34 / domain.resolution, fixed_signs=True)


#: what inputs are like, in words of a report -> what generates them
KINDS: dict[str, Callable[[torch.Generator, Sequence[int], Domain], Tensor]] = {
    "signed": _signed,
    "dense": _dense,
    "large": _large,
    "huge": _huge,
}

#: how many of the inputs that are spikes are 1
_DENSITIES = {"signed": 0.2, "dense": 1.0, "large": 0.6, "huge": 0.05}


def stimulus(kind: str, shape: Sequence[int], domain: Domain, seed: int) -> NDArray[Any]:
    """Return an input of a kind, as floats (N, C[, H, W], T); of several samples the first is zero.

    What is not in the domain is brought into it: spikes are 0 and 1, integers are in the range of
    their type.
    """
    g = torch.Generator().manual_seed(seed)
    values = KINDS[kind](g, shape, domain)
    if domain.spikes or domain.dtype.kind == "b":
        values = (_uniform(g, shape) < _DENSITIES[kind]).to(torch.float32)
    elif domain.dtype.kind in "iu":
        limits = np.iinfo(domain.dtype)
        values = values.round().clamp(float(limits.min), float(limits.max))
    if shape[0] > 1:
        values[0] = 0
    array: NDArray[Any] = values.to(torch.float32).numpy()
    return array


def _spread(
    g: torch.Generator, shape: Sequence[int], unit: float, *, fixed_signs: bool = False
) -> Tensor:
    """Return values from a quarter of the unit to eight, of both signs."""
    exponents = torch.randint(-2, 4, tuple(shape), generator=g)
    steps = 1 if fixed_signs else shape[-1]
    signs = torch.randint(0, 2, (*shape[:-1], steps), generator=g) * 2 - 1
    return unit * signs * 2.0**exponents


def _uniform(g: torch.Generator, shape: Sequence[int]) -> Tensor:
    return torch.rand(tuple(shape), generator=g)
