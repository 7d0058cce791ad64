"""ALIF: leaky integrate-and-fire with an adaptive threshold and a refractory response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.neuron import _adaptive, base
from synapse_onnx.ops import Equation, Parameter, State, register_equation

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, float]:
    """Translate Loihi's parameters to constructor arguments."""
    return {
        "threshold": device_params["vThMant"] / scale,
        "current_decay": device_params["iDecay"] / p_scale,
        "voltage_decay": device_params["vDecay"] / p_scale,
    } | _adaptive.adaptive_params(device_params, scale, p_scale)


class Alif(Equation):
    """Source: lava-dl, ``slayer/neuron/alif.py``."""

    name = "Alif"
    doc = (
        "Adaptive leaky integrate-and-fire neuron: u[t] = (1 - current_decay) u[t-1] + x[t]; "
        "v[t] = (1 - voltage_decay) v[t-1] + u[t], never reset; th[t] = threshold + "
        "(1 - threshold_decay) (th[t-1] - threshold); r[t] = (1 - refractory_decay) r[t-1]; "
        "s[t] = 1 where v[t] >= th[t] + r[t], else 0 (graded: v[t]); where it spiked, "
        "r[t] grows by 2 th[t], and then th[t] by threshold_step."
    )
    parameters = (
        Parameter("current_decay", "fraction of the current lost every step", jitter=0.01),
        Parameter("voltage_decay", "fraction of the voltage lost every step", jitter=0.01),
        *_adaptive.PARAMETERS,
    )
    states = (
        State("current", "synaptic current u"),
        State("voltage", "membrane voltage v"),
        *_adaptive.STATES,
    )
    constants = _adaptive.CONSTANTS
    samples = _adaptive.LEVELS
    traces = ("current", "voltage", "threshold", "refractory")
    memory: ClassVar[Mapping[str, str]] = {
        "current": "current_decay",
        "voltage": "voltage_decay",
        **_adaptive.MEMORY,
    }
    biased = True
    fires = ("voltage", "threshold", "refractory")

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice, let the threshold recover, raise it where it is reached."""
        u = a.current(a.scaled(s.current, p.current_decay) + a.biased(x.x, p))
        v = a.voltage(a.scaled(s.voltage, p.voltage_decay) + a.through_float(u))
        threshold, refractory = _adaptive.recover(a, p, s, c)
        fired = a.through_float(v) >= threshold + refractory
        adapted = _adaptive.adapt(a, fired, threshold, refractory, c)
        now = {"current": u, "voltage": v, "threshold": threshold, "refractory": refractory}
        return {"current": u, "voltage": v, **adapted}, now

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Two leaky integrators, one behind the other, beside the threshold."""
        drive = x.x + p.bias if hasattr(p, "bias") else x.x
        u = b.filtered(s.current, drive, p.current_decay)
        v = b.filtered(s.voltage, u, p.voltage_decay)
        return {"current": u, "voltage": v, **_adaptive.bounds(b, p, s, c)}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the voltage reaches the sum of threshold and refractory response."""
        limit = a.give(v.threshold) + a.give(v.refractory)
        return a.spike(a.give(v.voltage) >= limit, v.voltage, limit)


class Neuron(_adaptive.Adaptive):
    """Leaky integrate-and-fire neuron with an adaptive threshold.

    Its voltage is never reset; every spike raises the threshold by ``threshold_step`` and adds a
    refractory response of twice the threshold, and both decay.

    Args:
        threshold: voltage at which the neuron spikes when it has not spiked for long.
        threshold_step: what a spike adds to the threshold.
        current_decay, voltage_decay: fraction of current and voltage lost every step, 0 to 1; a
            pair (least, most) with ``shared_param=False``.
        threshold_decay, refractory_decay: fraction of the added threshold and of the refractory
            response lost every step, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        scale: integer that stands for a weight of one, a power of two.
        norm, dropout, shared_param, persistent_state, requires_grad, regime: see
            :class:`synapse_onnx.neuron.base.Neuron`. The norm stands before the current.
        graded_spike: a spike carries the voltage instead of 1.

    Example:
        >>> import torch
        >>> neuron = Neuron(1.0, 0.5, 1.0, 1.0, threshold_decay=0.5, refractory_decay=0.5)
        >>> neuron(torch.full((1, 1, 8), 2.0))  # after a spike it needs more than 2 for a while
        tensor([[[1., 0., 1., 0., 1., 0., 1., 0.]]])
    """

    equation = register_equation(Alif())
    device_type = "ALIF"
    example: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.3, "threshold_step": 0.2, "current_decay": 0.25, "voltage_decay": 0.05,
        "threshold_decay": 0.1, "refractory_decay": 0.1,
    }  # fmt: skip

    def __init__(
        self,
        threshold: float,
        threshold_step: float,
        current_decay: base.Decay,
        voltage_decay: base.Decay,
        threshold_decay: base.Decay,
        refractory_decay: base.Decay,
        *common: Any,
        **more: Any,
    ) -> None:
        values = {"current_decay": current_decay, "voltage_decay": voltage_decay}
        adaptive = (threshold_step, threshold_decay, refractory_decay)
        super().__init__(threshold, *adaptive, values, *common, **more)

    @property
    def ref_delay(self) -> int:
        """Refractory delay, in steps."""
        return 1

    def _device_params(self) -> dict[str, Any]:
        return {
            "iDecay": self._integer("current_decay"),
            "vDecay": self._integer("voltage_decay"),
            "refDelay": self.ref_delay,
            **super()._device_params(),
        }
