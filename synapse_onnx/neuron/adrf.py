"""ADRF: resonate-and-fire with a phase threshold that adapts."""

from __future__ import annotations

from typing import Any

from synapse_onnx.neuron._resonator import AdaptiveResonator, AdaptiveRotation, rotate
from synapse_onnx.neuron._resonator import adaptive_neuron_params as neuron_params
from synapse_onnx.ops import register_equation

__all__ = ["Neuron", "neuron_params"]


class Adrf(AdaptiveRotation):
    """Source: lava-dl, ``slayer/neuron/adrf.py`` and ``dynamics/adaptive_phase_th.py``."""

    name = "Adrf"
    doc = (
        "Resonate-and-fire neuron with an adaptive phase threshold: z[t] = (cos_decay + i "
        "sin_decay) z[t-1] + x[t], never reset; th[t] = threshold + (1 - threshold_decay) "
        "(th[t-1] - threshold); r[t] = (1 - refractory_decay) r[t-1]; s[t] = 1 where im z[t] >= 0 "
        "and im z[t-1] < 0 and re z[t] >= th[t] + r[t], else 0 (graded: re z[t]); where it "
        "spiked, r[t] grows by 2 th[t], and then th[t] by threshold_step."
    )
    fires = ("real", "imag", "threshold", "refractory", "crossed")
    membrane = "real"
    phase = True

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: turn, damp, let the threshold recover, raise it where it is reached."""
        real, imag = rotate(a, x, p, s)
        threshold, refractory = self.recover(a, p, s, c)
        crossed = (imag >= 0) & (s.imag < 0)
        fired = crossed & (a.through_float(real) >= threshold + refractory)
        adapted = self.adapt(a, fired, threshold, refractory, c)
        now = {"real": real, "imag": imag, "threshold": threshold, "refractory": refractory}
        return {"real": real, "imag": imag, **adapted}, {**now, "crossed": crossed}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the phase passed zero and the real part reaches threshold and response."""
        limit = a.give(v.threshold) + a.give(v.refractory)
        fired = v.crossed & (a.give(v.real) >= limit)
        return a.phase_spike(fired, v.real, v.imag, limit)


class Neuron(AdaptiveResonator):
    """Resonate-and-fire neuron with an adaptive phase threshold.

    Args:
        threshold: real part at which the neuron spikes when its phase passes zero and it has not
            spiked for long, >= 0.
        threshold_step: height by which a spike raises the threshold, in the same unit.
        period: time steps of a turn, at least 4; a pair (least, most) with ``shared_param=False``.
        decay: fraction of the state's length lost per time step, 0 to 1, likewise.
        threshold_decay: fraction of the raised threshold lost per time step, likewise.
        refractory_decay: fraction of the refractory response lost per time step, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient, relative to lava-dl's.
        scale: integer that represents a weight of 1.0, a power of two; 64 * scale: a state of 1.0.
        norm: constructor of a norm, of real and imaginary current each, or None.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: one value of each parameter for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the real part, in units of the threshold, instead of 1.
        regime: "slayer" (fixed point as in lava-dl on the CPU), "loihi" (24-bit states) or "float".
        log_init: with ``shared_param=False``, space the channels' frequencies evenly on a
            logarithmic scale; False draws them at random.
    """

    equation = register_equation(Adrf())
    device_type = "ADRF_PHASE"
