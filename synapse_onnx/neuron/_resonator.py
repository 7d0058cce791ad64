"""What resonators share: a damped rotation of the complex state, its period and decay.

z[t] = (1 - decay) exp(2 pi i / period) z[t-1] + x[t], as real and imaginary part.
Source: lava-dl, ``slayer/neuron/dynamics/resonator.py``. Some also have a threshold that adapts
(``_adaptive``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.neuron import _adaptive, base
from synapse_onnx.ops import Equation, Parameter, State
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE

#: a period, or (least, most) where every channel has its own
Period = float | tuple[float, float]


def rotate(a: Any, x: Any, p: Any, s: Any) -> tuple[Any, Any]:
    """Turn and damp the state by one step, and add the current; return (real, imag)."""
    real = a.scaled(s.real, p.cos_decay) - a.scaled(s.imag, p.sin_decay) + x.x_real
    imag = a.scaled(s.real, p.sin_decay) + a.scaled(s.imag, p.cos_decay) + x.x_imag
    return a.voltage(real), a.voltage(imag)


def neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = DECAY_ONE
) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant, sinDecay, cosDecay) to constructor arguments."""
    sin, cos = device_params["sinDecay"] / p_scale, device_params["cosDecay"] / p_scale
    return {
        "threshold": device_params["vThMant"] / scale,
        "period": 2 * math.pi / math.atan2(sin, cos),
        "decay": 1 - math.hypot(sin, cos),
    }


def adaptive_neuron_params(
    device_params: dict[str, Any], scale: int = 1 << 6, p_scale: int = DECAY_ONE
) -> dict[str, float]:
    """Translate Loihi's parameters to constructor arguments."""
    adaptive = _adaptive.adaptive_params(device_params, scale, p_scale)
    return neuron_params(device_params, scale, p_scale) | adaptive


class Rotation(Equation):
    """A damped rotation; what makes a spike is left open."""

    currents = ("x_real", "x_imag")
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("sin_decay", "(1 - decay) sin(2 pi / period)", kept=False, typical=0.64),
        Parameter("cos_decay", "(1 - decay) cos(2 pi / period)", kept=False, typical=0.64),
    )
    states: ClassVar[tuple[State, ...]] = (
        State("real", "real part"),
        State("imag", "imaginary part"),
    )
    traces: ClassVar[tuple[str, ...]] = ("real", "imag")
    readout = "imag"

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any, *anew: Any) -> dict[str, Any]:
        """Bound the length of the state: a turn by kept = hypot(sin, cos) and what comes in.

        Four products are truncated, each by less than one, which moves the state by less than 3.
        The bound grows with the length that the sequence starts from, and may start anew from.
        """
        kept = b.length(p.sin_decay, p.cos_decay)
        start = b.length(s.real, s.imag)
        start = b.larger(start, *anew) if anew else start
        length = b.filtered(start, b.length(x.x_real, x.x_imag) + 3, kept)
        return {"real": length, "imag": length}


class AdaptiveRotation(_adaptive.Adapting, Rotation):
    """A damped rotation and a threshold that adapts."""

    parameters = (*Rotation.parameters, *_adaptive.Adapting.parameters)
    states = (*Rotation.states, *_adaptive.Adapting.states)
    traces = (*Rotation.traces, *_adaptive.Adapting.traces)

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """A rotation that is never reset, beside the threshold."""
        return Rotation.bounds(self, b, x, p, s, c) | super().bounds(b, x, p, s, c)


class Rotating(base.Neuron):
    """A neuron with a rotation among its parameters: values have "period" and "decay" in its place.

    sin_decay and cos_decay follow from these two: (1 - decay) times sine and cosine of a turn's
    fraction 2 pi / period.
    """

    #: whether channels take their frequencies at equal ratios instead of at random
    log_init = True

    def _register_parameters(self, values: Mapping[str, Any]) -> None:
        ranges = {name: self._range(name, values[name], 0.01) for name in ("period", "decay")}
        if self.shared_param:
            turn = _rotation(1 / ranges["period"][0], ranges["decay"][0])
        else:
            self._ranges |= ranges
            turn = {"sin_decay": 0.0, "cos_decay": 0.0}  # until the first input
        for name, value in turn.items():
            self._set_parameter(name, torch.tensor([value]))
        super()._register_parameters(values)

    def _check_range(self, name: str, least: float, most: float, given: Period) -> None:
        if name != "period":
            super()._check_range(name, least, most, given)
        elif not 4 <= least <= most < math.inf:
            raise InputError(f"period must be at least 4 time steps and finite, got {given!r}")

    def _draw(self, channels: int) -> dict[str, Tensor]:
        least, most = self._ranges["period"]
        if self.log_init:
            frequency = torch.logspace(-math.log10(most), -math.log10(least), channels)
        else:
            frequency = 1 / most + (1 / least - 1 / most) * torch.rand(channels)
        drawn = _rotation(frequency, self._uniform("decay", channels))
        rest = [name for name in self._ranges if name not in ("period", "decay")]
        return drawn | {name: self._uniform(name, channels) for name in rest}

    def clamp(self) -> None:
        """Bring the gain below one, the angle into the first quadrant, the rest into [0, 1]."""
        unit = self.decay_scale / self.p_scale
        with torch.no_grad():
            sin, cos = getattr(self, "sin_decay"), getattr(self, "cos_decay")  # noqa: B009
            if "period" not in self._ranges:  # else they are not drawn yet
                gain = torch.sqrt(sin**2 + cos**2)
                factor = gain.clamp(0, self.decay_scale - unit) / gain.clamp(min=unit)
                sin.mul_(factor).clamp_(min=unit)
                cos.mul_(factor).clamp_(min=0)
            for name in self.decays[2:]:
                getattr(self, name).clamp_(0, self.decay_scale)

    def _fractions(self, name: str) -> Any:
        self.clamp()
        return self.parameter_value(name).detach().cpu().numpy() / self.decay_scale

    @property
    def decay(self) -> Any:
        """Fraction of the state's length lost every step; an array, one value a channel."""
        return 1 - np.hypot(self._fractions("sin_decay"), self._fractions("cos_decay"))

    @property
    def lam(self) -> Any:
        """Rate of the exponential decay, per time step."""
        return -np.log(1 - self.decay)

    @property
    def frequency(self) -> Any:
        """Turns per time step; an array, one value a channel."""
        return np.arctan2(self._fractions("sin_decay"), self._fractions("cos_decay")) / 2 / np.pi

    @property
    def period(self) -> Any:
        """Time steps of a turn; an array, one value a channel."""
        return 1 / self.frequency

    def _device_params(self) -> dict[str, Any]:
        return {
            **super()._device_params(),
            "sinDecay": self._integer("sin_decay"),
            "cosDecay": self._integer("cos_decay"),
        }


class Resonator(Rotating):
    """A resonator with a fixed threshold; the arguments are described in its subclasses."""

    example: ClassVar[Mapping[str, Any]] = {"threshold": 0.2, "period": 8, "decay": 0.1}

    def __init__(
        self,
        threshold: float,
        period: Period,
        decay: base.Decay,
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
        super().__init__(
            threshold, {"period": period, "decay": decay},
            tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike, regime,
        )  # fmt: skip
        self.log_init = log_init


class AdaptiveResonator(_adaptive.Adaptive, Rotating):
    """A neuron with such an equation; the arguments are described in its subclasses."""

    example: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.3, "threshold_step": 0.2, "period": 8, "decay": 0.1,
        "threshold_decay": 0.1, "refractory_decay": 0.2,
    }  # fmt: skip

    def __init__(
        self,
        threshold: float,
        threshold_step: float,
        period: Period,
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


def _rotation(frequency: Any, decay: Any) -> dict[str, Any]:
    """Return sine and cosine of a turn by 2 pi frequency, damped."""
    library: Any = torch if isinstance(frequency, Tensor) else math
    angle = 2 * math.pi * frequency
    return {
        "sin_decay": library.sin(angle) * (1 - decay),
        "cos_decay": library.cos(angle) * (1 - decay),
    }
