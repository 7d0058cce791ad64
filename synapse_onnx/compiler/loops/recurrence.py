"""One step of a loop that was found in a network: what it reads, computes and keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Fixed,
    Last,
    Leaf,
    Listed,
    Numbers,
    Phases,
    Reference,
    Stack,
)
from synapse_onnx.compiler.loops.groups import Group
from synapse_onnx.compiler.loops.numbers import STEP, Formula
from synapse_onnx.compiler.loops.whole_sequence import chosen, for_tensors
from synapse_onnx.ops import Recurrence

__all__ = ["TICK", "Loop"]

#: what a loop goes over that reads no sequence; its step does not read it either
TICK = Numbers(STEP, 1, False)


@dataclass
class _Frame:
    """What one step reads, and the values that it has computed so far."""

    states: Sequence[Tensor]
    slices: Sequence[Tensor]
    constants: Sequence[Tensor]
    batch: Any
    values: dict[Family, Any] = field(default_factory=dict)


_Read = Callable[[_Frame], Any]


class Loop(Recurrence):
    """One step of a group of families: a call with ``(*states, *slices, *constants)``.

    Attributes:
        states: (family, its value at the start, a whole value) of every state; a family of which a
            value of three steps ago is read has three.
        sequences: slots of which a step reads its own value, and numbers that change with it.
        constants: whole values that every step reads.
        outputs: the families whose sequences are returned.
    """

    def __init__(self, group: Group, path: str) -> None:
        super().__init__(path)
        self.families = group.families
        self.outputs = group.outputs
        self.states: list[tuple[Family, Any]] = []
        self.sequences: list[Any] = []
        self.constants: list[Any] = []
        self._following: list[Family | int] = []
        self._chains: dict[tuple[Any, ...], list[int]] = {}
        self._program = [(family, self._computed(family)) for family in self.families]
        if not self.sequences:  # a Scan takes its number of steps from one
            self.sequences.append(TICK)

    # -- where a step finds what it reads --------------------------------------------------------

    def _computed(self, family: Family) -> _Read:
        """Return what computes a family's value of a step."""
        op = family.node.op
        args = [self._reader(slot, family) for slot in family.node.args]
        kwargs = {n: self._reader(slot, family) for n, slot in family.node.kwargs.items()}

        if any(isinstance(slot, Formula) for slot in family.node.args):
            op = for_tensors(op)

        def compute(frame: _Frame) -> Any:
            return op(
                *(read(frame) for read in args), **{n: read(frame) for n, read in kwargs.items()}
            )

        values = {t: self._reader(slot, family) for t, slot in family.first.items()}
        return self._with_exceptions(compute, values, family)

    def _with_exceptions(self, read: _Read, values: Mapping[int, _Read], family: Family) -> _Read:
        """Read something else at these steps."""
        if not values:
            return read
        step = self._slice(Numbers.of(STEP, family))

        def with_exceptions(frame: _Frame) -> Any:
            result = read(frame)
            for t, other in values.items():
                result = torch.where(step(frame) == t, _like(other(frame), result), result)
            return result

        return with_exceptions

    def _reader(self, slot: Any, family: Family) -> _Read:
        if isinstance(slot, Listed):
            inner = [self._reader(each, family) for each in slot.slots]
            return lambda frame: [read(frame) for read in inner]
        if isinstance(slot, Phases):
            return self._in_turn(slot, family)
        if isinstance(slot, Reference) and slot.family.found() in self.families:
            return self._inner(slot)
        if isinstance(slot, Reference) or (isinstance(slot, Fixed) and slot.instead):
            return self._slice(slot)
        if isinstance(slot, Fixed):
            return self._constant(slot.value)
        if isinstance(slot, Formula):
            changes = slot.changes
            return self._slice(Numbers.of(slot, family)) if changes else self._formula(slot)
        return lambda _: slot

    def _in_turn(self, slot: Phases, family: Family) -> _Read:
        phase = self._slice(slot.numbers())
        values = {number: self._reader(each, family) for number, each in slot.known()}
        return lambda frame: chosen(
            phase(frame), {number: read(frame) for number, read in values.items()}
        )

    def _formula(self, formula: Formula) -> _Read:
        if formula.divisor is not None or formula.reads_steps:
            return self._tensor(formula)  # T is no number within a step
        return lambda frame: formula.at(0, frame.batch)

    def _constant(self, value: Any) -> _Read:
        if isinstance(value, list):
            inner = [self._constant(each) for each in value]
            return lambda frame: [read(frame) for read in inner]
        if isinstance(value, Formula):
            return self._formula(value)
        if not isinstance(value, Leaf | Apply | Stack | Last):
            return lambda _: value
        return self._tensor(value)

    def _tensor(self, value: Any) -> _Read:
        index = _index(self.constants, value)
        return lambda frame: frame.constants[index]

    def _slice(self, slot: Any) -> _Read:
        index = _index(self.sequences, slot)
        return lambda frame: frame.slices[index]

    def _inner(self, slot: Reference) -> _Read:
        """Read a family of the loop: of this step, or a state."""
        family = slot.family.found()
        late = {t: value for t, value in slot.instead.items() if t >= slot.delay}
        read: _Read
        if slot.delay:
            state = self._state(family, slot)
            read = lambda frame: frame.states[state]  # noqa: E731
        else:
            read = lambda frame: frame.values[family]  # noqa: E731
        values = {t: self._constant(value) for t, value in late.items()}
        return self._with_exceptions(read, values, family)

    def _state(self, family: Family, slot: Reference) -> int:
        """Return the index of the state that holds a family's value of some steps ago."""
        starts = [slot.instead.get(t) for t in range(slot.delay)]
        key = (family, slot.delay, *map(id, starts))
        if key not in self._chains:
            chain: list[int] = []
            for back, start in enumerate(reversed(starts)):
                self._following.append(family if back == 0 else chain[-1])
                chain.append(len(self.states))
                self.states.append((family, 0 if start is None else start))
            self._chains[key] = chain
        return self._chains[key][-1]

    # -- a step ----------------------------------------------------------------------------------

    def __call__(self, *tensors: Tensor, batch: Any = None) -> tuple[Tensor, ...]:
        """Return the states of the next step, and the outputs of this one."""
        states = tensors[: len(self.states)]
        slices = tensors[len(states) : len(states) + len(self.sequences)]
        constants = tensors[len(states) + len(slices) :]
        frame = _Frame(states, slices, constants, batch)
        for family, compute in self._program:
            frame.values[family] = compute(frame)
        following = [
            frame.values[each] if isinstance(each, Family) else states[each]
            for each in self._following
        ]
        return (*following, *(frame.values[family] for family in self.outputs))

    def blank(
        self,
        starts: Sequence[Tensor],
        sequences: Sequence[Tensor],
        constants: Sequence[Tensor],
        steps: Any,
        batch: Any,
    ) -> list[Tensor]:
        """Return tensors like the sequences of the outputs, whose values do not matter."""
        like = (*starts, *sequences, *constants)[0]
        return [
            like.new_empty([steps, *self.sizes(family, steps, batch)], dtype=family.dtype)
            for family in self.outputs
        ]

    def sizes(self, family: Family, steps: Any, batch: Any) -> list[Any]:
        """Return the shape of a family's value."""
        return [
            size.at(steps, batch) if isinstance(size, Formula) else size
            for size in family.shape or ()
        ]


def _index(values: list[Any], value: Any) -> int:
    """Return the index of an object in a list, to which it is added if it is new."""
    for i, each in enumerate(values):
        if each is value or (isinstance(value, Numbers) and each == value):
            return i
    values.append(value)
    return len(values) - 1


def _like(value: Any, other: Tensor) -> Any:
    return value.to(other.dtype) if isinstance(value, Tensor) else value
