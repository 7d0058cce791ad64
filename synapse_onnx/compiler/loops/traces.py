"""Traces of a network at a few sizes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from synapse_onnx._layer import Deployable, argument_names
from synapse_onnx.compiler import copies
from synapse_onnx.compiler._trace_errors import running_modules, trace_error
from synapse_onnx.compiler.axes import resized
from synapse_onnx.compiler.counting import count_operators
from synapse_onnx.compiler.frameworks import in_plain_torch
from synapse_onnx.compiler.lengths import Length
from synapse_onnx.compiler.loops.both_ways import turned_around
from synapse_onnx.compiler.loops.in_place import changes_left, without_changes
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.program import Program, of_export
from synapse_onnx.compiler.loops.reading import Reading, read
from synapse_onnx.compiler.loops.recorder import RECURRENT, Reads, record
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.errors import ExportError, SynapseError
from synapse_onnx.model.layout import has_time

__all__ = ["LONGER", "PERIODS", "SHORTEST", "FixedLengthError", "Traces"]

aten = torch.ops.aten

#: the first length that is traced: longer than most delays
SHORTEST = 5

#: the first length that shows twice what comes every tenth step, after the first ones
PERIODS = 23

#: how many steps are left over at the end of each length, if a loop leaves steps out
_RESIDUES = (-1, 0, 1, 2)

#: a length beyond those that are traced
LONGER = 24

#: operators that the longest trace has at most, if a shorter one is enough
_OPERATORS = 2000


class FixedLengthError(ExportError):
    """A network runs one number of steps alone."""


class Traces:
    """Traces of a network at a few sizes; each is made once, and read in every order.

    Args:
        network: the network.
        inputs: example inputs.
        length: the number of steps, if the network holds it.

    Attributes:
        example: the example inputs.
        length: the number of steps, if the network holds it.
        steps: the number of steps of the example.
        has_sequence: whether an input has time.
        sizes: those of a loop over all steps: see :meth:`sizes_of`.
    """

    def __init__(
        self, network: nn.Module, inputs: Sequence[Tensor], length: Length | None = None
    ) -> None:
        self._network, self._inputs = network, inputs
        self.example = list(inputs)
        self.length = length
        timed = [x.shape[-1] for x in inputs if has_time(x.dim())]
        self.has_sequence = bool(timed)
        self.steps: int = max(timed) if length is None else length.value
        self._records = True
        self._folds, self._may_fold = False, True
        #: whether changes are written as new values while a trace is made
        self._renews = False
        self._taken = self._sizes_taken()
        self._sizes: dict[Any, list[Size]] = {}
        self.sizes = self.sizes_of(Order())
        self._programs: dict[Size, Program] = {}

    @property
    def folds(self) -> bool:
        """Whether changes became constants that would be states in other traces."""
        return self._folds and self._may_fold

    def unfolded(self) -> Traces:
        """Return traces in which what changes step by step is a state: ``self.decays *= 0.9``."""
        traces = Traces(self._network, self._inputs, self.length)
        traces._may_fold = False
        return traces

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs; none if they have none."""
        names = argument_names(self._network)[: len(self.example)]  # others have defaults
        return tuple(names) if len(names) == len(self.example) else ()

    def network(self, steps: int) -> nn.Module:
        """Return a copy of the network, for inputs of so many steps."""
        if self.length is None:
            return copies.copied(self._network)
        return self.length.given(self._network, steps)

    def inputs(self, size: Size) -> list[Tensor]:
        """Return the example inputs in another size."""
        return resized(self.example, *size)

    def read(self, size: Size, pool: Pool, order: Order) -> Reading:
        """Return the terms of the trace of a size.

        Raises:
            FixedLengthError: the network does not run this size.
            ExportError: it cannot be traced, or read.
        """
        if size not in self._programs:
            self._programs[size] = self._traced(size)
        try:
            reading = read(self._programs[size], pool, size.steps, order)
            return turned_around(reading, pool, size.steps) if order.both_ways else reading
        except (SynapseError, NoLoopError):
            raise
        except Exception as error:  # of torch's, where a size is a symbol that has no value
            raise trace_error(error, ()) from error

    def _traced(self, size: Size) -> Program:
        program = self._folded(size) if self._folds else self._recorded(size)
        if program is not None:
            return program
        try:
            return self._exported(size)
        except ExportError:
            program = self._folded(size)
            if program is None:
                raise
            self._folds, self._may_fold = True, False  # there is no other trace
            return program

    def _folded(self, size: Size) -> Program | None:
        """Return a trace on numbers with constants where code changes what follows from parameters.

        A second trace has them: which changes cannot be rewritten, the first one tells.
        """
        folded: set[int] = set()
        with contextlib.suppress(Exception), in_plain_torch():
            for _ in range(2):
                program = self._record(size, folded)
                calls = {node.meta["call"] for node in changes_left(program.graph)}
                if 0 in calls:  # of what depends on inputs
                    return None
                if not calls:
                    return program if _is_functional(program.graph) else None
                folded |= calls
        return None

    def _recorded(self, size: Size) -> Program | None:
        """Return a trace on numbers; None if they may decide what it is, or the network fails."""
        if not self._records:
            return None
        with contextlib.suppress(Exception), in_plain_torch():  # torch.export says why
            if self._renews:
                return self._record(size, changes=False)
            program = self._record(size)
            if _is_functional(program.graph):
                return program
            folded = self._folded(size) if self._may_fold else None  # weight.data *= mask
            if folded is not None:
                self._folds = True
                return folded
            self._renews = True
            return self._record(size, changes=False)
        self._records = False  # other sizes would not be recorded either
        return None

    def _record(self, size: Size, folded: Container[int] = (), *, changes: bool = True) -> Program:
        copied = _with_numbers(self.network(size.steps))
        with running_modules(copied) as running:
            return record(copied, self.inputs(size), running, folded, changes=changes)

    def _exported(self, size: Size) -> Program:
        copied = _with_numbers(self.network(size.steps))
        with running_modules(copied) as running, in_plain_torch():
            try:
                return _program(copied, tuple(self.inputs(size)))
            except SynapseError:
                raise
            except Exception as error:  # the tracer raises errors of any class
                if not self._operators(size):
                    raise FixedLengthError(
                        f"forward() does not run {size.steps} steps of {size.batch} samples"
                    ) from error
                raise trace_error(error, running) from error

    def runs(self, steps: int) -> bool:
        """Whether the network takes so many steps."""
        return self._operators(Size(steps, 2)) > 0

    def _operators(self, size: Size) -> int:
        """Return how many operators the network runs; 0 if it fails."""
        return count_operators(self.network(size.steps), self.inputs(size)) or 0

    @property
    def affords_periods(self) -> bool:
        """Whether traces of more steps, which show what does not come at every one, are short."""
        few, more = (self._operators(Size(t, 2)) for t in (SHORTEST, SHORTEST + 10))
        return (more - few) * PERIODS < 4 * 10 * _OPERATORS

    def sizes_of(self, order: Order, least: int = SHORTEST) -> list[Size]:
        """Return three lengths, another batch size, and one size to check with, for an order.

        The loop takes so many steps at least. None of them is one of anything else: a kernel of 5
        channels is not a loop of 5 steps.
        """
        key = (order.start, order.stride, order.left_out, least)
        if key not in self._sizes:
            self._sizes[key] = self._found_sizes(order, least)
        return self._sizes[key]

    def _found_sizes(self, order: Order, least: int) -> list[Size]:
        # one after the other: a last value is found by those of sequences shorter by a step
        first = next(
            n
            for n in itertools.count(least)
            if self._taken.isdisjoint(_with_lengths(order, range(n, n + 3)))
        )
        taken = self._taken | _with_lengths(order, range(first, first + 3))
        lengths = [order.length(first + i, _RESIDUES[i]) for i in range(3)]
        # as long as the example and what verify makes of it, if the trace does not get too long
        few, more = (self._operators(Size(t, 2)) for t in lengths[:2])
        longest = order.count(max(LONGER, first + 10 * (least > SHORTEST), 8 + self.steps))
        longest = max(first + 3, min(longest, _OPERATORS // max(more - few, 1)))
        free = (n for n in itertools.count(longest) if taken.isdisjoint(_with_lengths(order, [n])))
        # what comes every tenth step comes once more there
        with_other = lengths[1] if least == SHORTEST else order.length(next(free))
        check = order.length(next(free), _RESIDUES[3])
        batches = (n for n in itertools.count(2) if n not in taken | {check, with_other})
        other, usual, third = (next(batches) for _ in range(3))
        sizes = [Size(length, usual) for length in lengths]
        return [*sizes, Size(with_other, other), Size(check, third)]

    def _sizes_taken(self) -> set[int]:
        """Return the sizes of all axes in the network, and find out whether it can be recorded."""
        taken = {
            size
            for tensor in (*nn.Module.parameters(self._network), *self._network.buffers())
            for size in tensor.shape
        }
        for x in self.example:
            taken.update(x.shape)  # the example's own T, too: longer traces tell more
        inputs = self.inputs(Size(2, 1))
        shapes = _Shapes(inputs)
        # an axis is open only if the network runs with it, which a later trace shows
        with in_plain_torch(), shapes, contextlib.suppress(Exception):
            self.network(2)(*inputs)
        self._records = not shapes.reads.any
        return taken | shapes.seen


def _with_lengths(order: Order, counts: Iterable[int]) -> set[int]:
    """Return numbers of steps, and the lengths of sequences of which so many are taken."""
    return {
        size
        for count in counts
        for size in (count, *(order.length(count, residue) for residue in range(order.stride)))
    }


class _Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the sizes of all axes of all values, and looks for numbers that code reads."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()
        self.reads = Reads(inputs)

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.reads.see(func, args, kwargs or {}, result)
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.seen.update(value.shape)
        return result


def _program(network: nn.Module, tensors: tuple[Tensor, ...]) -> Program:
    """Trace a network; the program has no operators that change their arguments in place."""
    program = torch.export.export(network, tensors, strict=False)
    if not _is_functional(program.graph):
        program = program.run_decompositions(dict(RECURRENT))  # takes longer than the trace
    return of_export(program)


def _is_functional(graph: torch.fx.Graph) -> bool:
    """Whether a graph has, or is rewritten to have, no loops within operators and no changes."""
    return not any(node.target in RECURRENT for node in graph.nodes) and without_changes(graph)


def _with_numbers(network: nn.Module) -> nn.Module:
    """Turn whole numbers in buffers into attributes: code branches on them.

    snnTorch's ``if self.reset_mechanism_val == 0`` reads a tensor, which a tracer refuses.
    """
    for module in nn.Module.modules(network):
        if isinstance(module, Deployable):  # ours take tensors
            continue
        for name, value in list(module._buffers.items()):
            if (
                value is not None
                and value.numel() == 1
                and not value.dtype.is_floating_point
                and name != "num_batches_tracked"
            ):
                del module._buffers[name]
                module.__dict__[name] = value.item()
    return network
