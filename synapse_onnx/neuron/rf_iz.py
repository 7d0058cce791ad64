"""RF-Izhikevich: the resonate-and-fire neuron that spikes on its imaginary part and is reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.neuron._resonator import Resonator, Rotation, neuron_params, rotate
from synapse_onnx.ops import register_equation

__all__ = ["Neuron", "neuron_params"]


class RfIz(Rotation):
    """Source: lava-dl, ``slayer/neuron/rf_iz.py``."""

    name = "RfIz"
    doc = (
        "Resonate-and-fire neuron after Izhikevich: z[t] = (cos_decay + i sin_decay) z[t-1] + "
        "x[t]; s[t] = 1 where im z[t] >= threshold, else 0 (graded: im z[t]); where it spiked, "
        "z[t] = i (threshold - unit), the largest value below the threshold."
    )
    constants = ("threshold", "below")
    samples: ClassVar[Mapping[str, float]] = {"threshold": 0.75, "below": 0.75 - 1 / 4096}
    fires = ("imag",)
    membrane = "imag"

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: turn, damp, and reset where the imaginary part reaches the threshold."""
        real, imag = rotate(a, x, p, s)
        fired = imag >= c.threshold
        # lava-dl's reset computes the imaginary part in float32
        after = {
            "real": a.reset(fired, 0, real),
            "imag": a.reset(fired, c.below, a.through_float(imag)),
        }
        return after, {"real": real, "imag": imag}

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any, *anew: Any) -> dict[str, Any]:
        """A spike leaves the state at a known length, from which the sequence then starts anew."""
        level = b.size(c.below) * b.met(c.threshold)
        return super().bounds(b, x, p, s, c, level, *anew)

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the imaginary part reaches the threshold."""
        return a.spike(v.imag >= c.threshold, v.imag, c.threshold)


class Neuron(Resonator):
    """Resonate-and-fire neuron after Izhikevich: the imaginary part is its membrane.

    Args:
        threshold: imaginary part at which the neuron spikes, >= 0; it is reset to just below it.
        period: time steps of a turn, at least 4; a pair (least, most) with ``shared_param=False``.
        decay: fraction of the state's length lost per time step, 0 to 1, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient, relative to lava-dl's.
        scale: integer that represents a weight of 1.0, a power of two; 64 * scale: a state of 1.0.
        norm: constructor of a norm, of real and imaginary current each, or None.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: one value of each parameter for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the imaginary part, in units of the threshold, instead of 1.
        regime: "slayer" (fixed point as in lava-dl on the CPU), "loihi" (24-bit states) or "float".
        log_init: with ``shared_param=False``, space the channels' frequencies evenly on a
            logarithmic scale; False draws them at random.

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=0.9, period=4, decay=0.0)
        >>> kick = torch.tensor([[[1.0, 0, 0, 0, 0, 0]]])
        >>> neuron((kick, torch.zeros_like(kick)))  # a quarter of a turn later
        tensor([[[0., 1., 0., 0., 0., 0.]]])
    """

    equation = register_equation(RfIz())
    device_type = "RF_IZHIKEVICH"

    def constants(self) -> dict[str, float]:
        """Return the threshold and the value just below it, to which a spike resets."""
        threshold = super().constants()["threshold"]
        unit = 1 / self.s_scale if self.regime == "float" else 1
        return {"threshold": threshold, "below": threshold - unit}
