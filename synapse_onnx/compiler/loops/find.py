"""Find the loop over time of a network: traces, the form that they have in common, and the checks.

A form is right only if it gives, at every traced size and at one that it was not made from, the
very terms that the network's own trace gives. So a step that is special (``if t == 7``), a window
that grows, or a number that happens to be T is refused, not guessed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import named_states
from synapse_onnx.compiler._trace import quiet
from synapse_onnx.compiler.axes import loops_over_time, resized
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.lengths import held_lengths
from synapse_onnx.compiler.loops.families import find_form
from synapse_onnx.compiler.loops.form import Form
from synapse_onnx.compiler.loops.left_out import longest_period, orders_of
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.reading import Reading
from synapse_onnx.compiler.loops.recognise import recognise
from synapse_onnx.compiler.loops.refusals import NoLoopError, UndrivenError
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.compiler.loops.rolled import Rolled
from synapse_onnx.compiler.loops.steps_taken import operator_without_steps
from synapse_onnx.compiler.loops.synapses import put_synapses
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.times import FirstSeen, Times, Undriven, first_seen
from synapse_onnx.compiler.loops.traces import LONGER, PERIODS, SHORTEST, FixedLengthError, Traces
from synapse_onnx.compiler.loops.unroll import unrolled
from synapse_onnx.compiler.roundings import differing_output, largest
from synapse_onnx.errors import ExportError
from synapse_onnx.model.layout import has_time
from synapse_onnx.neuron.stepped import steps_in_line

__all__ = ["FixedLengthError", "find_loop"]

#: from the first step to the last; backwards; backwards with stacks turned around again; and loops
#: of both kinds
_ORDERS = (
    Order(),
    Order(backwards=True),
    Order(backwards=True, stacks_backwards=True),
    Order(both_ways=True),
)

#: orders in which steps read their sequences ahead
_AHEAD = tuple(Order(ahead=steps) for steps in range(1, 4))

#: the longest sequence that is run
_LONGEST = 400

#: recursion goes as deep as a network has operators in a row
_RECURSION = 100_000


def find_loop(
    network: nn.Module, inputs: Sequence[Tensor], *, streaming: bool = False
) -> Rolled | None:
    """Return a module that computes what the network computes, with N open, and T where it is.

    Args:
        network: a frozen network, whose inputs are (N, C[, H, W], T) or have no time.
        inputs: example inputs.
        streaming: whether it is to keep earlier steps, such as those of a causal convolution.

    Returns:
        The module; None if the network does not loop over time, and keeps no steps.

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
        if streaming and not any(True for _ in named_states(network)):
            with contextlib.suppress(ExportError):  # chunks tell what it does
                found = _found(Traces(network, inputs))
                return found if found.looped.states.kept else None
    return None


@steps_in_line()
def _found(traces: Traces) -> Rolled:
    try:
        return _found_by(traces)
    except ExportError:
        if not traces.folds:
            raise
        with contextlib.suppress(ExportError):
            return _found_by(traces.unfolded())
        raise


def _found_by(traces: Traces) -> Rolled:
    for order in _shorter(traces):
        with contextlib.suppress(NoLoopError, ExportError):  # the others say more
            return _found_in(traces, order)
    failure: NoLoopError | None = None
    for order in _ORDERS:
        try:
            return _found_in(traces, order)
        except NoLoopError as error:
            failure = failure or error
    assert failure is not None
    for order, least in _rarer(traces):
        with contextlib.suppress(NoLoopError, ExportError):
            return _found_in(traces, order, least)
    if traces.runs(traces.steps) and not traces.runs(traces.steps + 1):
        raise FixedLengthError(f"forward() takes {traces.steps} steps at most") from failure
    place = f" at {failure.place}" if failure.place else ""
    raise ExportError(
        f"forward() loops over time, and its steps have no common form{place}: {failure}; a "
        f"model with open T holds one step; see 'How loops are found' in the documentation"
    ) from failure


def _shorter(traces: Traces) -> list[Order]:
    """Return the orders of loops that may leave steps out, as the network's traces suggest."""
    if not traces.has_sequence:
        return []
    pool, sizes = Pool(), traces.sizes[:3]
    readings = {size: traces.read(size, pool, Order()) for size in sizes[:1]}
    if not orders_of(readings):
        return []
    return orders_of(readings | {size: traces.read(size, pool, Order()) for size in sizes[1:]})


def _rarer(traces: Traces) -> Iterator[tuple[Order, int]]:
    """Yield orders that few loops have, and how many steps are traced at least."""
    if traces.has_sequence:
        for order in _AHEAD:
            yield order, SHORTEST
        if traces.affords_periods:
            yield Order(), PERIODS


def _found_in(traces: Traces, order: Order, least: int = SHORTEST) -> Rolled:
    """Return the network whose loop was found in this order, by traces of so many steps and more.

    A neuron that was recognised, or a synapse of integers, gives other numbers than the network in
    rare cases, as of infinite voltages. The loop stays as it is then.

    Raises:
        NoLoopError: its steps have no common form.
    """
    form, sizes = _form_in(traces, order, least)
    neurons, synapses = recognise(form), put_synapses(form)
    try:
        return _checked(traces, form, {**neurons, **synapses}, sizes)
    except NoLoopError:
        if not neurons and not synapses:
            raise
    form, sizes = _form_in(traces, order, least)
    if neurons and synapses:
        try:
            return _checked(traces, form, recognise(form), sizes)
        except NoLoopError:
            form, sizes = _form_in(traces, order, least)
    return _checked(traces, form, {}, sizes)


def _form_in(traces: Traces, order: Order, least: int) -> tuple[Form, tuple[Size, Size]]:
    """Return the form in this order, and the sizes of the first and the last trace.

    Raises:
        NoLoopError: the steps have no common form.
    """
    pool = Pool()
    *traced, other = traces.sizes_of(order, least)
    readings = {_taken(size, order): traces.read(size, pool, order) for size in traced}
    times = {size: Times(reading, size, order.ahead) for size, reading in readings.items()}

    def shorter(size: Size) -> Reading:
        return traces.read(size, pool, order)

    try:
        form = find_form(readings, pool, times, shorter if order.takes_all else None)
    except NoLoopError as error:
        is_undriven = isinstance(error, UndrivenError) and (order, least) == (Order(), SHORTEST)
        if traces.has_sequence and not is_undriven:
            raise
        form = find_form(readings, pool, _first_seen(traces, pool, order), shorter)
    form.order = order
    name, place = operator_without_steps(form)
    if name:
        raise NoLoopError(f"{name} takes a number that changes from step to step", place)
    retime(form)
    readings[_taken(other, order)] = traces.read(other, pool, order)
    for size, reading in readings.items():
        _check(unrolled(form, size, pool), reading, size)
    return form, (traced[0], other)


def _checked(
    traces: Traces, form: Form, layers: Mapping[str, nn.Module], sizes: Sequence[Size]
) -> Rolled:
    """Return a form as a module whose outputs are those of the network.

    Raises:
        NoLoopError: they are others.
    """
    timed, order = [has_time(x.dim()) for x in traces.example], form.order
    rolled = Rolled(form, layers, timed, traces.names, traces.length)
    for size in sizes:
        _check_numbers(traces, rolled, size)
    rolled.looped.states.declare(rolled)
    # code may branch on the number of steps or samples, or at a late step
    lengths = {1, 2, 3, 4, LONGER} | {order.length(2, residue) for residue in range(order.stride)}
    lengths |= set(range(LONGER, LONGER - longest_period(form), -1))  # it may end in any phase
    for steps in sorted(lengths):
        if order.count(steps):  # a Scan takes a step at least
            _check_numbers(traces, rolled, Size(steps, 1))
        elif order.left_out and traces.runs(steps):  # it reads late, and leaves nothing out
            raise NoLoopError(f"with {steps} steps nothing is left of its loop")
    if traces.steps <= _LONGEST:
        _check_numbers(traces, rolled, None)
    for loop in rolled.looped.loops.values():
        loop.records = False
    return rolled


def _taken(size: Size, order: Order) -> Size:
    """Return the size of what a loop takes of sequences of a size."""
    return Size(order.count(size.steps), size.batch)


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
    except ZeroDivisionError as error:
        raise NoLoopError(f"with {steps} steps a number of a step is divided by 0") from error
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
