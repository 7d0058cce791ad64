"""A loop over time as one operator of torch: first states and sequences in, sequences out.

The tracer sees one opaque operator, whatever the number of steps; the exporter puts an ONNX Scan in
its place. In torch it is a loop over :meth:`Recurrence.__call__`, which is one step.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._contiguous import blank_like, contiguous_results

__all__ = ["Example", "LoopRun", "Recurrence", "loop_of", "loops_seen", "recurrence"]


@dataclass(frozen=True)
class Example:
    """What a run of a loop got at its first step: states, slices and constants."""

    tensors: tuple[Tensor, ...]
    batch: int


class Recurrence:
    """One step of a loop: a call with ``(*states, *slices, *constants, batch=)``.

    A step returns the states of the next one, then its outputs.

    Attributes:
        path: path of the module that computes it, "" if there is none.
        label: what its node is called after the path.
        users: whether its step is code of the user's, as it stands.
        key: its number, an attribute of the operator.
        states, sequences, outputs: as many entries as the step has of each.
        records: whether :attr:`runs` grows.
        runs: examples of runs in torch.
    """

    _keys = itertools.count()

    label = "Scan"
    users = False
    states: Sequence[Any]
    sequences: Sequence[Any]
    outputs: Sequence[Any]

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.key = next(Recurrence._keys)
        self.records = True
        self.runs: list[Example] = []
        _loops[self.key] = self

    def __deepcopy__(self, _: Any) -> Recurrence:
        return self  # its key is that of one object

    def examples(self) -> list[Example]:
        """Return what its steps get, for batches of two sizes."""
        return self.runs[:2]

    def check(self) -> None:
        """Raise an InputError if the code of a step does more than it returns."""

    @property
    def name(self) -> str:
        """Name of its node, as long as no other node has it."""
        return "/".join(filter(None, (self.path, self.label)))

    def __call__(self, *tensors: Tensor, batch: Any = None) -> tuple[Tensor, ...]:
        """Return the states of the next step, and the outputs of this one."""
        raise NotImplementedError

    def blank(
        self,
        starts: Sequence[Tensor],
        sequences: Sequence[Tensor],
        constants: Sequence[Tensor],
        steps: Any,
        batch: Any,
    ) -> list[Tensor]:
        """Return tensors like the sequences of the outputs, whose values do not matter."""
        raise NotImplementedError

    def run(
        self,
        starts: Sequence[Tensor],
        sequences: Sequence[Tensor],
        constants: Sequence[Tensor],
        steps: int,
        batch: int,
    ) -> list[Tensor]:
        """Return the sequences of the outputs, then the states after the last step."""
        if self.records:
            first = (*starts, *(x[0] for x in sequences), *constants)
            self.runs.append(Example(tuple(x.detach().clone() for x in first), batch))
        states = tuple(starts)
        rows: list[tuple[Tensor, ...]] = []
        for t in range(steps):
            results = self(*states, *(x[t] for x in sequences), *constants, batch=batch)
            states = results[: len(states)]
            rows.append(results[len(states) :])
        if rows:
            outputs = [torch.stack(list(column)) for column in zip(*rows, strict=True)]
        else:
            outputs = self.blank(starts, sequences, constants, steps, batch)
        returned = [*outputs, *(state.clone() for state in states)]
        for seen in _seen:
            seen.append(LoopRun(self, starts, sequences, constants, steps, batch, returned))
        return returned


@dataclass(frozen=True)
class LoopRun:
    """A run of a loop in torch: the arguments of :meth:`Recurrence.run`, and what it returned."""

    loop: Recurrence
    starts: Sequence[Tensor]
    sequences: Sequence[Tensor]
    constants: Sequence[Tensor]
    steps: int
    batch: int
    returned: Sequence[Tensor] = ()

    def with_values(self, tensors: Sequence[Tensor]) -> LoopRun | None:
        """Return the same run from other first states and sequences; None if they do not fit."""
        own = [*self.starts, *self.sequences]
        if [(x.shape, x.dtype) for x in own] != [(x.shape, x.dtype) for x in tensors]:
            return None
        states = len(self.starts)
        return replace(self, starts=tensors[:states], sequences=tensors[states:])

    @torch.no_grad()
    def results(self) -> list[Tensor]:
        """Run it once more."""
        return self.loop.run(self.starts, self.sequences, self.constants, self.steps, self.batch)


#: who sees the loops that run
_seen: list[list[LoopRun]] = []


@contextlib.contextmanager
def loops_seen() -> Iterator[list[LoopRun]]:
    """Collect the loops that run, in their order."""
    runs: list[LoopRun] = []
    _seen.append(runs)
    try:
        yield runs
    finally:
        _seen.remove(runs)


_loops: weakref.WeakValueDictionary[int, Recurrence] = weakref.WeakValueDictionary()


def loop_of(key: int) -> Recurrence:
    """Return a loop by its number."""
    return _loops[key]


@torch.library.custom_op("synapse_loops::recurrence", mutates_args=())
@contiguous_results
def recurrence(
    starts: list[Tensor],
    sequences: list[Tensor],
    constants: list[Tensor],
    steps: int,
    batch: int,
    key: int,
) -> list[Tensor]:
    """Run a loop: see :meth:`Recurrence.run`."""
    return loop_of(key).run(starts, sequences, constants, steps, batch)


@recurrence.register_fake
def _(
    starts: list[Tensor],
    sequences: list[Tensor],
    constants: list[Tensor],
    steps: int,
    batch: int,
    key: int,
) -> list[Tensor]:
    outputs = loop_of(key).blank(starts, sequences, constants, steps, batch)
    return [*outputs, *map(blank_like, starts)]
