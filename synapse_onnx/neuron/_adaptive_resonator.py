"""What resonators with an adaptive threshold share: tables of their equation and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.neuron import _adaptive, _resonator, base
from synapse_onnx.ops import Equation

__all__ = ["AdaptiveResonator", "AdaptiveRotation", "neuron_params"]


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
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


class AdaptiveResonator(_adaptive.Adaptive, _resonator.Resonator):
    """A neuron with such an equation.

    Args:
        threshold: membrane at which the neuron spikes when it has not spiked for long.
        threshold_step: what a spike adds to the threshold.
        period: time steps of a turn, at least 4; a pair (least, most) with ``shared_param=False``.
        decay: fraction of the state's length lost every step, 0 to 1, likewise.
        threshold_decay, refractory_decay: fraction of the added threshold and of the refractory
            response lost every step, likewise.
        common, more: the further arguments of :class:`synapse_onnx.neuron.base.Common`.
        log_init: with ``shared_param=False`` channels take frequencies at equal ratios, else at
            random.
    """

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
        *common: Any,
        log_init: bool = True,
        **more: Any,
    ) -> None:
        values = {"period": period, "decay": decay}
        adaptive = (threshold_step, threshold_decay, refractory_decay)
        super().__init__(threshold, *adaptive, values, *common, **more)
        self.log_init = log_init
