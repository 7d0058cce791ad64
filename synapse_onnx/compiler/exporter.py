"""``export``: from a torch module to an ONNX model, in the order of its steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from synapse_onnx._layer import named_states
from synapse_onnx.compiler._bind import bind_bodies
from synapse_onnx.compiler._calls import check_calls
from synapse_onnx.compiler._chunks import find_states
from synapse_onnx.compiler._describe import describe
from synapse_onnx.compiler._first_paths import use_first_paths
from synapse_onnx.compiler._io_layout import name_inputs_and_outputs, set_layout
from synapse_onnx.compiler._lists import listed_as_before
from synapse_onnx.compiler._silent import check_chance
from synapse_onnx.compiler._tiles import put_in_tiles
from synapse_onnx.compiler._trace import quiet, trace, trace_step
from synapse_onnx.compiler._trace_errors import conversion_error, failure
from synapse_onnx.compiler._translate import translate
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.axes import (
    find_axes,
    has_code_of_its_own,
    runs_one_time,
    set_axes,
    with_time_last,
)
from synapse_onnx.compiler.frameworks import reset_states
from synapse_onnx.compiler.freezer import freeze, without_autocast
from synapse_onnx.compiler.loops.find import FixedLengthError, find_loop
from synapse_onnx.compiler.loops.scan import StepModule, put_scans
from synapse_onnx.compiler.passes import lower
from synapse_onnx.compiler.steps import OverTime
from synapse_onnx.compiler.steps.instants import looped
from synapse_onnx.errors import ExportError, InputError
from synapse_onnx.files import write_atomically
from synapse_onnx.model.layout import LAYOUTS
from synapse_onnx.model.options import Options

__all__ = ["check_model", "compile_frozen", "export"]


def export(
    module: nn.Module,
    args: Tensor | Sequence[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    streaming: bool = False,
    dynamic: bool = True,
    layout: str | None = None,
    opset: int = 21,
    input_type: str = "float32",
    axes: str | None = None,
) -> onnx.ModelProto:
    """Compile a trained network to an ONNX model of standard operators.

    Works on a frozen copy in evaluation mode and never touches the module. Synapses, neurons
    and the torch code between them are traced; every layer of this package becomes one node of
    domain ``ai.synapse`` with its function body in the same file. The same network gives the
    same bytes.

    Args:
        module: any torch module.
        args: one example input (N, C[, H, W], T), or one for every argument of ``forward``. A
            complex argument is a pair (real, imag), and two inputs of the graph.
        path: where to write the model; the file is written whole or not at all.
        streaming: make every state an input and an output of the graph, so that a sequence may
            come in chunks: neurons, delays, sigma-delta, recurrent spikes. ``Session.stream``
            keeps them; the metadata hold their names and initial values.
        dynamic: leave the batch size (first axis) open, and time, the last axis of inputs with
            three or five axes.
        layout: layout of the file's inputs and outputs; by default that of the module. "TNC": time
            comes first, (T, N, C[, H, W]), as inside the graph, which then needs no transposes.
        opset: opset of the standard operators, 21 to 24.
        input_type: "float32", or "uint8" for spikes and counts up to 255, a quarter of the bytes.
        axes: axes of the module's own inputs and outputs: "NCT", "TNC" or "NTC", also for inputs
            with H and W. By default "NCT", or what a loop over time in the module's code shows.

    Returns:
        The model; an ``onnx.ModelProto``.

    Raises:
        InputError: an argument, or a weight that is NaN or infinite, or a forward hook on a part
            within a neuron.
        ShapeError: the example input does not fit the network.
        QuantizationError: a hook does not return a weight of its synapse's shape.
        ExportError: the module has an operator or a control flow that ONNX cannot express; the
            message names the operator and the path of its module. Or its outputs depend on earlier
            calls or on random numbers, or it has layers in a plain list or closure; the message
            names the attribute.
    """
    Options(axes=axes or LAYOUTS[0], layout=layout or LAYOUTS[0])  # refuses others
    frozen = freeze(module).cpu()  # fixed point is defined by torch on the CPU
    arguments = Arguments.of(frozen, args, "export")
    if streaming:
        frozen, arguments = looped(frozen, arguments, axes, dynamic=dynamic)
    arguments.check(frozen, "export")
    if not isinstance(frozen, OverTime):  # whose axes are known
        check_calls(frozen, arguments)
    reset_states(frozen)  # they are zero, and of the batch size of a call
    axes = _agreed_axes(frozen, axes) or find_axes(frozen, arguments)
    set_axes(frozen, axes)
    arguments = with_time_last(arguments, axes)
    if isinstance(frozen, OverTime):
        check_calls(frozen, arguments)
    options = Options(
        streaming,
        dynamic,
        layout or axes,
        opset,
        input_type,
        axes,
        steps=isinstance(frozen, OverTime),
    )
    network = frozen
    if has_code_of_its_own(frozen):
        frozen, options = _with_loop_found(frozen, arguments, options)
    try:
        model = compile_frozen(frozen, arguments, options)
    except ExportError as error:
        if options.streaming and frozen is not network:
            _refuse_states_beside_a_loop(network, error)
        raise
    if path is not None:
        write_atomically(path, model.SerializeToString(deterministic=True))
    return model


@without_autocast()
@listed_as_before()
def compile_frozen(frozen: nn.Module, arguments: Arguments, options: Options) -> onnx.ModelProto:
    """Make the model of a frozen network, which is what :func:`freeze` returns, on the CPU.

    ``export`` is this and a file. A model that was exported before can be made again from its
    network, for its metadata hold the options: ``Metadata.read(model).options``.

    Raises:
        ShapeError, ExportError: see :func:`export`.
    """
    inputs = arguments.tensors
    with arguments.flat(frozen):
        streamed = find_states(frozen, inputs, options) if options.streaming else None
        graph = trace(frozen, inputs, streamed, options)
    use_first_paths(graph, frozen)
    lower(graph)
    put_scans(graph.graph, partial(_step_graph, opset=options.opset))
    check_chance(graph)
    states = [] if streamed is None else streamed.states
    set_layout(graph.graph, options, inputs=len(inputs), states=len(states))
    # after the passes, which remove copies whose only purpose is a name
    name_inputs_and_outputs(graph.graph, states, arguments.names(frozen))
    model = ir.to_proto(graph)
    arithmetic = bind_bodies(model, options)
    describe(model, frozen, streamed, options, arithmetic)
    # last, for what stands before looks at every node; a stream has few steps in a call
    if streamed is None and put_in_tiles(graph.graph):
        name = model.graph.name
        model.graph.CopyFrom(ir.to_proto(graph.graph))
        model.graph.name = name
    try:
        check_model(model)
    except ExportError as error:  # the tracer forgives types that torch does not multiply
        with arguments.flat(frozen):
            raise failure(frozen, inputs, "the example inputs") or error from error
    return model


def _step_graph(step: StepModule, opset: int) -> ir.Graph:
    """Return the graph of one step of a loop."""
    program = trace_step(step)
    try:
        with quiet():
            graph = translate(program, opset)
    except torch.onnx.OnnxExporterError as error:
        raise conversion_error(error, program) from error
    lower(graph)
    return graph.graph


def _with_loop_found(
    frozen: nn.Module, arguments: Arguments, options: Options
) -> tuple[nn.Module, Options]:
    """Return a network that loops over time in torch code as a module whose steps are one.

    A network that takes one number of steps alone, by a constant in its code or by a parameter for
    every step, stays as it is, and is unrolled.
    """
    inputs = arguments.tensors
    try:
        found = find_loop(frozen, inputs, streaming=options.streaming)
    except FixedLengthError:
        return frozen, replace(options, open_time=False)
    except ExportError:
        if options.dynamic:
            raise
        return frozen, options  # so many steps are unrolled
    if found is None:
        return frozen, replace(options, open_time=not runs_one_time(frozen, inputs))
    if options.streaming and found.looped.states.obstacle:
        raise ExportError(f"streaming: {found.looped.states.obstacle}; export without streaming")
    holds_time = found.looped.length is not None and any(found.looped.timed)
    return found, replace(options, open_time=not holds_time)


def _agreed_axes(frozen: nn.Module, axes: str | None) -> str | None:
    """Return the axes that were given, which a module over steps has already.

    Raises:
        InputError: it has others.
    """
    if axes is not None and isinstance(frozen, OverTime) and axes != frozen.axes:
        raise InputError(
            f"export: axes is {axes!r}, and so.over_time() was given {frozen.axes!r}; leave it out"
        )
    return axes


def _refuse_states_beside_a_loop(network: nn.Module, error: ExportError) -> None:
    """Raise a clearer error if a network with a loop of torch code has layers with states."""
    path = next((name.rpartition(".")[0] for name, _, _ in named_states(network)), None)
    if path is not None:
        raise ExportError(
            f"streaming: {path or 'the module'} keeps states, and forward() also loops over time "
            f"in torch code; a stream keeps the states of layers or those of a loop; use a neuron "
            f"of this package in place of the loop, or export without streaming"
        ) from error


def check_model(model: onnx.ModelProto) -> None:
    """Run ONNX's full check, with shape inference through the function bodies.

    Raises:
        ExportError: the checker refuses the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the exported model does not pass onnx.checker: {reason}") from error
