"""Fixed-point arithmetic of lava-dl's slayer on the CPU, stated once.

States are int64 in units of ``1 / scale``; decays are integers in 4096ths (12 bits).

- a weighted input ``x`` enters as ``trunc(scale * x)``, the product rounded to float32 first;
- a state decays by ``state * (4096 - decay)``, divided by 4096 and truncated towards zero;
- a state leaves as ``float32(state) / scale``;
- a neuron spikes where ``float32(state) >= float32(scale * (threshold + eps))``, which is the
  same as ``state >= k`` for one integer k, for float32 rounding is monotone.

Source: lava-dl, ``slayer/neuron/dynamics/leaky_integrator.py`` and ``slayer/utils/int_utils.py``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "DECAY_ONE",
    "NO_THRESHOLD",
    "STATE_LIMIT",
    "decay_state",
    "integer_threshold",
    "to_fixed",
    "to_float",
]

#: a decay of one (all of the state is lost every step), in 4096ths
DECAY_ONE = 1 << 12

#: one more than the largest state whose product with a decay stays within 64 bits
STATE_LIMIT = 1 << 51

#: an integer threshold that no state reaches
NO_THRESHOLD = (1 << 63) - 1


def to_fixed(x: Tensor, scale: int) -> Tensor:
    """Return ``trunc(scale * x)`` as int64."""
    return (scale * x).to(torch.int64)


def to_float(state: Tensor, scale: int) -> Tensor:
    """Return ``float32(state) / scale``."""
    return state.to(torch.float32) / scale


def decay_state(state: Tensor, keep: Tensor) -> Tensor:
    """Return ``state * keep / 4096``, truncated towards zero; ``keep`` is 4096 - decay."""
    product = state * keep
    # an arithmetic shift rounds down; 4095 is added to negative products to round towards zero
    return (product + ((product >> 63) & (DECAY_ONE - 1))) >> 12


def integer_threshold(threshold: float, scale: int) -> int:
    """Return the least integer k with ``float32(k) >= float32(threshold * scale)``.

    Above 2**24 several integers share one float32: k is the first that rounds to it or above. A
    number halfway between two float32 rounds to the one whose last bit is 0.
    """
    limit = np.float32(threshold * scale)
    least = math.ceil(float(limit))
    below = float(np.nextafter(limit, np.float32(-np.inf)))
    if least - below <= 1:  # no integer lies between the float32 below and the limit
        return least
    half = (int(below) + least) // 2
    return half if np.float32(half) >= limit else half + 1
