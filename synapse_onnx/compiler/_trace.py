"""Tracing: a frozen network to a graph, in which each of our ops is one opaque node."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from synapse_onnx.compiler._axis_errors import axis_error
from synapse_onnx.compiler._changes_in_place import check_changes
from synapse_onnx.compiler._contexts import write_in_line
from synapse_onnx.compiler._dynamic import least_steps, open_axes, widen
from synapse_onnx.compiler._known_numbers import KnownNumbers
from synapse_onnx.compiler._program_checks import check_program
from synapse_onnx.compiler._recorded import recorded, runs_known_code
from synapse_onnx.compiler._silent import check_statistics
from synapse_onnx.compiler._streaming import Streamed
from synapse_onnx.compiler._trace_errors import (
    conversion_error,
    failure,
    running_modules,
    trace_error,
    with_module,
)
from synapse_onnx.compiler._translate import translate
from synapse_onnx.compiler._views import AsViews
from synapse_onnx.compiler._watch import Watch
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.frameworks import in_plain_torch
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.loops.scan import StepModule
from synapse_onnx.errors import SynapseError
from synapse_onnx.model.options import Options

__all__ = ["quiet", "trace", "trace_step"]


def trace(
    frozen: nn.Module,
    inputs: Sequence[Tensor],
    streamed: Streamed | None,
    options: Options,
) -> ir.Model:
    """Return the graph of a frozen network, as torch's exporter writes it, for example inputs.

    If the network is ``streamed``, its states are inputs and outputs of the graph.

    Raises:
        SynapseError: a layer refuses its input.
        ExportError: the network cannot be traced, or has an operator without an ONNX form.
    """
    states = [] if streamed is None else [state.example for state in streamed.states]
    shapes: Any = None
    # what fails on numbers fails in the tracer, too, and says so more clearly
    example = inputs if streamed is None else None
    if options.dynamic:
        inputs = widen(frozen, inputs, open_time=options.open_time)
        shapes = _dynamic_shapes(frozen, inputs, len(states), open_time=options.open_time)
        kinds = [p.kind for p in inspect.signature(frozen.forward).parameters.values()]
        if streamed is None and inspect.Parameter.VAR_POSITIONAL in kinds:
            star = kinds.index(inspect.Parameter.VAR_POSITIONAL)
            if len(shapes) > star:  # for a forward(*args) torch wants one tuple for the star
                shapes = (*shapes[:star], shapes[star:])
    _drop_empty_buffers(frozen)
    known = runs_known_code(frozen)  # before hooks of ours, and the forward() of a stream
    with quiet(), torch.no_grad(), contextlib.ExitStack() as stack:
        if streamed is not None:
            stack.enter_context(streamed.traced())
        program, reads = _to_program(frozen, [*inputs, *states], shapes, example, known=known)
        check_statistics(program)
        given = [*(example or inputs), *states]
        check_changes(program, _fresh(frozen, streamed), given, shapes, reads=reads)
        try:
            return translate(program, options.opset)
        except torch.onnx.OnnxExporterError as error:
            raise conversion_error(error, program) from error


def trace_step(step: StepModule) -> torch.export.ExportedProgram:
    """Trace one step of a loop.

    Raises:
        ExportError: it is code of the user's that cannot be traced.
    """
    loop = step.loop[0]
    with quiet(), torch.no_grad():
        if not loop.users:  # traced once already
            shapes = (tuple(step.shapes),)
            with AsViews():
                return recorded(step, step.tensors, shapes, []) or torch.export.export(
                    step, step.tensors, dynamic_shapes=shapes, strict=False
                )
        try:
            loop.check()
            program, _ = _to_program(step, step.tensors, (tuple(step.shapes),), None, known=False)
        except SynapseError as error:
            raise with_module(error, [loop.path]) from error
        return program


def _fresh(frozen: nn.Module, streamed: Streamed | None) -> Callable[..., Any]:
    """Return what calls a network as if for the first time."""
    if streamed is not None:  # it keeps nothing besides the states that it is given
        return frozen

    def call(*inputs: Tensor) -> Any:
        return copied_value(frozen)(*inputs)

    return call


def _to_program(
    frozen: nn.Module,
    inputs: Sequence[Tensor],
    shapes: Any,
    example: Sequence[Tensor] | None,
    *,
    known: bool,
) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace, and refuse what a trace leaves out or a model cannot hold.

    ``example`` are the inputs that the user gave, which may be smaller; None if they have run. Code
    that is ``known`` is torch's and ours.

    Returns:
        The program, and whether code has read numbers.
    """
    watch = Watch(frozen)
    running: list[str] = []
    try:
        with running_modules(frozen) as running, watch.running():
            program, reads = _exported(frozen, inputs, shapes, running if known else None)
    except SynapseError as symbolic:  # a layer of ours refuses its input
        watch.raise_read()
        # that of the tracer shows symbols (s77), this one the sizes of the inputs
        raise failure(frozen, inputs, _sizes(inputs)) or with_module(
            symbolic, running
        ) from symbolic
    except Exception as error:  # the tracer raises errors of any class
        watch.raise_read()
        raise (
            (example and failure(frozen, example, "the example inputs"))
            or watch.branch
            or axis_error(error, frozen, inputs, shapes)
            or failure(frozen, inputs, _sizes(inputs))
            or trace_error(error, running)
        ) from error
    watch.raise_found()
    write_in_line(program)
    check_program(program, frozen)
    return program, reads


def _exported(
    frozen: nn.Module, inputs: Sequence[Tensor], shapes: Any, running: Sequence[str] | None
) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace; if code asks for numbers, once more with those that follow from parameters.

    A part of T - 1 steps may have one step, and torch makes a condition of it. A network whose loop
    was found computes the same with one step: its outputs were compared at 1, 2, 3 and 4 steps. So
    where a size of it gets fixed, it is traced again without such conditions.

    Returns:
        The program, and whether code has read numbers.
    """

    def export() -> torch.export.ExportedProgram:
        args, named = (frozen, tuple(inputs)), {"dynamic_shapes": shapes, "strict": False}
        try:
            return torch.export.export(*args, **named)
        except GuardOnDataDependentSymNode:
            raise
        except Exception:  # of any class
            if not hasattr(frozen, "looped"):
                raise
        settings: Any = torch.fx.experimental._config
        with settings.patch(backed_size_oblivious=True):
            return torch.export.export(*args, **named)

    with eagerly(), AsViews(), in_plain_torch():
        try:
            program = None if running is None else recorded(frozen, inputs, shapes, running)
            return program or export(), False
        except GuardOnDataDependentSymNode:
            with KnownNumbers(frozen).within_forward():
                return export(), True


def _sizes(inputs: Sequence[Tensor]) -> str:
    shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
    return f"inputs of shape {shapes}, while it runs on the example (export with dynamic=False)"


def _dynamic_shapes(
    network: nn.Module, inputs: Sequence[Tensor], states: int, *, open_time: bool
) -> tuple[dict[int, Any], ...]:
    """Return the symbols of the open axes, of every input and of every state."""
    least = {"N": 1, "T": least_steps(network)}
    symbols = {name: torch.export.Dim(name, min=size) for name, size in least.items()}
    axes = [open_axes(value, open_time=open_time) for value in inputs] + [{0: "N"}] * states
    return tuple({axis: symbols[name] for axis, name in each.items()} for each in axes)


def _drop_empty_buffers(frozen: nn.Module) -> None:
    """Turn buffers that are None into plain attributes.

    torch 2.13 counts them: in the graph of ``[None, "scale", "shift"]`` the outermost module's
    ``scale`` is taken for ``shift``.
    """
    for name in [name for name, buffer in frozen._buffers.items() if buffer is None]:
        del frozen._buffers[name]
        frozen.__dict__[name] = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the tracer's warnings, logs and prints, which are meant for its own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    sink = io.StringIO()  # the tracer prints graphs, too
    out, err = contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink)
    try:
        with warnings.catch_warnings(action="ignore"), out, err:
            yield
    finally:
        logging.disable(level)
