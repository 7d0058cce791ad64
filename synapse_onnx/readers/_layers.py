"""Layers with values that were read from a file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from synapse_onnx.axon import Delay

__all__ = ["delay_line", "with_weight"]


def with_weight(synapse: Any, weight: Tensor) -> Any:
    """Store a weight in a real synapse, and return the synapse.

    Args:
        synapse: a layer of :mod:`synapse_onnx.synapse`.
        weight: (outputs, inputs[, height, width[, 1]]), as the synapse has it but for axes of
            size 1.
    """
    synapse.weight.data = weight.reshape(synapse.weight.shape)
    return synapse


def delay_line(steps: Tensor, max_delay: int | None = None) -> Delay:
    """Return an axonal delay.

    Args:
        steps: time steps, one for all (1,), one a channel (C,), or one a neuron, flattened.
        max_delay: the most that the delay may become in training; unbounded unless given.
    """
    line = Delay() if max_delay is None else Delay(max_delay)
    line.load_state_dict({"delay": steps})
    return line
