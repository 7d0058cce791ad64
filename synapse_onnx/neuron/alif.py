"""ALIF: leaky integrate-and-fire with an adaptive threshold and a refractory response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import nn

from synapse_onnx.neuron import _adaptive, base, cuba
from synapse_onnx.ops import register_equation
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = DECAY_ONE
) -> dict[str, float]:
    """Translate Loihi's parameters to constructor arguments."""
    adaptive = _adaptive.adaptive_params(device_params, scale, p_scale)
    return cuba.neuron_params(device_params, scale, p_scale) | adaptive


class Alif(_adaptive.Adapting):
    """Source: lava-dl, ``slayer/neuron/alif.py``."""

    name = "Alif"
    doc = (
        "Adaptive leaky integrate-and-fire neuron: u[t] = (1 - current_decay) u[t-1] + x[t]; "
        "v[t] = (1 - voltage_decay) v[t-1] + u[t], never reset; th[t] = threshold + "
        "(1 - threshold_decay) (th[t-1] - threshold); r[t] = (1 - refractory_decay) r[t-1]; "
        "s[t] = 1 where v[t] >= th[t] + r[t], else 0 (graded: v[t]); where it spiked, "
        "r[t] grows by 2 th[t], and then th[t] by threshold_step."
    )
    parameters = (*cuba.Cuba.parameters, *_adaptive.Adapting.parameters)
    states = (*cuba.Cuba.states, *_adaptive.Adapting.states)
    traces = (*cuba.Cuba.traces, *_adaptive.Adapting.traces)
    memory: ClassVar[Mapping[str, str]] = {**cuba.Cuba.memory, **_adaptive.Adapting.memory}
    biased = True
    fires = ("voltage", "threshold", "refractory")

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice, let the threshold recover, raise it where it is reached."""
        u = a.current(a.scaled(s.current, p.current_decay) + a.biased(x.x, p))
        v = a.voltage(a.scaled(s.voltage, p.voltage_decay) + a.through_float(u))
        threshold, refractory = self.recover(a, p, s, c)
        fired = a.through_float(v) >= threshold + refractory
        adapted = self.adapt(a, fired, threshold, refractory, c)
        now = {"current": u, "voltage": v, "threshold": threshold, "refractory": refractory}
        return {"current": u, "voltage": v, **adapted}, now

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Two leaky integrators, one behind the other, beside the threshold."""
        drive = x.x + p.bias if hasattr(p, "bias") else x.x
        u = b.filtered(s.current, drive, p.current_decay)
        v = b.filtered(s.voltage, u, p.voltage_decay)
        return {"current": u, "voltage": v, **super().bounds(b, x, p, s, c)}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the voltage reaches the sum of threshold and refractory response."""
        limit = a.give(v.threshold) + a.give(v.refractory)
        return a.spike(a.give(v.voltage) >= limit, v.voltage, limit)


class Neuron(_adaptive.Adaptive, cuba.Leaky):
    """Leaky integrate-and-fire neuron with an adaptive threshold.

    Its voltage is never reset; every spike raises the threshold by ``threshold_step`` and adds a
    refractory response of twice the threshold, and both decay.

    Args:
        threshold: voltage at which the neuron spikes when it has not spiked for long, >= 0.
        threshold_step: height by which a spike raises the threshold, in the same unit.
        current_decay: fraction of the current lost per time step, 0 to 1; a pair (least, most)
            with ``shared_param=False``.
        voltage_decay: fraction of the voltage lost per time step, likewise.
        threshold_decay: fraction of the raised threshold lost per time step, likewise.
        refractory_decay: fraction of the refractory response lost per time step, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient, relative to lava-dl's.
        scale: integer that represents a weight of 1.0, a power of two; 64 * scale: a state of 1.0.
        norm: constructor of a norm of the input, such as ``norm.MeanOnlyBatchNorm``, or None.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: one value of each parameter for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the voltage, in units of the threshold, instead of 1.
        regime: "slayer" (fixed point as in lava-dl on the CPU), "loihi" (24-bit states) or "float".

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
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        graded_spike: bool = False,
        regime: str = "slayer",
    ) -> None:
        values = {
            "current_decay": current_decay, "voltage_decay": voltage_decay,
            "threshold_decay": threshold_decay, "refractory_decay": refractory_decay,
        }  # fmt: skip
        super().__init__(
            threshold, values,
            tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike, regime,
            levels={"threshold_step": threshold_step},
        )  # fmt: skip
