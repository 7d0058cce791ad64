"""How near neurons are to their thresholds, in torch.

A spike that differs is explained where one rounding of a current decides on it, and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.axon import Delta
from synapse_onnx.neuron import base
from synapse_onnx.verification.recording import own_forward

__all__ = [
    "EncodingNeuron",
    "as_argument",
    "changes",
    "margins",
    "near_change",
    "undecided",
    "variables",
    "within_units",
]


@runtime_checkable
class EncodingNeuron(Protocol):
    """A neuron without an equation that sends the changes of a value through a delta encoder."""

    delta: Delta

    @property
    def encodes_exactly(self) -> bool:
        """Whether every runtime gives the encoder the same input to the last bit."""

    def encoder_input(self, input: Any) -> Tensor:
        """Return what the encoder is given for a current (N, C[, H, W], T)."""


def as_argument(tensors: Sequence[Tensor]) -> Any:
    """Return what a layer takes: a tensor, or the pair (real, imag) of a complex value."""
    return tuple(tensors) if len(tensors) == 2 else tensors[0]


def variables(neuron: base.Neuron, currents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the variables of a neuron's equation over time, by name, from fresh states.

    Args:
        neuron: the neuron; its own states are forgotten.
        currents: its input (N, C[, H, W], T); two tensors for a complex one.
    """
    with _fresh_states(neuron):
        values = neuron.dynamics(as_argument(currents))
    return dict(zip(neuron.equation.traces, values, strict=True))


def margins(layer: Any, currents: Sequence[Tensor]) -> NDArray[Any] | None:
    """Return how far the membrane is above what it must reach, over time, before resets.

    Returns:
        Distances in units of the threshold, of the shape of a current (N, C[, H, W], T); None of a
        layer that has no membrane.
    """
    with _fresh_states(layer):
        if isinstance(layer, base.Neuron):
            values = variables(layer, currents)
            return _to_numpy(_distance(layer, values))
        if isinstance(layer, EncodingNeuron):
            encoder, x = layer.delta, layer.encoder_input(currents[0])
        elif isinstance(layer, Delta):
            encoder, x = layer, currents[0]
        else:
            return None
        level = encoder.threshold.detach().reshape(1, -1, *(1,) * (x.dim() - 2))
        return _to_numpy(own_forward(encoder, x).abs() - level)


def undecided(
    layer: Any, currents: Sequence[Tensor], rtol: float, largest_sum: float, size: float = 0.0
) -> Any:
    """Return where one rounding error decides on a spike: what is compared lies within it.

    The layer starts from fresh states, or from those that it is made to carry.

    Args:
        layer: a layer that spikes; one that is no neuron compares what it is given.
        currents: its input; two tensors for a complex one.
        rtol: size of the error, relative to the membrane.
        largest_sum: where the currents contain sums in another order, the largest sum of
            magnitudes: errors of these are ``rtol * largest_sum``; else 0.
        size: where the input itself has errors, ``rtol * size`` is the largest; else 0.
    """
    near = np.zeros(currents[0].shape, dtype=bool)
    with _fresh_states(layer):
        if isinstance(layer, base.Neuron) and layer.regime == "float":
            near = _to_numpy(_near_threshold(layer, currents, rtol, size))
        elif isinstance(layer, EncodingNeuron) and not layer.encodes_exactly:
            near = _to_numpy(near_change(layer.delta, layer.encoder_input(currents[0]), rtol))
    distance = margins(layer, currents) if largest_sum else None
    if distance is not None:
        near |= np.abs(distance) <= rtol * largest_sum
    return near


def within_units(neuron: base.Neuron, currents: Sequence[Tensor], rtol: float, units: int) -> Any:
    """Return where so many units of a state, or rtol of the membrane, decide on a spike.

    Args:
        neuron: a neuron in fixed point.
        currents: its input (N, C[, H, W], T); two tensors for a complex one.
        rtol: size of an error, relative to the largest value of the membrane.
        units: size of another one, in units of a state.
    """
    values = variables(neuron, currents)
    membrane = values[neuron.equation.membrane]
    error = rtol * float(membrane.abs().max()) + units / neuron.s_scale
    return _to_numpy((membrane - _limit(neuron, values)).abs() <= error)


@contextlib.contextmanager
def _fresh_states(layer: Any) -> Iterator[None]:
    layer.reset()
    with torch.no_grad():
        yield
    layer.reset()


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _distance(neuron: base.Neuron, values: dict[str, Tensor]) -> Tensor:
    """Return how far the membrane is above what it must reach, or above the nearest of several."""
    if "nearest" in values:
        return values["nearest"]
    return values[neuron.equation.membrane] - _limit(neuron, values)


def _limit(neuron: base.Neuron, values: dict[str, Tensor]) -> Tensor | float:
    """Return what the membrane must reach: a number, or over time where the threshold adapts."""
    if "refractory" in values:
        return values["threshold"] + values["refractory"]
    return neuron.threshold


def _near_threshold(
    neuron: base.Neuron, currents: Sequence[Tensor], rtol: float, size: float
) -> Tensor:
    values = variables(neuron, currents)
    membrane = values[neuron.equation.membrane]
    near = _distance(neuron, values).abs() <= rtol * membrane.abs()
    if neuron.equation.phase:  # the imaginary part is compared with zero, now and one step before
        imag = values["imag"]
        crossing = imag.abs() <= rtol * imag.abs().amax(-1, keepdim=True).clamp(min=size)
        near |= crossing
        near[..., 1:] |= crossing[..., :-1]
    return near


def near_change(encoder: Delta, x: Tensor, rtol: float) -> Tensor:
    """Return where an error of rtol in an encoder's input could decide on what it sends.

    An input may be off by rtol times the largest input so far. A change then reaches the threshold
    or not, after which the encoder has other states: all later steps are undecided. Or it is
    floored to the next step of 1 / scale or not, at this step alone. The encoder has fresh states,
    and its input is (N, C[, H, W], T).
    """
    parted, floored = changes(encoder, x, rtol * torch.cummax(x.abs(), dim=-1).values)
    return parted | floored


def changes(encoder: Delta, x: Tensor, error: Tensor, moved: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return from where errors decide whether a change is sent, and where on how it is floored.

    Args:
        encoder: an encoder with fresh states, or with those that it is made to carry.
        x: its input (N, C[, H, W], T).
        error: how far it may be off, of the same shape.
        moved: how far the changes may be off besides, because others were floored otherwise.

    Returns:
        bool, of the shape of the input. After a change that is sent or not, all is undecided.
    """
    names = tuple(encoder.state_starts)
    states = dict(zip(names, encoder.load_states(x), strict=True))
    level = encoder.threshold.detach().reshape(1, -1, *(1,) * (x.dim() - 3))
    parted, floored = (torch.zeros_like(x, dtype=torch.bool) for _ in range(2))
    so_far = torch.zeros_like(parted[..., 0])
    outer, encoder.carried = encoder.carried, states  # it loads and saves these instead
    try:
        for t in range(x.shape[-1]):
            change = x[..., t] - states["pre"] + states["residual"]
            compared = states["error"] + change if encoder.cum_error else change
            steps = change * encoder.scale
            so_far |= (compared.abs() - level).abs() <= error[..., t] + moved
            parted[..., t] = so_far
            floored[..., t] = (steps - steps.round()).abs() <= encoder.scale * error[..., t]
            own_forward(encoder, x[..., t : t + 1])
    finally:
        encoder.carried = outer
    return parted, floored
