"""Outputs of a network, and how far those of a file are from them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx.compiler.roundings import decided
from synapse_onnx.model.layout import axes_of, time_first, time_last

from .network import Network

__all__ = ["Distance", "copied", "outputs_of", "tensors_of", "undecided"]

#: largest difference of values that are no spikes, relative to the largest value of their output
RTOL = 2e-5


@dataclass
class Distance:
    """How far outputs differ.

    Attributes:
        flips: outputs of zeros and ones that differ.
        error: largest relative difference of other outputs.
    """

    flips: int = 0
    error: float = 0.0

    def add(self, one: NDArray[Any], other: NDArray[Any], added: float = 0.0) -> str:
        """Take note of how far values differ; return what forbids to compare them.

        Args:
            one: an output of the network.
            other: that of the file.
            added: what was taken off values that are rounded to their size before that.
        """
        if one.shape != other.shape:
            return f"shape {other.shape} instead of {one.shape}"
        if one.dtype != other.dtype:
            return f"{other.dtype} instead of {one.dtype}"
        if not one.size:
            return ""
        a, b = one.astype(np.float64), other.astype(np.float64)
        if not np.isfinite(a).all():
            return "the network itself returns values that are not finite"
        if np.isin(a, (0, 1)).all():
            self.flips += int((a != b).sum())
        else:
            difference = np.abs(a - b).max() / (np.abs(a).max() + added)
            self.error = max(self.error, float(np.nan_to_num(difference, nan=np.inf)))
        return ""

    def add_all(
        self, expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]], added: float = 0.0
    ) -> str:
        """Take note of all outputs; return what forbids to compare one of them."""
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            problem = self.add(one, other, added)
            if problem:
                return f"output {number}: {problem}"
        return ""

    @property
    def is_wrong(self) -> bool:
        """Whether the outputs are others than those of the network."""
        return self.flips > 0 or self.error > RTOL

    def __str__(self) -> str:
        """Say both."""
        return f"{self.flips} flips, largest relative error {self.error:.1e}"


def copied(network: Network, net: nn.Module) -> nn.Module:
    """Return a network with the states of a fresh one; sinabs copies no recurrent layer."""
    try:
        return copy.deepcopy(net)
    except Exception:
        return network.fresh()


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors among nested values."""
    return [x for x in torch.utils._pytree.tree_leaves(values) if isinstance(x, Tensor)]


def outputs_of(net: nn.Module, inputs: Sequence[Any], axes: str) -> list[NDArray[Any]]:
    """Return the outputs of a call; a list with one tensor for every step is stacked."""
    steps = next((x.shape[axes_of(axes, x.dim())[1]] for x in inputs if x.dim() in (3, 5)), None)
    outputs = _stacked(net(*(x.clone() for x in inputs)), axes, steps)
    return [x.detach().numpy() for x in tensors_of(outputs)]


def undecided(
    network: Network,
    net: nn.Module,
    inputs: Sequence[Any],
    expected: Sequence[NDArray[Any]],
    found: Sequence[NDArray[Any]],
) -> tuple[list[NDArray[np.bool_]], int]:
    """Return where a rounding decides on outputs that differ, and in how many samples.

    The network itself runs again, with its floats rounded otherwise: in a deep network of floats
    some voltage is within a rounding of its threshold, and all that follows is another trajectory.
    """

    def batch_first(y: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(time_last(np.asarray(y), network.axes)))

    def call(values: Sequence[Tensor]) -> list[Tensor]:
        own = [torch.from_numpy(time_first(x.numpy(), network.axes).copy()) for x in values]
        return [batch_first(y) for y in outputs_of(copied(network, net), own, network.axes)]

    one, other = list(map(batch_first, expected)), list(map(batch_first, found))
    allowed = [RTOL * float(y.double().abs().max()) for y in one]
    clear = decided(call, list(map(batch_first, tensors_of(inputs))), one, other, allowed)
    masks = [time_first(~clear.covers(y).numpy(), network.axes) for y in one]
    return masks, int((clear.until < clear.steps).sum())


def _stacked(value: Any, axes: str, steps: int | None) -> Any:
    if not isinstance(value, list | tuple):
        return value
    shapes = {x.shape if isinstance(x, Tensor) else None for x in value}
    if type(value) is list and len(value) == steps and len(shapes) == 1 and None not in shapes:
        _, axis = axes_of(axes, value[0].dim() + 1)
        return torch.stack(value, dim=-1 if axis is None else axis)
    return [_stacked(each, axes, steps) for each in value]
