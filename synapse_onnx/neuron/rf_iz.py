"""RF-Izhikevich: the resonate-and-fire neuron that spikes on its imaginary part and is reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.neuron import _resonator, base
from synapse_onnx.ops import Equation, register_equation

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant, sinDecay, cosDecay) to constructor arguments."""
    return _resonator.resonator_params(device_params, scale, p_scale)


class RfIz(Equation):
    """Source: lava-dl, ``slayer/neuron/rf_iz.py``."""

    name = "RfIz"
    doc = (
        "Resonate-and-fire neuron after Izhikevich: z[t] = (cos_decay + i sin_decay) z[t-1] + "
        "x[t]; s[t] = 1 where im z[t] >= threshold, else 0 (graded: im z[t]); where it spiked, "
        "z[t] = i (threshold - unit), the largest value below the threshold."
    )
    currents = ("x_real", "x_imag")
    parameters = _resonator.PARAMETERS
    states = _resonator.STATES
    constants = ("threshold", "below")
    samples: ClassVar[Mapping[str, float]] = {"threshold": 0.75, "below": 0.75 - 1 / 4096}
    traces = ("real", "imag")
    fires = ("imag",)
    membrane = readout = "imag"

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: turn, damp, and reset where the imaginary part reaches the threshold."""
        real, imag = _resonator.rotate(a, x, p, s)
        fired = imag >= c.threshold
        # lava-dl's reset computes the imaginary part in float32
        after = {
            "real": a.reset(fired, 0, real),
            "imag": a.reset(fired, c.below, a.through_float(imag)),
        }
        return after, {"real": real, "imag": imag}

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """A spike leaves the state at a known length, from which the sequence then starts anew."""
        level = b.size(c.below) * b.met(c.threshold)
        length = _resonator.bounds(b, x, p, s, level)
        return {"real": length, "imag": length}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the imaginary part reaches the threshold."""
        return a.spike(v.imag >= c.threshold, v.imag, c.threshold)


class Neuron(_resonator.Resonator):
    """Resonate-and-fire neuron after Izhikevich: the imaginary part is its membrane.

    Args:
        threshold: imaginary part at which the neuron spikes; it is reset to just below it.
        period: time steps of a turn, at least 4; a pair (least, most) with ``shared_param=False``.
        decay: fraction of the state's length lost every step, 0 to 1, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        scale: integer that stands for a weight of one, a power of two.
        norm, dropout, shared_param, persistent_state, requires_grad, regime: see
            :class:`synapse_onnx.neuron.base.Common`. Real and imaginary current have a norm each.
        graded_spike: a spike carries the imaginary part instead of 1.
        log_init: with ``shared_param=False`` channels take frequencies at equal ratios, else at
            random.

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=0.9, period=4, decay=0.0)
        >>> kick = torch.tensor([[[1.0, 0, 0, 0, 0, 0]]])
        >>> neuron((kick, torch.zeros_like(kick)))  # a quarter of a turn later
        tensor([[[0., 1., 0., 0., 0., 0.]]])
    """

    equation = register_equation(RfIz())
    device_type = "RF_IZHIKEVICH"
    example: ClassVar[Mapping[str, Any]] = {"threshold": 0.2, "period": 8, "decay": 0.1}

    def __init__(
        self,
        threshold: float,
        period: _resonator.Period,
        decay: base.Decay,
        *common: Any,
        log_init: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(threshold, {"period": period, "decay": decay}, *common, **more)
        self.log_init = log_init

    def constants(self) -> dict[str, float]:
        """Return the threshold and the value just below it, to which a spike resets."""
        threshold = super().constants()["threshold"]
        unit = 1 / self.s_scale if self.regime == "float" else 1
        return {"threshold": threshold, "below": threshold - unit}
