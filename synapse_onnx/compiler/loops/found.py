"""What a recognised loop is: the neuron, what it reads, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from synapse_onnx.compiler.loops.form import Family, Reference
from synapse_onnx.compiler.loops.pixels import shape_of_neurons
from synapse_onnx.neuron import base

__all__ = ["Found", "parameter"]


@dataclass(frozen=True)
class Found:
    """A neuron in the place of a loop.

    Attributes:
        neuron: the neuron, frozen.
        slot: what it reads.
        outputs: the families that its output is.
    """

    neuron: base.Neuron
    slot: Reference
    outputs: Sequence[Family]


def parameter(array: Any, shape: tuple[int, ...]) -> Any:
    """Return a coefficient of values of a shape as a parameter of neurons.

    It is a number, (C,) or (C, H, W), where values of another shape are images, as
    :mod:`~synapse_onnx.compiler.loops.pixels` says.
    """
    array = np.asarray(array, np.float64)
    if array.size == 1 or np.ptp(array) == 0:
        return float(array.flat[0])
    if len(shape) > 1 and array.shape == (shape[0], *[1] * (len(shape) - 1)):
        return torch.from_numpy(array).float().reshape(-1)
    values = np.broadcast_to(array, shape).reshape(shape_of_neurons(shape))
    return torch.from_numpy(values.copy()).float()
