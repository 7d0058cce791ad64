"""Multi-spike LIF: a leaky neuron that spikes several times a step, as sinabs and Rockpool have it.

It is no kind of its own with blocks: ``so.convert`` makes it of layers of other frameworks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from synapse_onnx.errors import InputError
from synapse_onnx.neuron import base, lif
from synapse_onnx.ops import Equation, Parameter, State, register_equation

__all__ = ["RESETS", "MultiSpike"]

#: resets: how the voltage changes where the neuron spiked
RESETS = ("zero", "subtract")

#: a number of spikes, and minus a voltage, that nothing reaches, and that JSON can hold
_NEVER = float(torch.finfo(torch.float32).max)


class MultiLif(Equation):
    """Source: sinabs 3.1, ``activation/spike_generation.py`` and ``layers/functional/lif.py``."""

    parameters = tuple(
        Parameter(name, doc, kept=False, level=True, typical=typical)
        for name, doc, typical in (
            ("alpha", "fraction of the current kept every step", 0.5),
            ("beta", "fraction of the voltage kept every step", 0.75),
            ("gain", "factor on the input", 1.5),
            ("drive", "added to the voltage every step", 0.0625),
            ("v_threshold", "voltage of one spike", 0.5),
            ("v_reset", "voltage after spikes, or what each of them takes off", 0.25),
            ("v_least", "voltage below which no step ends", -0.5),
            ("most", "largest number of spikes in a step", 3.0),
        )
    )
    states = (State("current", "synaptic current u"), State("voltage", "membrane voltage v"))
    constants = ()
    samples: ClassVar[Mapping[str, float]] = {}
    traces = ("current", "voltage", "count")
    fires = ("count",)
    memory: ClassVar[Mapping[str, str]] = {"current": "alpha", "voltage": "beta"}
    regimes = ("float",)

    def __init__(self, reset: str) -> None:
        self.reset = reset
        after = {
            "zero": "v[t] = v_reset where n[t] > 0",
            "subtract": "v[t] -= n[t] v_reset",
        }
        self.name = "MultiLif" if reset == "zero" else "MultiLifSubtract"  # type: ignore[misc]
        self.doc = (  # type: ignore[misc]
            f"Leaky neuron that spikes several times in a step: u[t] = alpha u[t-1] + gain x[t]; "
            f"v[t] = beta v[t-1] + u[t] + drive; n[t] = min(floor(v[t] / v_threshold), most) where "
            f"v[t] >= v_threshold, else 0; {after[reset]}; then v[t] = max(v[t], v_least). The "
            f"output is n (graded), or 1 where n > 0."
        )

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice, count the thresholds in the voltage, reset, clip."""
        u = a.scaled(s.current, p.alpha) + a.scaled(x.x, p.gain)
        v = a.scaled(s.voltage, p.beta) + u + p.drive
        count = a.count(v, p.v_threshold)
        count = a.where(count >= p.most, p.most, count)
        if self.reset == "zero":
            after = a.reset(count >= 1, p.v_reset, v)
        else:
            after = v - a.scaled(count, p.v_reset)
        after = a.where(after >= p.v_least, after, p.v_least)
        return {"current": u, "voltage": after}, {"current": u, "voltage": v, "count": count}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Return the number of spikes, which has a gradient of its own."""
        return a.spike(v.count >= 1, v.count, 0)


_EQUATIONS = {reset: register_equation(MultiLif(reset)) for reset in RESETS}


class MultiSpike(lif.Neuron):
    """Leaky neuron in floats that spikes as often in a step as its threshold fits the voltage.

    u[t] = alpha u[t-1] + gain x[t]; v[t] = beta v[t-1] + u[t] + drive; it spikes n = v[t] /
    threshold times, rounded down, at most ``most`` times. Then it is reset, and kept above
    ``least``. Its gradient is 1 / threshold from half the threshold on, as Rockpool's. Every
    parameter is one number, or a tensor: one a channel (C,) or one a neuron (C, H, W).

    Args:
        threshold: voltage of one spike, > 0.
        beta: fraction of the voltage kept per time step.
        alpha: fraction of the current kept per time step.
        gain: factor on the input.
        drive: added to the voltage at every time step.
        reset: "zero" sets the voltage to ``reset_value`` where it spiked; "subtract" takes
            ``reset_value`` off for every spike.
        reset_value: by default 0 with "zero", and the threshold with "subtract".
        least: voltage below which no step ends; None for none.
        most: largest number of spikes in a step; None for any.
        strict: one spike needs a voltage above the threshold, and not at it.
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.

    Raises:
        InputError: a parameter is no finite number, the threshold is not positive, or the reset is
            none of these.

    Example:
        >>> import torch
        >>> neuron = MultiSpike(threshold=1.0, beta=1.0, most=2)
        >>> neuron(torch.tensor([[[2.5, 0.75, 3.5]]]))  # 2.5, 1.25, and 3.75
        tensor([[[2., 1., 2.]]])
    """

    equation = _EQUATIONS["subtract"]
    example: ClassVar[Mapping[str, Any]] = {"threshold": 0.5, "beta": 0.75, "alpha": 0.25}
    grades = True

    def __init__(
        self,
        threshold: lif.Values = 1.0,
        beta: lif.Values = 0.9,
        alpha: lif.Values = 0.0,
        gain: lif.Values = 1.0,
        drive: lif.Values = 0.0,
        reset: str = "subtract",
        reset_value: lif.Values | None = None,
        least: lif.Values | None = None,
        most: lif.Values | None = None,
        strict: bool = False,
        *,
        persistent_state: bool = False,
        requires_grad: bool = False,
    ) -> None:
        if reset not in RESETS:
            raise InputError(f"reset must be one of {', '.join(RESETS)}, got {reset!r}")
        if not bool((torch.as_tensor(threshold) > 0).all()):
            raise InputError(f"threshold must be above 0, got {threshold}")
        if reset_value is None:
            reset_value = 0.0 if reset == "zero" else threshold
        #: values of the parameters that lif has not, or has of another meaning
        self._further = {
            "v_reset": reset_value,
            "v_least": -_NEVER if least is None else least,
            "most": _NEVER if most is None else most,
        }
        super().__init__(
            threshold, beta, alpha, gain, drive, reset, 0.0, strict,
            persistent_state=persistent_state, requires_grad=requires_grad,
        )  # fmt: skip
        del self._further
        self.equation = _EQUATIONS[reset]  # type: ignore[misc]
        self.graded_spike = True

    def _register_parameters(self, values: Mapping[str, Any]) -> None:
        super()._register_parameters({**values, **self._further})
        for name in ("v_least", "most"):  # what is never reached has no gradient
            getattr(self, name).requires_grad_(False)

    @property
    def _subtracts(self) -> bool:
        """Whether v_reset is always the threshold: here it is a parameter of its own."""
        return False

    def spike(self, count: Tensor) -> Tensor:
        """Return the spikes of the last variable that :meth:`dynamics` returned: itself."""
        return self._dropped(count)

    def margin(self, input: base.Current) -> Tensor:
        """Return how far the voltage is above the nearest number of spikes, before resets."""
        _, voltage, _ = self.dynamics(input)
        level = self.parameter_value("v_threshold")
        level = level.reshape(*level.shape, *(1,) * (voltage.dim() - 1 - level.dim()))
        nearest = torch.round(voltage / level).clamp(min=1)
        return voltage - nearest * level
