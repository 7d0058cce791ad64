"""What the samples of a comparison reached: which inputs were active, which neurons fired.

A layer that is silent in every sample is equal on both sides whatever its weights are, and so is
one that fires at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["BranchCoverage", "Coverage", "StateRange", "branches_taken", "gaps", "largest_states"]

#: names of branches in the function bodies -> what a reader knows them as
_WORDS = {"narrow": "32 bits", "wide": "64 bits", "single": "one step", "several": "several steps"}


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


@dataclass(frozen=True)
class BranchCoverage:
    """Whether a branch of a function body was taken, as that of the loop in 32 bits or in 64.

    Attributes:
        op: name of the op.
        name: names of the branches that it is in and its own, such as ``graded.wide``.
        taken: whether any input took it: a sample, or a generated one.
        by_samples: whether a sample did.
    """

    op: str
    name: str
    taken: bool
    by_samples: bool

    def __str__(self) -> str:
        parts = [_WORDS.get(part, part).replace("_", " ") for part in self.name.split(".")]
        return f"{self.op} ({', '.join(parts)})"


@dataclass(frozen=True)
class StateRange:
    """How large a state of a neuron in fixed point became in the samples.

    Attributes:
        layer: path of the neuron.
        state: name of the state, such as "voltage".
        largest: largest magnitude, in the unit of the threshold.
        bound: up to which it fits, in the same unit. A state of the regime "slayer" that may pass
            it is computed in 64 bits; one of "loihi" is cut to 24 bits, as on the chip.
    """

    layer: str
    state: str
    largest: float
    bound: float

    def __str__(self) -> str:
        return f"{self.state} {self.largest / self.bound:.2g}"


def largest_states(ranges: Sequence[StateRange]) -> list[str]:
    """Say how large states became, as parts of their bounds."""
    if not ranges:
        return []
    layers: dict[str, list[str]] = {}
    for one in ranges:
        layers.setdefault(one.layer, []).append(str(one))
    parts = [f"{layer} {', '.join(states)}" for layer, states in layers.items()]
    return [f"largest states, as parts of 2**23 units: {'; '.join(parts)}"]


def branches_taken(branches: Sequence[BranchCoverage]) -> list[str]:
    """Say which branches were taken by the samples, by generated inputs alone, and by none.

    A branch that holds others is left out: one of these was taken with it.
    """
    holders = {(b.op, b.name.rpartition(".")[0]) for b in branches}
    branches = [b for b in branches if (b.op, b.name) not in holders]
    told = (
        ("branches taken by the samples", [b for b in branches if b.by_samples]),
        ("by generated inputs alone", [b for b in branches if b.taken and not b.by_samples]),
        ("never taken", [b for b in branches if not b.taken]),
    )
    return [f"{what}: {', '.join(map(str, which))}" for what, which in told if which]


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
