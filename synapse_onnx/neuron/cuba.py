"""CUBA: the current-based leaky integrate-and-fire neuron of Loihi and lava-dl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx.neuron import base
from synapse_onnx.ops import Equation, Parameter, State, register_equation
from synapse_onnx.ops.arithmetic import fixed
from synapse_onnx.ops.leaky_integrator import leaky_integrator
from synapse_onnx.ops.leaky_integrator_float import leaky_integrator_float
from synapse_onnx.ops.spike import spike

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = fixed.DECAY_ONE
) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant, iDecay, vDecay) to constructor arguments."""
    return {
        "threshold": device_params["vThMant"] / scale,
        "current_decay": device_params["iDecay"] / p_scale,
        "voltage_decay": device_params["vDecay"] / p_scale,
    }


class Cuba(Equation):
    """Source: lava-dl, ``slayer/neuron/cuba.py`` and ``dynamics/leaky_integrator.py``."""

    name = "Cuba"
    doc = (
        "Current-based leaky integrate-and-fire neuron: u[t] = (1 - current_decay) u[t-1] + x[t]; "
        "v[t] = (1 - voltage_decay) v[t-1] + u[t]; s[t] = 1 where v[t] >= threshold, else 0 "
        "(graded: v[t]); v[t] = 0 where it spiked."
    )
    parameters = (
        Parameter("current_decay", "fraction of the current lost every step", jitter=0.01),
        Parameter("voltage_decay", "fraction of the voltage lost every step", jitter=0.01),
    )
    states = (State("current", "synaptic current u"), State("voltage", "membrane voltage v"))
    traces = ("current", "voltage")
    biased = normed = True
    memory: ClassVar[Mapping[str, str]] = {"current": "current_decay", "voltage": "voltage_decay"}
    fires = ("voltage",)

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice, reset where the threshold is reached."""
        u = a.current(a.scaled(s.current, p.current_decay) + x.x)
        v = a.scaled(s.voltage, p.voltage_decay) + a.biased(a.through_float(u), p)
        v = a.voltage(v)
        after = {"current": u, "voltage": a.reset(v >= c.threshold, 0, v)}
        return after, {"current": u, "voltage": v}

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Two leaky integrators, one behind the other; a reset only makes the voltage smaller."""
        u = b.filtered(s.current, x.x, p.current_decay)
        drive = u + p.bias if hasattr(p, "bias") else u
        drive = drive * p.gain if hasattr(p, "gain") else drive
        return {"current": u, "voltage": b.filtered(s.voltage, drive, p.voltage_decay)}

    def upper_bounds(self, b: Any, s: Any, c: Any) -> dict[str, Any]:
        """A voltage that is not reset is below the threshold, but for the first."""
        return {"voltage": b.larger(b.size(c.threshold), s.voltage)}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the voltage reaches the threshold."""
        return a.spike(v.voltage >= c.threshold, v.voltage, c.threshold)


class Leaky(base.Neuron):
    """A neuron of two leaky integrators: of a current, and of a voltage."""

    @property
    def ref_delay(self) -> int:
        """Refractory delay, in time steps."""
        return 1

    def _device_params(self) -> dict[str, Any]:
        return {
            **super()._device_params(),
            "iDecay": self._integer("current_decay"),
            "vDecay": self._integer("voltage_decay"),
            "refDelay": self.ref_delay,
        }


class Neuron(Leaky):
    """Current-based leaky integrate-and-fire neuron.

    u[t] = (1 - current_decay) u[t-1] + x[t]; v[t] = (1 - voltage_decay) v[t-1] + u[t];
    it spikes where v[t] >= threshold, and v is reset to 0 there. In the slayer regime u and v
    are integers over ``64 * scale`` and decays integers over 4096, with the rounding of
    lava-dl on the CPU (arithmetic: :mod:`synapse_onnx.ops.arithmetic.fixed`).

    Args:
        threshold: voltage at which the neuron spikes, >= 0; in fixed point it must be exceeded.
        current_decay: fraction of the current lost per time step, 0 to 1; a pair (least, most)
            with ``shared_param=False``.
        voltage_decay: fraction of the voltage lost per time step, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient, relative to lava-dl's.
        scale: integer that represents a weight of 1.0; 64 * scale represents a state of 1.0.
        norm: constructor of a norm, such as ``norm.MeanOnlyBatchNorm``, applied to the current
            before it enters the voltage, or None.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: one value of each parameter for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the voltage, in units of the threshold, instead of 1.
        regime: "slayer" (fixed point as in lava-dl on the CPU), "loihi" (24-bit states) or "float".

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.0)
        >>> neuron(torch.full((1, 1, 6), 0.5))  # v > 1 needs a third input: 0.5, 1.0, 1.5
        tensor([[[0., 0., 1., 0., 0., 1.]]])
    """

    equation = register_equation(Cuba())
    device_type = "CUBA"
    example: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05,
    }  # fmt: skip

    def __init__(
        self,
        threshold: float,
        current_decay: base.Decay,
        voltage_decay: base.Decay,
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
        values = {"current_decay": current_decay, "voltage_decay": voltage_decay}
        super().__init__(
            threshold, values,
            tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike, regime,
        )  # fmt: skip
        # slayer spikes at v >= threshold, Loihi at v > threshold: a hundredth of a state's unit
        # makes the first the second
        self.threshold_eps = 0.0 if self.regime == "float" else 0.01 / self.s_scale
        #: a frozen norm that is part of the op: minus its mean, and its factor 1 / std, or None
        self.norm_bias: Tensor | None
        self.norm_gain: Tensor | None
        for name in ("norm_bias", "norm_gain"):
            self.register_buffer(name, None)

    def _check_scale(self) -> None:
        """In slayer any scale will do: see :attr:`_fusible`."""
        if self.regime == "loihi":
            super()._check_scale()

    @property
    def _fusible(self) -> bool:
        """Whether one op gives the spikes that the two integrators give."""
        return self._only_rounds and (self.norm is None or self.norm_bias is not None)

    @property
    def _only_rounds(self) -> bool:
        """Whether one op can reproduce the arithmetic between the two integrators.

        There the current passes through float32(u) / scale; only a power of two leaves nothing but
        the rounding to float32, which the fused op reproduces.
        """
        return self.s_scale & (self.s_scale - 1) == 0 or self.regime != "slayer"

    def freeze(self) -> None:
        """Turn this neuron into its deployment form; its norm becomes part of the step if it can.

        The norm is computed in float32, between states that are integers in units of 1 / s_scale.
        With a standard deviation that is a power of two, ``(u - mean) / std`` rounds alike in units
        of 1.0 and of 1 / s_scale, so that one op gives the same voltages, to the last bit. Where
        std is 1 and the mean a whole number of units, the norm is the addition of an integer.
        """
        super().freeze()
        norm: Any = self.norm
        mean, std = (getattr(norm, name, None) for name in ("running_mean", "frozen_std"))
        if self.regime != "slayer" or not self._only_rounds or mean is None or std is None:
            return
        if not self._is_plain(norm):
            return
        units, gain = mean * self.s_scale, 1 / std
        powers_of_two = (torch.frexp(std).mantissa == 0.5) & (gain * std == 1)
        if not bool(units.isfinite().all() and powers_of_two.all()):
            return
        self.norm_bias = -mean
        whole = (units.remainder(1) == 0) & (units.abs() < 2**62)
        if not bool((std == 1).all() and whole.all()):
            self.norm_gain = gain

    def _is_plain(self, norm: Any) -> bool:
        """Whether neither this neuron nor its norm has a subclass's own step."""
        own = all(getattr(type(self), m) is getattr(Neuron, m) for m in ("dynamics", "spike"))
        return own and type(norm).forward.__module__ == "synapse_onnx.neuron.norm"

    @property
    def _form(self) -> str:
        if self.norm_bias is None:
            return self.regime
        return "biased" if self.norm_gain is None else "normed"

    def _values(self) -> list[Tensor]:
        norm = (self.norm_bias, self.norm_gain)
        return [*super()._values(), *(value for value in norm if value is not None)]

    def _normed(self, currents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Leave the currents as they are where the norm is part of the step."""
        if self.norm_bias is not None:
            norm: Any = self.norm
            norm.check(currents[0])
        return currents

    @property
    def _apart(self) -> bool:
        """Whether current and voltage are integrated one after the other, each by an op.

        In training the integrators' own gradients are faster than autograd over every step.
        """
        return self.training and self.regime != "loihi"

    def dynamics(self, input: base.Current) -> tuple[Tensor, ...]:
        """Return (current, voltage) over time, before the reset of each step.

        Both have the shape of the input (N, C[, H, W], T) and the unit of the threshold.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        if self.norm is None and self._fusible and not self._apart:
            return super().dynamics(input)
        (x,) = self._currents(input)
        start_u, start_v = self.load_states(x, "current", "voltage")
        decay_u, decay_v = super()._values()
        level = self.constants()["threshold"]
        norm: Any = self.norm
        if self.regime == "float":
            u, last_u = leaky_integrator_float(x, decay_u, start_u, math.inf)
            u = u if norm is None else norm(u)
            v, last_v = leaky_integrator_float(u, decay_v, start_v, level)
        else:
            u, last_u = leaky_integrator(x, decay_u, start_u, self.s_scale, fixed.NO_THRESHOLD)
            u = u if norm is None else norm(u)
            v, last_v = leaky_integrator(u, decay_v, start_v, self.s_scale, int(level))
        self.save_states(current=last_u, voltage=last_v)
        return u, v

    def spike(self, voltage: Tensor) -> Tensor:
        """Return the spikes of a voltage that :meth:`dynamics` returned, dropout applied."""
        level = self.threshold + self.threshold_eps
        return self._dropped(spike(voltage, level, *self._surrogate, self.graded_spike))

    def forward(self, input: base.Current) -> Tensor:
        """Return spikes (N, C[, H, W], T) of currents of the same shape, float32.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        if self._fed is None and not self.readout and (self._apart or not self._fusible):
            return self.spike(self.dynamics(input)[1])
        return super().forward(input)
