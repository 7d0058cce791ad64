"""What resonators with an adaptive threshold share: tables of their equation and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import nn

from synapse_onnx.neuron import _adaptive, _resonator, base
from synapse_onnx.ops import Equation
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE

__all__ = ["AdaptiveResonator", "AdaptiveRotation", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = DECAY_ONE
) -> dict[str, float]:
    """Translate Loihi's parameters to constructor arguments."""
    return _resonator.resonator_params(device_params, scale, p_scale) | _adaptive.adaptive_params(
        device_params, scale, p_scale
    )


class AdaptiveRotation(Equation):
    """A damped rotation and a threshold that adapts; what makes a spike is left open."""

    currents = ("x_real", "x_imag")
    parameters = (*_resonator.PARAMETERS, *_adaptive.PARAMETERS)
    states = (*_resonator.STATES, *_adaptive.STATES)
    constants = _adaptive.CONSTANTS
    samples = _adaptive.LEVELS
    memory = _adaptive.MEMORY
    traces = ("real", "imag", "threshold", "refractory")
    readout = "imag"

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """A rotation that is never reset, beside the threshold."""
        length = _resonator.bounds(b, x, p, s)
        return {"real": length, "imag": length, **_adaptive.bounds(b, p, s, c)}


class AdaptiveResonator(_adaptive.Adaptive, _resonator.Rotating):
    """A neuron with such an equation; the arguments are described in its subclasses."""

    example: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.3, "threshold_step": 0.2, "period": 8, "decay": 0.1,
        "threshold_decay": 0.1, "refractory_decay": 0.2,
    }  # fmt: skip

    def __init__(
        self,
        threshold: float,
        threshold_step: float,
        period: _resonator.Period,
        decay: base.Decay,
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
        *,
        log_init: bool = True,
    ) -> None:
        values = {
            "period": period, "decay": decay,
            "threshold_decay": threshold_decay, "refractory_decay": refractory_decay,
        }  # fmt: skip
        super().__init__(
            threshold, values,
            tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike, regime,
            levels={"threshold_step": threshold_step},
        )  # fmt: skip
        self.log_init = log_init
