"""The form of a network: which values belong to a step, and how one step leads to the next.

A network that loops over T steps is two kinds of things. *Whole* values exist once: an input, a
convolution over all steps, the stacked spikes. A *family* is a value that every step has: the
voltage, the spike. ``mem = beta * mem + x[t]; spk = mem > 1`` has the families ::

    product[t] = mul(beta, mem[t - 1]; at t = 0: zeros)
    mem[t]     = add(product[t], x[t])
    spk[t]     = gt(mem[t], 1)
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch

from synapse_onnx.compiler.loops.numbers import BATCH, Formula
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.terms import Size, Term

__all__ = [
    "Apply", "Entry", "Family", "Fixed", "Form", "Last", "Layer", "Leaf", "Listed", "Numbers",
    "Phases", "Reference", "Stack", "flat", "parts_of", "references_of", "same",
]  # fmt: skip

# -- whole values ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Leaf:
    """An input, a parameter or a constant."""

    term: Term


@dataclass(eq=False)
class Apply:
    """An operator. As a whole value its arguments are whole values, in a family slots of a step."""

    op: Any
    args: list[Any]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class Stack:
    """The values of a family at steps, stacked or joined along an axis.

    Attributes:
        slot: what is stacked.
        axis: the axis.
        joined: whether the values are joined along it, and not stacked.
        start: the first step.
        stride: how many steps it is from one value to the next.
    """

    slot: Any
    axis: int
    joined: bool = False
    start: int = 0
    stride: int = 1


@dataclass(eq=False)
class Last:
    """What a slot is at the last step; with a delay, it says what is read before."""

    slot: Reference | Phases


# -- what a step reads -----------------------------------------------------------------------------


@dataclass(eq=False)
class Reference:
    """The value of a family some steps ago.

    Attributes:
        family: the family.
        delay: how many steps ago; 0 for this step.
        instead: what is read at early steps instead, such as the initial state: step -> a whole
            value.
    """

    family: Family
    delay: int = 0
    instead: Mapping[int, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Fixed:
    """A whole value that is the same at every step, with exceptions at early steps."""

    value: Any
    instead: Mapping[int, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Listed:
    """Several slots, as one argument: ``cat([x[t], h])``."""

    slots: list[Any]


@dataclass(eq=False)
class Phases:
    """A slot for each remainder of the number of a step: ``a if t % 2 == 0 else b``.

    A family that one of them reads may have members at the steps of that phase alone. At the others
    it is computed from what is there, and nobody reads it.
    """

    slots: list[Any]

    def known(self) -> list[tuple[int, Any]]:
        """Return the slot of every remainder that a step has which reads it."""
        return [(phase, slot) for phase, slot in enumerate(self.slots) if slot is not None]

    def numbers(self) -> Numbers:
        """Return the remainders, for the values of the families that are read."""
        cycle = Formula.in_turn(range(len(self.slots)))
        families = [slot.family.found() for slot in flat(self) if isinstance(slot, Reference)]
        return Numbers.of(cycle, families[0]) if families else Numbers(cycle, 0, False)


@dataclass(frozen=True)
class Numbers:
    """A number that changes from step to step, for values of a family.

    Attributes:
        formula: the number.
        rank: number of axes of the family's values.
        batched: whether the first of these is the batch.
    """

    formula: Formula
    rank: int
    batched: bool

    @classmethod
    def of(cls, formula: Formula, family: Family) -> Numbers:
        """Return the numbers of a formula for a family's values."""
        shape = family.shape or []
        return cls(formula, len(shape), bool(shape) and shape[0] == BATCH)


@dataclass(eq=False)
class Entry:
    """How a family reads a whole value step by step: ``x[t]``, along an axis.

    Attributes:
        source: the sequence.
        axis: the axis.
        ahead: how many steps later it is read; the last steps read the last one again.
    """

    source: Any
    axis: int
    ahead: int = 0


@dataclass(eq=False)
class Layer:
    """How a family, or a whole value, is computed by a layer of this package.

    Attributes:
        path: path of the layer in the module.
        slot: the slot, or the whole value, that the layer reads.
        axes: number of axes that a synapse reads after those of steps and samples: 1 of (C,), 2 of
            (C, L), 3 of (C, H, W); 0 for a neuron, which takes all.
    """

    path: str
    slot: Any
    axes: int = 0


@dataclass(eq=False)
class Family:
    """A value that every step has.

    Attributes:
        members: its terms, by trace and step.
        node: an :class:`Apply` whose arguments are slots, or an :class:`Entry`.
        first: its value at early steps that are computed in another way: step -> a slot.
        shape: its sizes: numbers, or formulas of T and N; None of what is no tensor.
        dtype: its type.
        merged: the family that it turned out to be.
        number: the order in which families were made.
    """

    members: dict[tuple[Size, int], Term] = field(default_factory=dict)
    node: Any = None
    first: dict[int, Any] = field(default_factory=dict)
    shape: list[Any] | None = None
    dtype: torch.dtype | None = None
    merged: Family | None = None
    number: int = field(default_factory=itertools.count().__next__)

    def found(self) -> Family:
        """Return the family that this one is now."""
        family = self
        while family.merged is not None:
            family = family.merged
        return family

    def slots(self) -> list[Any]:
        """Return what a step of the family reads, lists taken apart."""
        if isinstance(self.node, Layer):
            return flat(self.node.slot)
        if not isinstance(self.node, Apply):
            return []
        slots: list[Any] = []
        for slot in (*self.node.args, *self.node.kwargs.values(), *self.first.values()):
            slots += flat(slot)
        return slots


def same(value: Any) -> Any:
    """Return a value as it is: the operator of a family that is one of several others."""
    return value


def flat(slot: Any) -> list[Any]:
    """Return the slots in a slot, which may be a list, or have phases."""
    if isinstance(slot, Listed | Phases):
        return [each for inner in slot.slots for each in flat(inner)]
    return [slot]


def parts_of(outputs: list[Any]) -> Iterator[Any]:
    """Yield every whole value, slot and family that outputs depend on, each once."""
    seen: set[int] = set()
    todo: list[Any] = list(outputs)
    while todo:
        value = todo.pop()
        if isinstance(value, Family):
            value = value.found()
        if isinstance(value, list):
            todo += value
        elif id(value) not in seen and isinstance(value, _PARTS):
            seen.add(id(value))
            yield value
            if isinstance(value, Family):
                todo += [*([value.node.source] if isinstance(value.node, Entry) else [])]
                todo += value.slots()
            elif isinstance(value, Reference):
                todo += [value.family, *value.instead.values()]
            elif isinstance(value, Fixed):
                todo += [value.value, *value.instead.values()]
            elif isinstance(value, Apply):
                todo += [*value.args, *value.kwargs.values()]
            elif isinstance(value, Stack | Last | Layer):
                todo += flat(value.slot)


def references_of(outputs: list[Any]) -> Iterator[Reference]:
    """Yield every reference that outputs depend on."""
    for value in parts_of(outputs):
        if isinstance(value, Reference):
            yield value


_PARTS = Leaf | Apply | Stack | Last | Layer | Family | Reference | Fixed | Listed


@dataclass(eq=False)
class Form:
    """A network whose loop over time was found.

    Attributes:
        outputs: its outputs, whole values.
        values: the values of parameters and constants.
        places: the line of the user's code that computes a term.
        paths: the module that computes a term.
        order: the order in which its steps go through time.
    """

    outputs: list[Any]
    values: Mapping[Term, Any]
    places: Mapping[Term, str]
    paths: Mapping[Term, str]
    order: Order = field(default_factory=Order)

    def path_of(self, families: Sequence[Family]) -> str:
        """Return the path of the module that computes most of some families; "" of none."""
        terms = (max(f.members.items(), key=itemgetter(0))[1] for f in families)
        paths = Counter(self.paths.get(term, "") for term in terms)
        return paths.most_common(1)[0][0]
