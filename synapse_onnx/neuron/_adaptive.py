"""What neurons with an adaptive threshold share: its equation, parameters and constants.

th[t] = threshold + (1 - threshold_decay) (th[t-1] - threshold); r[t] = (1 - refractory_decay)
r[t-1]; where the neuron spikes, threshold_step is added to th and 2 th to r. It spikes where its
membrane reaches th[t] + r[t]. Source: lava-dl, ``slayer/neuron/dynamics/adaptive_threshold.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from synapse_onnx.neuron import base
from synapse_onnx.ops import Equation, Parameter, State

__all__ = ["Adapting", "Adaptive", "adaptive_params"]


def adaptive_params(device_params: dict[str, Any], scale: int, p_scale: int) -> dict[str, float]:
    """Translate Loihi's parameters (vThStep, thDecay, refDecay) to constructor arguments."""
    return {
        "threshold_step": device_params.get("vThStep", device_params["vThMant"]) / scale,
        "threshold_decay": device_params["thDecay"] / p_scale,
        "refractory_decay": device_params["refDecay"] / p_scale,
    }


class Adapting(Equation):
    """An equation with an adaptive threshold; its tables follow those of the membrane."""

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("threshold_decay", "fraction of the added threshold lost every step"),
        Parameter("refractory_decay", "fraction of the refractory response lost every step"),
    )
    states: ClassVar[tuple[State, ...]] = (
        State("threshold", "adaptive threshold", start="base_threshold"),
        State("refractory", "refractory response, added to the threshold"),
    )
    traces: ClassVar[tuple[str, ...]] = ("threshold", "refractory")
    memory: ClassVar[Mapping[str, str]] = {
        "threshold": "threshold_decay", "refractory": "refractory_decay",
    }  # fmt: skip
    constants = ("base_threshold", "threshold_step")
    samples: ClassVar[Mapping[str, float]] = {"base_threshold": 0.5, "threshold_step": 0.25}

    def recover(self, a: Any, p: Any, s: Any, c: Any) -> tuple[Any, Any]:
        """Let threshold and refractory response decay by one step; return both."""
        threshold = a.scaled(s.threshold - c.base_threshold, p.threshold_decay) + c.base_threshold
        return threshold, a.scaled(s.refractory, p.refractory_decay)

    def adapt(self, a: Any, fired: Any, threshold: Any, refractory: Any, c: Any) -> dict[str, Any]:
        """Return threshold and refractory response after the spikes of a step."""
        return {
            "threshold": a.raised(fired, c.threshold_step, threshold),
            "refractory": a.raised(fired, threshold * 2, refractory),
        }

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Bound both, of a neuron that spikes at every step."""
        base_threshold = b.size(c.base_threshold)
        added = b.filtered(
            s.threshold + base_threshold, b.size(c.threshold_step), p.threshold_decay
        )
        threshold = base_threshold + added
        refractory = b.filtered(s.refractory, threshold * 2, p.refractory_decay)
        return {"threshold": threshold, "refractory": refractory}


class Adaptive(base.Neuron):
    """A neuron with an adaptive threshold: threshold_step is a constant of its equation."""

    threshold_step: float

    def as_readout(self) -> None:
        """Never spike: the threshold is one that no voltage reaches."""
        super().as_readout()
        self._threshold = float(1 << 40)

    def constants(self) -> dict[str, float]:
        """Return threshold and threshold_step, as the equation takes them."""
        if self.regime == "float":
            return {"base_threshold": self.threshold, "threshold_step": self.threshold_step}
        return {
            "base_threshold": int(self.threshold * self.s_scale),
            "threshold_step": int(self.threshold_step * self.s_scale),
        }

    @property
    def v_th_step(self) -> int:
        """threshold_step as Loihi takes it: an integer in units of 1 / scale."""
        return int(self.threshold_step * self.w_scale)

    def _device_params(self) -> dict[str, Any]:
        return {
            **super()._device_params(),
            "thDecay": self._integer("threshold_decay"),
            "refDecay": self._integer("refractory_decay"),
            "vThStep": self.v_th_step,
        }

    def describe(self) -> dict[str, Any]:
        """Return the description of every neuron, and threshold_step."""
        return {**super().describe(), "threshold_step": self.threshold_step}
