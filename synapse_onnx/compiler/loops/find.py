"""Find the loop over time of a network: traces, the form that they have in common, and the checks.

A form is right only if it gives, at every traced size and at one that it was not made from, the
very terms that the network's own trace gives. So a step that is special (``if t == 7``), a window
that grows, or a number that happens to be T is refused, not guessed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler._trace import quiet
from synapse_onnx.compiler.axes import loops_over_time, resized
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.lengths import held_lengths
from synapse_onnx.compiler.loops.families import find_form
from synapse_onnx.compiler.loops.reading import Order, Reading
from synapse_onnx.compiler.loops.recognise import recognise
from synapse_onnx.compiler.loops.refusals import NoLoopError, UndrivenError
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.compiler.loops.rolled import Rolled
from synapse_onnx.compiler.loops.steps_taken import operator_without_steps
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.times import FirstSeen, Times, Undriven, first_seen
from synapse_onnx.compiler.loops.traces import LONGER, FixedLengthError, Traces
from synapse_onnx.compiler.loops.unroll import unrolled
from synapse_onnx.compiler.roundings import differing_output, largest
from synapse_onnx.errors import ExportError
from synapse_onnx.model.layout import has_time

__all__ = ["FixedLengthError", "find_loop"]

#: from the first step to the last; backwards; backwards with stacks turned around again; and loops
#: of both kinds
_ORDERS = (
    Order(),
    Order(backwards=True),
    Order(backwards=True, stacks_backwards=True),
    Order(both_ways=True),
)

#: the longest sequence that is run
_LONGEST = 400

#: recursion goes as deep as a network has operators in a row
_RECURSION = 100_000


def find_loop(network: nn.Module, inputs: Sequence[Tensor]) -> Rolled | None:
    """Return a module that computes what the network computes, with N open, and T where it is.

    Args:
        network: a frozen network, whose inputs are (N, C[, H, W], T) or have no time.
        inputs: example inputs.

    Returns:
        The module; None if the network does not loop over time.

    Raises:
        FixedLengthError: it takes one number of steps alone.
        ExportError: its steps have no common form; the line of the user's code is named.
    """
    with quiet(), eagerly(), _deep(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        if loops_over_time(network, inputs):
            return _found(Traces(network, inputs))
        steps = {x.shape[-1] for x in inputs if has_time(x.dim())}
        for length in held_lengths(network, lambda n: resized(inputs, n, 2), steps):
            with contextlib.suppress(ExportError):  # it is unrolled instead
                return _found(Traces(network, inputs, length))
    return None


def _found(traces: Traces) -> Rolled:
    failure: NoLoopError | None = None
    for order in _ORDERS:
        try:
            return _found_in(traces, order)
        except NoLoopError as error:
            failure = failure or error
    assert failure is not None
    if traces.runs(traces.steps) and not traces.runs(traces.steps + 1):
        raise FixedLengthError(f"forward() takes {traces.steps} steps at most") from failure
    place = f" at {failure.place}" if failure.place else ""
    raise ExportError(
        f"forward() loops over time, and its steps have no common form{place}: {failure}; a "
        f"model with open T holds one step; see 'How loops are found' in the documentation"
    ) from failure


def _found_in(traces: Traces, order: Order) -> Rolled:
    """Return the network whose loop was found in this order.

    Raises:
        NoLoopError: its steps have no common form.
    """
    pool = Pool()
    *sizes, other = traces.sizes
    readings = {size: traces.read(size, pool, order) for size in sizes}

    def shorter(size: Size) -> Reading:
        return traces.read(size, pool, order)

    try:
        form = find_form(readings, pool, None, shorter)
    except NoLoopError as error:
        is_undriven = isinstance(error, UndrivenError) and order == Order()
        if traces.has_sequence and not is_undriven:
            raise
        form = find_form(readings, pool, _first_seen(traces, pool, order), shorter)
    form.order = order
    name, place = operator_without_steps(form)
    if name:
        raise NoLoopError(f"{name} takes a number that changes from step to step", place)
    retime(form)
    readings[other] = traces.read(other, pool, order)
    for size, reading in readings.items():
        _check(unrolled(form, size, pool), reading, size)
    rolled = Rolled(
        form,
        recognise(form),
        [has_time(x.dim()) for x in traces.example],
        traces.names,
        traces.length,
    )
    for size in (sizes[0], other):
        _check_numbers(traces, rolled, size)
    rolled.looped.states.declare(rolled)
    # code may branch on the number of steps or samples, or at a late step
    for steps in (1, 2, 3, 4, LONGER):
        _check_numbers(traces, rolled, Size(steps, 1))
    if traces.steps <= _LONGEST:
        _check_numbers(traces, rolled, None)
    for loop in rolled.looped.loops.values():
        loop.records = False
    return rolled


def _first_seen(traces: Traces, pool: Pool, order: Order) -> dict[Size, Times]:
    """Return the times of terms that read no sequence, by shorter traces."""
    times: dict[Size, Times] = {}
    kind = Undriven if traces.has_sequence else FirstSeen
    for size in traces.sizes[:-1]:
        shorter = [Size(steps, size.batch) for steps in range(1, size.steps + 1)]
        readings = [traces.read(each, pool, order) for each in shorter]
        times[size] = kind(readings[-1], size, first_seen(readings))
    return times


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _check(found: Sequence[Any], reading: Reading, size: Size) -> None:
    """Compare a form that was unrolled again with a trace.

    Raises:
        NoLoopError: they differ.
    """
    expected = reading.outputs
    if len(found) != len(expected) or any(a is not b for a, b in zip(found, expected, strict=True)):
        raise NoLoopError(
            f"with {size.steps} steps of {size.batch} samples it computes something else than its "
            f"steps in shorter sequences: code looks at the number of the step, or of steps"
        )


def _check_numbers(traces: Traces, rolled: Rolled, size: Size | None) -> None:
    """Compare the outputs with those of the network itself, but for the rounding of sums.

    Where a rounding decides, as on a voltage at its threshold, neither is wrong: what comes after
    it in the same sample is not compared.

    Args:
        traces: the network.
        rolled: the network whose loop was found.
        size: the size of the inputs; None for the example.

    Raises:
        NoLoopError: they differ.
    """
    steps = traces.steps if size is None else size.steps
    inputs = traces.example if size is None else traces.inputs(size)
    try:
        expected = _flat(traces.network(steps)(*(x.clone() for x in inputs)))
    except Exception:  # of any class: a forward() may need more steps
        return
    try:
        with rolled.looped.running(steps):
            found = _flat(rolled(*(x.clone() for x in inputs)))
    except (RuntimeError, TypeError, IndexError) as error:  # an operator takes no such argument
        reason = str(error).strip().partition("\n")[0]
        raise NoLoopError(
            f"an operator does not take what changes with the step or the number of steps: {reason}"
        ) from error
    for i, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise NoLoopError(
                f"output {i} is {tuple(other.shape)} {other.dtype} instead of {tuple(one.shape)} "
                f"{one.dtype}"
            )
    which = differing_output(
        lambda given: _flat(traces.network(steps)(*(x.clone() for x in given))),
        inputs, expected, found,
    )  # fmt: skip
    if which is not None:
        far = float((expected[which].double() - found[which].double()).abs().max())
        raise NoLoopError(
            f"with {steps} steps, output {which} is not what the loop over steps gives, by up to "
            f"{far:.3g} of {largest(expected[which]):.3g}: code looks at the number of steps, or a "
            f"value is within a rounding of its threshold"
        )


def _flat(outputs: Any) -> list[Any]:
    return [x for x in torch.utils._pytree.tree_leaves(outputs) if x is not None]
