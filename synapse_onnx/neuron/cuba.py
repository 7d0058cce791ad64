"""CUBA: the current-based leaky integrate-and-fire neuron of Loihi and lava-dl."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from synapse_onnx import fixed
from synapse_onnx.errors import InputError
from synapse_onnx.neuron import base
from synapse_onnx.ops.cuba import cuba
from synapse_onnx.ops.cuba_float import cuba_float
from synapse_onnx.ops.leaky_integrator import leaky_integrator
from synapse_onnx.ops.leaky_integrator_float import leaky_integrator_float
from synapse_onnx.ops.spike import spike

__all__ = ["Neuron", "neuron_params"]

# lava-dl's factors, with which tau_grad = scale_grad = 1 is a good start (neuron/cuba.py)
_TAU_RHO_MULT = 100
_SCALE_RHO_MULT = 0.1


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant, iDecay, vDecay) to constructor arguments."""
    return {
        "threshold": device_params["vThMant"] / scale,
        "current_decay": device_params["iDecay"] / p_scale,
        "voltage_decay": device_params["vDecay"] / p_scale,
    }


class Neuron(base.Neuron):
    """Current-based leaky integrate-and-fire neuron.

    u[t] = (1 - current_decay) u[t-1] + x[t]; v[t] = (1 - voltage_decay) v[t-1] + u[t];
    it spikes where v[t] >= threshold, and v is reset to 0 there. In the slayer regime u and v
    are integers over ``64 * scale`` and decays integers over 4096, with the rounding of
    lava-dl on the CPU (equations: :mod:`synapse_onnx.ops.cuba`).

    Args:
        threshold: voltage at which the neuron spikes.
        current_decay: fraction of the current lost every step, 0 to 1; a pair (least, most)
            with ``shared_param=False``.
        voltage_decay: fraction of the voltage lost every step, likewise.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        scale: integer that stands for a weight of one.
        norm, dropout, shared_param, persistent_state, requires_grad, regime: see
            :class:`synapse_onnx.neuron.base.Neuron`.
        graded_spike: a spike carries the voltage instead of 1.

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.0)
        >>> neuron(torch.full((1, 1, 6), 0.5))  # v > 1 needs a third input: 0.5, 1.0, 1.5
        tensor([[[0., 0., 1., 0., 0., 1.]]])
    """

    decays = ("current_decay", "voltage_decay")
    states = ("current", "voltage")

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
        super().__init__(
            threshold,
            {"current_decay": current_decay, "voltage_decay": voltage_decay},
            tau_grad=tau_grad,
            scale_grad=scale_grad,
            w_scale=scale,
            s_scale=int(scale) * (1 << 6),
            norm=norm,
            dropout=dropout,
            persistent_state=persistent_state,
            shared_param=shared_param,
            requires_grad=requires_grad,
            regime=regime,
        )
        self.graded_spike = graded_spike

    @property
    def _surrogate(self) -> tuple[float, float]:
        # a threshold of zero would leave no width at all
        tau = self.tau_rho * _TAU_RHO_MULT or _TAU_RHO_MULT / self.w_scale
        return tau, self.scale_rho * _SCALE_RHO_MULT

    @property
    def _fusible(self) -> bool:
        """Whether one op gives what the two integrators give.

        Between them the current passes through float32(u) / scale; only a power of two leaves
        nothing but the rounding to float32, which the fused op reproduces.
        """
        power_of_two = self.s_scale & (self.s_scale - 1) == 0
        return self.norm is None and (power_of_two or self.regime == "float")

    def dynamics(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return current and voltage over time, before the reset of each step.

        Args:
            input: currents (N, C[, H, W], T).

        Returns:
            (current, voltage), each of the input's shape, in units of the threshold.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        start_u, start_v = self._start(input)
        decay_u, decay_v = self.decay("current_decay"), self.decay("voltage_decay")
        if self.regime == "float":
            u, last_u = leaky_integrator_float(input, decay_u, start_u, math.inf)
            u = self.norm(u) if self.norm is not None else u
            v, last_v = leaky_integrator_float(u, decay_v, start_v, self.threshold)
        else:
            u, last_u = leaky_integrator(input, decay_u, start_u, self.s_scale, fixed.NO_THRESHOLD)
            u = self.norm(u) if self.norm is not None else u
            v, last_v = leaky_integrator(u, decay_v, start_v, self.s_scale, self.integer_threshold)
        self._keep(last_u, last_v)
        return u, v

    def membrane(self, input: Tensor) -> Tensor:
        """Return the voltage over time, before the reset of each step."""
        return self.dynamics(input)[1]

    def spike(self, voltage: Tensor) -> Tensor:
        """Return the spikes of a voltage that :meth:`dynamics` returned, dropout applied."""
        level = self.threshold + self.threshold_eps
        return self._dropped(spike(voltage, level, *self._surrogate, self.graded_spike))

    def _dropped(self, spikes: Tensor) -> Tensor:
        result: Tensor = self.drop(spikes) if self.drop is not None else spikes
        return result

    def forward(self, input: Tensor) -> Tensor:
        """Return spikes (N, C[, H, W], T) of currents of the same shape, float32.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        # in training the composed form costs no second pass for its gradient
        if self.training or not self._fusible:
            return self.spike(self.dynamics(input)[1])
        states = self._start(input)
        decays = (self.decay("current_decay"), self.decay("voltage_decay"))
        tail = (*self._surrogate, self.graded_spike)
        if self.regime == "float":
            s, *last = cuba_float(input, *decays, *states, self.threshold, *tail)
        else:
            s, *last = cuba(input, *decays, *states, self.s_scale, self.integer_threshold, *tail)
        self._keep(*last)
        return self._dropped(s)

    # -- Loihi -------------------------------------------------------------------------------

    @property
    def cx_current_decay(self) -> Any:
        """Current decay as Loihi takes it: an integer in 4096ths, or an array of them."""
        return self._integer("current_decay")

    @property
    def cx_voltage_decay(self) -> Any:
        """Voltage decay as Loihi takes it: an integer in 4096ths, or an array of them."""
        return self._integer("voltage_decay")

    @property
    def ref_delay(self) -> int:
        """Refractory delay, in steps."""
        return 1

    @property
    def device_params(self) -> dict[str, Any]:
        """Parameters for Loihi.

        Raises:
            InputError: the neuron is in the float regime.
        """
        if self.regime == "float":
            raise InputError("device_params: a neuron in the float regime has no Loihi parameters")
        return {
            "type": "CUBA",
            "iDecay": self.cx_current_decay,
            "vDecay": self.cx_voltage_decay,
            "vThMant": self.v_th_mant,
            "refDelay": self.ref_delay,
            "gradedSpike": self.graded_spike,
        }
