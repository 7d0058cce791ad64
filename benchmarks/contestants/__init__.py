"""What runs the networks that are measured."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._networks import Network
from synapse_onnx._discovery import public_modules

#: runs the network once; gives its spikes (N, C, T), or None where they come in another form
Run = Callable[[], "NDArray[np.float32] | Tensor | None"]


class UnsupportedError(Exception):
    """A contestant is not installed, or has no such layer; the message says which."""


@dataclass(frozen=True)
class Contestant:
    """Something that runs a network.

    Attributes:
        name: as it stands in the table.
        computes: what of the network it computes, in a few words.
        make: (network, spikes (N, C[, H, W], T)) -> what is timed; raises UnsupportedError.
            Building, loading and bringing the input to its own layout are not timed.
        exact: whether its spikes must be those of our torch modules: of q8 networks to the bit.
    """

    name: str
    computes: str
    make: Callable[[Network, Tensor], Run]
    exact: bool = False


def contestants_found() -> dict[str, Contestant]:
    """Return every contestant of the files of this folder by name."""
    modules = (importlib.import_module(f"{__name__}.{name}") for name in public_modules(__path__))
    return {found.name: found for module in modules for found in module.CONTESTANTS}
