"""What resonators share: a damped rotation of the complex state, its period and decay.

z[t] = (1 - decay) exp(2 pi i / period) z[t-1] + x[t], as real and imaginary part.
Source: lava-dl, ``slayer/neuron/dynamics/resonator.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.neuron import base
from synapse_onnx.ops import Parameter, State

__all__ = ["PARAMETERS", "STATES", "Resonator", "Rotating", "bounds", "resonator_params", "rotate"]

PARAMETERS = (
    Parameter("sin_decay", "(1 - decay) sin(2 pi / period)", kept=False, typical=0.64),
    Parameter("cos_decay", "(1 - decay) cos(2 pi / period)", kept=False, typical=0.64),
)
STATES = (State("real", "real part"), State("imag", "imaginary part"))

#: a period, or (least, most) where every channel has its own
Period = float | tuple[float, float]


def rotate(a: Any, x: Any, p: Any, s: Any) -> tuple[Any, Any]:
    """Turn and damp the state by one step, and add the current; return (real, imag)."""
    real = a.scaled(s.real, p.cos_decay) - a.scaled(s.imag, p.sin_decay) + x.x_real
    imag = a.scaled(s.real, p.sin_decay) + a.scaled(s.imag, p.cos_decay) + x.x_imag
    return a.voltage(real), a.voltage(imag)


def bounds(b: Any, x: Any, p: Any, s: Any, *anew: Any) -> Any:
    """Bound the length of the state: a turn by kept = hypot(sin, cos) and what comes in.

    Four products are truncated, each by less than one, which moves the state by less than 3.
    The bound grows with the length that the sequence starts from, and may start anew from.
    """
    kept = b.length(p.sin_decay, p.cos_decay)
    start = b.length(s.real, s.imag)
    start = b.larger(start, *anew) if anew else start
    return b.filtered(start, b.length(x.x_real, x.x_imag) + 3, kept)


def resonator_params(device_params: dict[str, Any], scale: int, p_scale: int) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant, sinDecay, cosDecay) to constructor arguments."""
    sin, cos = device_params["sinDecay"] / p_scale, device_params["cosDecay"] / p_scale
    return {
        "threshold": device_params["vThMant"] / scale,
        "period": 2 * math.pi / math.atan2(sin, cos),
        "decay": 1 - math.hypot(sin, cos),
    }


class Rotating(base.Neuron):
    """A neuron with a rotation among its parameters: values have "period" and "decay" in its place.

    sin_decay and cos_decay follow from these two: (1 - decay) times sine and cosine of a turn's
    fraction 2 pi / period.
    """

    #: whether channels take their frequencies at equal ratios instead of at random
    log_init = True

    def _register_parameters(self, values: Mapping[str, Any]) -> None:
        periods = values["period"]
        least, most = self._period_range(periods)
        decays = self._range("decay", values["decay"], jitter=0.01)
        if self.shared_param:
            for name, value in _rotation(1 / least, decays[0]).items():
                self._set_parameter(name, torch.tensor([value]))
        else:
            self._ranges |= {"period": (least, most), "decay": decays}
            for name in ("sin_decay", "cos_decay"):
                self._set_parameter(name, torch.zeros(1))
        for parameter in self.equation.parameters:
            if parameter.name in values:
                span = self._range(parameter.name, values[parameter.name], parameter.jitter)
                if not self.shared_param:
                    self._ranges[parameter.name] = span
                self._set_parameter(parameter.name, torch.tensor([span[0]]))

    def _period_range(self, period: Period) -> tuple[float, float]:
        if isinstance(period, (int, float)):
            spread = 0.0 if self.shared_param else 0.01
            least, most = period * (1 - spread), period * (1 + spread)
            shortest: float = period
        elif self.shared_param or len(period) != 2:
            raise InputError(
                "period must be a number"
                + ("" if self.shared_param else " or a pair (least, most)")
                + f" when shared_param is {self.shared_param}, got {period!r}"
            )
        else:
            least, most = period
            shortest = least
        if not (shortest >= 4 and least <= most < math.inf):
            raise InputError(f"period must be at least 4 time steps and finite, got {period!r}")
        return least, most

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
            "sinDecay": self._integer("sin_decay"),
            "cosDecay": self._integer("cos_decay"),
            **super()._device_params(),
        }


class Resonator(Rotating):
    """A resonator with a fixed threshold; the arguments are described in its subclasses."""

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


def _rotation(frequency: Any, decay: Any) -> dict[str, Any]:
    """Return sine and cosine of a turn by 2 pi frequency, damped."""
    library: Any = torch if isinstance(frequency, Tensor) else math
    angle = 2 * math.pi * frequency
    return {
        "sin_decay": library.sin(angle) * (1 - decay),
        "cos_decay": library.cos(angle) * (1 - decay),
    }
