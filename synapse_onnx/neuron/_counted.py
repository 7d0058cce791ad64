"""The equation of leaky integrate-and-fire neurons that spike several times in one time step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.ops import Equation, Parameter, State, register_equation

__all__ = ["counted_equations"]


class CountedLif(Equation):
    """Source: sinabs, ``activation/spike_generation.py``; Rockpool, ``torch/lif_torch.py``.

    Args:
        parameters: those of the neuron that spikes once.
        states: its states.
        reset: "zero" or "subtract".
        clipped: whether the voltage has a lowest value.
    """

    constants = ("most",)
    samples: ClassVar[Mapping[str, float]] = {"most": 3.0}
    traces = ("current", "voltage", "nearest")
    fires = ("count", "nearest")
    memory: ClassVar[Mapping[str, str]] = {"current": "alpha", "voltage": "beta"}
    often_zero = ("drive",)
    often_one = ("gain",)
    regimes = ("float",)
    counts = True

    def __init__(
        self,
        parameters: tuple[Parameter, ...],
        states: tuple[State, ...],
        reset: str,
        clipped: bool,
    ) -> None:
        self.reset, self.clipped = reset, clipped
        lowest = Parameter(
            "lowest", "lowest voltage after a step", kept=False, level=True, typical=-0.125
        )
        self.parameters = (*parameters, lowest) if clipped else parameters  # type: ignore[misc]
        self.states = states  # type: ignore[misc]
        self.name = f"LifCounted{reset.title()}{'Clipped' if clipped else ''}"  # type: ignore[misc]
        after = {
            "zero": "v[t] = v_reset where it spiked",
            "subtract": "v[t] -= s[t] v_reset",
        }
        end = "; v[t] = max(v[t], lowest)" if clipped else ""
        self.doc = (  # type: ignore[misc]
            f"Leaky integrate-and-fire neuron with several spikes in a time step: u[t] = alpha "
            f"u[t-1] + gain x[t]; v[t] = beta v[t-1] + u[t] + drive; s[t] = floor(v[t] / "
            f"v_threshold), from 0 to most; {after[reset]}{end}."
        )

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice; count the thresholds in the voltage; reset; clip."""
        u = a.scaled(s.current, p.alpha) + a.scaled(x.x, p.gain)
        v = a.scaled(s.voltage, p.beta) + u + p.drive
        count = a.counted(v, p.v_threshold, c.most)
        spent = v - count * p.v_reset
        after = a.reset(count >= 1, p.v_reset, v) if self.reset == "zero" else spent
        if self.clipped:
            after = a.raised_to(after, p.lowest)
        # the threshold that was reached last, or the next one: whichever is nearer
        above = v - count * p.v_threshold
        below = above - p.v_threshold
        halfway = a.where((count >= 1) & (above + below < 0), above, below)
        nearest = a.where(count >= c.most, above, halfway)
        variables = {"current": u, "voltage": v, "count": count, "nearest": nearest}
        return {"current": u, "voltage": after}, variables

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike as often as the threshold fits into the voltage."""
        return a.spikes_counted(v.count, v.nearest)


def counted_equations(
    parameters: tuple[Parameter, ...], states: tuple[State, ...]
) -> dict[tuple[str, bool], CountedLif]:
    """Register the equations, and return them by (reset, whether the voltage is clipped)."""
    kinds = itertools.product(("zero", "subtract"), (False, True))
    equations = {kind: CountedLif(parameters, states, *kind) for kind in kinds}
    for equation in equations.values():
        register_equation(equation)
    return equations
