"""Layers with values that were read from a file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from synapse_onnx.axon import Delay

__all__ = ["delay_line", "with_weight"]


def with_weight(synapse: Any, weight: Tensor) -> Any:
    """Store a weight in a real synapse, and return the synapse.

    The weight may lack axes of size 1: (outputs, inputs), or (outputs, inputs, width).
    """
    synapse.weight.data = weight.reshape(synapse.weight.shape)
    return synapse


def delay_line(steps: Tensor, max_delay: int | None = None) -> Delay:
    """Return a delay in time steps: (1,) for all, one a channel (C,), or one a neuron, flat."""
    line = Delay() if max_delay is None else Delay(max_delay)
    line.load_state_dict({"delay": steps})
    return line
