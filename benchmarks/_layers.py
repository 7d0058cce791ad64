"""A network as ordinary torch modules with a framework's neurons between them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks._contest import UnsupportedError
from benchmarks._networks import Network


def imported(name: str) -> Any:
    """Import a framework's module.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a framework has to say to its developers
            return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedError(f"{name} cannot be imported: {error}") from error


def by_layer(network: Network, neuron: Callable[[], nn.Module]) -> list[nn.Module]:
    """Return the modules of one time step: linear, convolution, pool, each with its neuron.

    Raises:
        UnsupportedError: the network has layers that frameworks build in ways of their own.
    """
    modules: list[nn.Module] = []
    for layer in network.layers:
        if layer.kind == "flatten":
            modules.append(nn.Flatten())
            continue
        made: nn.Module
        if layer.kind == "pool":
            made = nn.AvgPool2d(2, divisor_override=2)
        elif layer.kind == "dense":
            made = nn.Linear(*reversed(layer.matrix.shape), bias=False)
        elif layer.kind == "conv":
            outputs, inputs, *size = layer.matrix.shape
            made = nn.Conv2d(
                inputs, outputs, (size[0], size[1]), layer.stride, layer.padding, bias=False
            )
        else:
            raise UnsupportedError(f"a {layer.kind} layer is not compared with this framework")
        if layer.weight is not None:
            made.weight.data.copy_(layer.weight)
        modules += [made, neuron()]
    return modules
