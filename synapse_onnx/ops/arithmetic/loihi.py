"""The numeric contract of Loihi, which a ``.net`` file is written for: the "loihi" regime.

Everything is an integer. A weight, a bias and a threshold of one are 64; a state of one is 4096,
for what reaches a state is shifted left by 6 bits: synaptic currents, biases and thresholds alike.
A spike is 1, or the membrane as a fraction of 4096 where it is graded. Of a CUBA neuron with
decays d of 4096, every step computes

- ``u = wrap(shift(u * (4096 - d_u)) + 64 x)``, the current from the synaptic input x;
- ``v = clip(shift(v * (4096 - d_v)) + u + 64 b)``, the voltage with the bias b;
- a spike where ``v > 64 vth``, and v is 0 then,

where ``shift`` drops 12 bits towards zero, and ``wrap`` and ``clip`` keep 24 bits: a current
beyond them comes out at the other end, a voltage stays at the end. A resonator clips its real and
its imaginary part and spikes where it reaches 64 vth (``>=``). An adaptive threshold and its
refractory response are neither clipped nor wrapped, and a voltage is compared with their sum by
``>=``.

The "slayer" regime of :mod:`synapse_onnx.ops.arithmetic.fixed` gives the same numbers while no
state leaves 24 bits, and only then: it has neither ``wrap`` nor ``clip``.

A sigma-delta neuron keeps its activation with 18 bits behind the point, 6 of the weight and 12
of what is sent: state exponent 6 + spike exponent 6 + 6. Bias and threshold are shifted left by
12 bits to get there. What it sends is the change, shifted right by 6 bits towards minus infinity;
the bits that fall off are lost. Its sums are exact in float64, and its activation in float32
while it stays within 24 bits.

Source: lava, ``proc/lif/models.py`` (PyLifModelBitAcc), ``proc/rf/models.py``,
``proc/rf_iz/models.py``, ``proc/atrlif/models.py``, ``proc/sdn/models.py`` (fixed_pt), and the
parameters that lava-dl's ``netx/hdf5.py`` gives them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["STATE_LIMIT", "clip", "wrap"]

#: one more than the largest state of 24 bits
STATE_LIMIT = 1 << 23


def wrap(current: Tensor) -> Tensor:
    """Bring an int64 current back into 24 bits: what passes one end comes out at the other.

    The largest magnitude, 2**23, stays where it is positive, as in lava's model.
    """
    over = torch.where(current > STATE_LIMIT, current - 2 * STATE_LIMIT, current)
    return torch.where(over <= -STATE_LIMIT, current + 2 * STATE_LIMIT, over)


def clip(voltage: Tensor) -> Tensor:
    """Keep an int64 voltage within 24 bits, that is within 2**23 - 1 of zero."""
    return voltage.clamp(1 - STATE_LIMIT, STATE_LIMIT - 1)
