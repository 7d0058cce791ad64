"""Find the loop over time of a network: traces, the form that they have in common, and the checks.

A form is right only if it gives, at every traced size and at one that it was not made from, the
very terms that the network's own trace gives. So a step that is special (``if t == 7``), a window
that grows, or a number that happens to be T is refused, not guessed.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from synapse_onnx._layer import Deployable, argument_names
from synapse_onnx.compiler import copies
from synapse_onnx.compiler._trace import quiet
from synapse_onnx.compiler._trace_errors import running_modules, trace_error
from synapse_onnx.compiler.axes import count_operators, resized
from synapse_onnx.compiler.frameworks import in_plain_torch
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.loops.families import NoLoopError, find_form
from synapse_onnx.compiler.loops.reading import Order, Reading, read
from synapse_onnx.compiler.loops.recognise import recognise
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.compiler.loops.rolled import Rolled
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.unroll import unrolled
from synapse_onnx.errors import ExportError, SynapseError
from synapse_onnx.model.layout import has_time

__all__ = ["FixedLengthError", "find_loop"]

#: the first length that is traced: longer than most delays
_SHORTEST = 5

#: float32 sums in another order, relative to the largest value
_ROUNDING = 1e-4

#: from the first step to the last; backwards; and backwards with stacks turned around again
_ORDERS = (Order(), Order(backwards=True), Order(backwards=True, stacks_backwards=True))

#: a length beyond those that are traced, and the longest that is run
_LONGER, _LONGEST = 24, 400

#: operators that the longest trace has at most, if a shorter one is enough
_OPERATORS = 2000

#: recursion goes as deep as a network has operators in a row
_RECURSION = 100_000


class FixedLengthError(ExportError):
    """A network runs one number of steps alone."""


def find_loop(network: nn.Module, inputs: Sequence[Tensor]) -> Rolled:
    """Return a module that computes what the network computes, with T and N open.

    Args:
        network: a frozen network, whose inputs are (N, C[, H, W], T) or have no time.
        inputs: example inputs, of which at least one has time.

    Raises:
        ExportError: its steps have no common form; the line of the user's code is named.
    """
    with quiet(), eagerly(), _deep(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        traces = _Traces(network, inputs)
        failure: NoLoopError | None = None
        for order in _ORDERS:
            try:
                return _found(traces, order)
            except NoLoopError as error:
                failure = failure or error
        assert failure is not None
        place = f" at {failure.place}" if failure.place else ""
        raise ExportError(
            f"forward() loops over time, and its steps have no common form{place}: {failure}; a "
            f"model with open T holds one step; see 'How loops are found' in the documentation"
        ) from failure


def _found(traces: _Traces, order: Order) -> Rolled:
    """Return the network whose loop was found in this order.

    Raises:
        NoLoopError: its steps have no common form.
    """
    network, inputs = traces.network, traces.inputs
    pool = Pool()
    *sizes, other = traces.sizes
    readings = {size: traces.read(size, pool, order) for size in sizes}
    form = find_form(readings, pool)
    form.order = order
    retime(form)
    readings[other] = traces.read(other, pool, order)
    for size, reading in readings.items():
        _check(unrolled(form, size, pool), reading, size)
    neurons = recognise(form)
    names = argument_names(network)[: len(inputs)]  # others have defaults
    rolled = Rolled(
        form,
        neurons,
        [has_time(x.dim()) for x in inputs],
        names if len(names) == len(inputs) else (),
    )
    for size in (sizes[0], other):
        _check_numbers(network, rolled, resized(inputs, *size))
    rolled.looped.declare_states(rolled)
    for tensors in _other_sizes(inputs):
        _check_numbers(network, rolled, tensors)
    for loop in rolled.looped.loops.values():
        loop.records = False
    return rolled


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _sizes(network: nn.Module, inputs: Sequence[Tensor]) -> list[Size]:
    """Return the sizes of the traces: three lengths, another batch size, and one to check with.

    None of them is a size of anything else: a kernel of 5 channels is not a loop of 5 steps.
    """
    taken = {
        size
        for tensor in (*nn.Module.parameters(network), *network.buffers())
        for size in tensor.shape
    }
    for x in inputs:
        taken.update(x.shape[1:-1] if has_time(x.dim()) else x.shape[1:])
    shapes = _Shapes()
    # an axis is open only if the network runs with it, which a later trace shows
    with in_plain_torch(), shapes, contextlib.suppress(Exception):
        copies.copied(network)(*resized(inputs, *Size(2, 1)))
    taken |= shapes.seen
    # one after the other: a last value is found by those of sequences that are shorter by a step
    first = next(t for t in itertools.count(_SHORTEST) if taken.isdisjoint(range(t, t + 3)))
    taken |= {first, first + 1, first + 2}
    # as long as the example and what verify makes of it, if the trace does not get too long
    few, more = (count_operators(network, resized(inputs, t, 2)) or 0 for t in (first, first + 1))
    longest = max(_LONGER, 8 + max(x.shape[-1] for x in inputs if has_time(x.dim())))
    longest = max(first + 3, min(longest, _OPERATORS // max(more - few, 1)))
    check = next(t for t in itertools.count(longest) if t not in taken)
    batches = (n for n in itertools.count(2) if n not in taken | {check})
    other, usual, third = (next(batches) for _ in range(3))
    lengths = [Size(first + i, usual) for i in range(3)]
    return [*lengths, Size(first + 1, other), Size(check, third)]


class _Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the sizes of all axes of all values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.seen.update(value.shape)
        return result


class _Traces:
    """Traces of a network at a few sizes; each is made once, and read in every order.

    Attributes:
        network: the network.
        inputs: example inputs.
        sizes: see :func:`_sizes`.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.network = network
        self.inputs = inputs
        self.sizes = _sizes(network, inputs)
        self._programs: dict[Size, torch.export.ExportedProgram] = {}

    def read(self, size: Size, pool: Pool, order: Order) -> Reading:
        """Return the terms of the trace of a size.

        Raises:
            FixedLengthError: the network does not run this size.
            ExportError: it cannot be traced, or read.
        """
        copied = _with_numbers(copies.copied(self.network))
        tensors = tuple(resized(self.inputs, *size))
        with running_modules(copied) as running, in_plain_torch():
            try:
                if size not in self._programs:
                    self._programs[size] = _program(copied, tensors)
                return read(self._programs[size], pool, size.steps, order)
            except SynapseError:
                raise
            except Exception as error:  # the tracer raises errors of any class
                if count_operators(self.network, tensors) is None:
                    raise FixedLengthError(
                        f"forward() does not run {size.steps} steps of {size.batch} samples"
                    ) from error
                raise trace_error(error, running) from error


def _program(network: nn.Module, tensors: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """Trace a network; the program has no operators that change their arguments in place."""
    program = torch.export.export(network, tensors, strict=False)
    if any(_changes_in_place(node.target) for node in program.graph.nodes):
        program = program.run_decompositions({})  # takes longer than the trace
    return program


def _changes_in_place(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


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


def _other_sizes(inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield inputs of lengths that no trace has: the shortest, a longer one, and the example.

    Code may branch on the number of steps or samples, or at a late step.
    """
    for steps in (1, 2, 3, 4, _LONGER):
        yield resized(inputs, *Size(steps, 1))
    steps = max(x.shape[-1] for x in inputs if has_time(x.dim()))
    if steps <= _LONGEST:
        yield [x.clone() for x in inputs]


def _check_numbers(network: nn.Module, rolled: Rolled, inputs: Sequence[Tensor]) -> None:
    """Compare the outputs with those of the network itself, but for the rounding of sums.

    Raises:
        NoLoopError: they differ.
    """
    try:
        expected = _flat(copies.copied(network)(*(x.clone() for x in inputs)))
    except Exception:  # of any class: a forward() may need more steps
        return
    found = _flat(rolled(*inputs))
    steps = max(x.shape[-1] for x in inputs if has_time(x.dim()))
    for i, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise NoLoopError(
                f"output {i} is {tuple(other.shape)} {other.dtype} instead of {tuple(one.shape)} "
                f"{one.dtype}"
            )
        scale = float(one.double().abs().max()) if one.numel() else 0.0
        if not torch.allclose(
            one.double(), other.double(), rtol=0, atol=_ROUNDING * scale, equal_nan=True
        ):
            raise NoLoopError(
                f"with {steps} steps, output {i} is not what the loop over steps gives, by up to "
                f"{float((one.double() - other.double()).abs().max()):.3g} of {scale:.3g}: code "
                f"looks at the number of steps, or a value is within a rounding of its threshold"
            )


def _flat(outputs: Any) -> list[Any]:
    return [x for x in torch.utils._pytree.tree_leaves(outputs) if x is not None]
