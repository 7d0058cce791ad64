"""RF: the resonate-and-fire neuron that spikes when its phase passes zero."""

from __future__ import annotations

from typing import Any

from synapse_onnx.neuron._resonator import Resonator, Rotation, neuron_params, rotate
from synapse_onnx.ops import register_equation

__all__ = ["Neuron", "neuron_params"]


class Rf(Rotation):
    """Source: lava-dl, ``slayer/neuron/rf.py`` and ``slayer/spike/complex.py``."""

    name = "Rf"
    doc = (
        "Resonate-and-fire neuron with a phase threshold: z[t] = (cos_decay + i sin_decay) z[t-1] "
        "+ x[t], never reset; s[t] = 1 where im z[t] >= 0 and im z[t-1] < 0 and re z[t] >= "
        "threshold, else 0 (graded: re z[t])."
    )
    fires = ("real", "imag", "crossed")
    membrane = "real"
    phase = True

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: turn, damp, and see whether the phase passed zero."""
        real, imag = rotate(a, x, p, s)
        crossed = (imag >= 0) & (s.imag < 0)
        after = {"real": real, "imag": imag}
        return after, {**after, "crossed": crossed}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the phase passed zero and the real part reaches the threshold."""
        fired = v.crossed & (v.real >= c.threshold)
        return a.phase_spike(fired, v.real, v.imag, c.threshold)


class Neuron(Resonator):
    """Resonate-and-fire neuron: it spikes once a turn, while its amplitude reaches the threshold.

    Args:
        threshold: real part at which the neuron spikes when its phase passes zero, >= 0.
        period: time steps of a turn, at least 4; a pair (least, most) with ``shared_param=False``.
        decay: fraction of the state's length lost per time step, 0 to 1, likewise.
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

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=0.5, period=4, decay=0.0)
        >>> kick = torch.tensor([[[1.0, 0, 0, 0, 0, 0, 0, 0, 0]]])
        >>> neuron((kick, torch.zeros_like(kick)))  # a turn takes four steps
        tensor([[[0., 0., 0., 0., 1., 0., 0., 0., 1.]]])
    """

    equation = register_equation(Rf())
    device_type = "RF_PHASE"
    tau_rho_mult, scale_rho_mult = 0.5, 10
