"""What the samples of a comparison reached: which inputs were active, which neurons fired.

A layer that is silent in every sample is equal on both sides whatever its weights are, and so is
one that fires at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Coverage", "gaps"]


@dataclass(frozen=True)
class Coverage:
    """What was reached of one input, layer or output, in all samples together.

    Attributes:
        name: name of the input or output, or path of the layer.
        kind: "input", "output", or class of the layer.
        neurons: number of its neurons (channels, pixels).
        active: neurons that were not zero at some step of some sample.
        saturated: whether every neuron was active at every step of every sample, which shows of a
            layer that spikes no more than silence does.
    """

    name: str
    kind: str
    neurons: int
    active: int
    saturated: bool = False

    @property
    def gap(self) -> str:
        """What keeps the samples from testing it: "never active", or "always active"; or ""."""
        if not self.active:
            return "never active"
        return "always active" if self.saturated else ""

    def __str__(self) -> str:
        return f"{self.name} {self.active}/{self.neurons}"


def gaps(coverage: Sequence[Coverage]) -> str:
    """Say what was not exercised, for example "2 layers never active: conv, pool"; or ""."""
    kinds = {"input": "input", "output": "output"}
    found: dict[tuple[str, str], list[str]] = {}
    for entry in coverage:
        if entry.gap:
            found.setdefault((kinds.get(entry.kind, "layer"), entry.gap), []).append(entry.name)
    return "; ".join(_gap(what, gap, names) for (what, gap), names in found.items())


def _gap(what: str, gap: str, names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} {what}{'s' * (len(names) > 1)} {gap}: {', '.join(names)}"
