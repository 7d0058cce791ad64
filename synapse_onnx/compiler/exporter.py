"""From a torch module to an ONNX model: freeze, trace, lower, bind the bodies, check, write."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

import synapse_onnx.neuron  # noqa: F401 - its ops are in the registry then
from synapse_onnx._version import __version__
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.exactness import exact_values, has_exact_sums
from synapse_onnx.compiler.freezer import deployables, freeze
from synapse_onnx.compiler.io_layout import take_bytes, turn_time_first
from synapse_onnx.compiler.passes import lower
from synapse_onnx.compiler.streaming import Streamed, bin_of
from synapse_onnx.errors import ExportError, InputError, ShapeError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.model.layout import INPUT_TYPES, LAYOUTS, has_time
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.ops import DOMAIN, DOMAIN_VERSION, OpDef, all_ops, get_op, iter_used

__all__ = ["OPSETS", "export"]

#: opsets that can be asked for: int4 needs 21; 24 is the newest that torch's exporter writes
OPSETS = range(21, 25)


def export(
    module: nn.Module,
    args: Tensor | Sequence[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    streaming: bool = False,
    dynamic: bool = True,
    layout: str = "NCT",
    opset: int = 21,
    input_type: str = "float32",
) -> onnx.ModelProto:
    """Compile a trained network to an ONNX model of standard operators.

    Works on a frozen copy in evaluation mode and never touches the module. Synapses, neurons
    and whatever torch code lies between them are traced; every layer of ours becomes one node of
    domain ``ai.synapse`` with its function body in the same file. The same network gives the
    same bytes.

    Args:
        module: any torch module.
        args: one example input (N, C[, H, W], T), or one for every argument of ``forward``. A
            complex argument is a pair (real, imag), and two inputs of the graph.
        path: where to write the model; the file is written whole or not at all.
        streaming: make every state an input and an output of the graph, so that a sequence may
            come in chunks: neurons, delays, sigma-delta, recurrent spikes. ``Session.stream``
            keeps them; the metadata name them, with the numbers that they start from.
        dynamic: leave the batch size (first axis) open, and time, the last axis of inputs with
            three or five axes.
        layout: "NCT": inputs and outputs as the module has them; "TNC": time comes first,
            (T, N, C[, H, W]), as it does within the graph, which then moves no data about.
        opset: opset of the standard operators, 21 to 24.
        input_type: "float32", or "uint8" for spikes and counts up to 255, a quarter of the bytes.

    Returns:
        The model; an ``onnx.ModelProto``.

    Raises:
        InputError: an argument, or a weight that is NaN or infinite.
        ShapeError: the example input does not fit the network.
        QuantizationError: a hook does not return a weight of its synapse's shape.
        ExportError: the module has an operator or a control flow that ONNX cannot express; the
            message names the operator and the path of the module that it stands in.
    """
    if layout not in LAYOUTS:
        raise InputError(f"export: layout must be {' or '.join(LAYOUTS)}, got {layout!r}")
    if input_type not in INPUT_TYPES:
        raise InputError(
            f"export: input_type must be {' or '.join(INPUT_TYPES)}, got {input_type!r}"
        )
    if opset not in OPSETS:
        raise InputError(f"export: opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    arguments = Arguments.of(module, args, "export")
    inputs = arguments.tensors
    frozen = freeze(module).cpu()  # the reference of fixed point is torch on the CPU
    with arguments.flat(frozen):
        streamed = _stream(frozen, inputs, dynamic=dynamic) if streaming else None
        graph = _trace(frozen, inputs, streamed, dynamic=dynamic, opset=opset)
    lower(graph)
    count = 0 if streamed is None else len(streamed.states)
    data = list(graph.graph.inputs)[: len(inputs)]
    if layout == "TNC":
        turn_time_first(graph.graph, data, range(len(graph.graph.outputs) - count))
    if input_type == "uint8":
        take_bytes(graph.graph, data)
    # after the passes, which remove copies that only a name needs
    _name_border(graph, streamed)
    model = _bind(ir.to_proto(graph), opset, streaming=streaming)
    _describe(model, frozen, streamed, opset=opset, layout=layout, input_type=input_type)
    check(model)
    if path is not None:
        data = model.SerializeToString(deterministic=True)
        write_atomically(path, data)
    return model


def _stream(frozen: nn.Module, inputs: Sequence[Tensor], *, dynamic: bool) -> Streamed:
    """Find the states of a frozen network, and see that it can run in chunks."""
    size = bin_of(frozen)
    for x in inputs if not dynamic else ():
        if has_time(x.dim()) and x.shape[-1] % size:
            raise ShapeError(
                f"export: a stream of chunks of {x.shape[-1]} steps, as dynamic=False makes it, "
                f"holds back what is no multiple of {size}, the steps of a bin of time; give an "
                f"example whose steps are one, or export with dynamic=True"
            )
    steps = max(_EXCERPT, 2 * size)
    if dynamic and any(has_time(x.dim()) and x.shape[-1] > steps for x in inputs):
        excerpt = [x[..., :steps] if has_time(x.dim()) else x for x in inputs]
        with contextlib.suppress(SynapseError):
            return _streamed(frozen, excerpt, dynamic=dynamic)
        # a forward() that holds on to its number of steps is told so with the whole
    return _streamed(frozen, inputs, dynamic=dynamic)


def _streamed(frozen: nn.Module, inputs: Sequence[Tensor], *, dynamic: bool) -> Streamed:
    with _inside(frozen) as running:
        try:
            Streamed(frozen, inputs).check(inputs)
            return Streamed(frozen, _at_least_twos(frozen, inputs) if dynamic else inputs)
        except ExportError:
            raise
        except SynapseError as error:  # a layer of ours that refuses its input
            raise type(error)(f"{_where(running)}{error}") from error
        except Exception as error:
            raise ExportError(_trace_error(error, running)) from error


#: steps of a long example that are run to find the states of a network and to see that it can come
#: in chunks, so that export takes no longer for a longer example
_EXCERPT = 64


@contextlib.contextmanager
def _inside(module: nn.Module) -> Iterator[list[str]]:
    """Keep a list of the paths of the submodules that are running, innermost last.

    After an exception the list still says where it was raised.
    """
    running: list[str] = []
    handles = []

    def leave(*_: Any) -> None:  # a hook that returned the path would replace the output
        running.pop()

    for path, child in module.named_modules():
        handles.append(child.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
        handles.append(child.register_forward_hook(leave))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _where(running: Sequence[str]) -> str:
    """The module that was running, before the sentence of an error."""
    return f"{running[-1]}: " if running and running[-1] else ""


def _at_least_twos(frozen: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Repeat a batch of 1 and time of one bin: the tracer would take a 1 for a constant."""
    steps = bin_of(frozen) + 1
    results = []
    for value in inputs:
        repeats = [1] * value.dim()
        for axis, name in _open_axes(value).items():
            least = steps if name == "T" else 2
            if 0 < value.shape[axis] < least:
                repeats[axis] = -(-least // value.shape[axis])
        # a copy of a long sequence would cost more than the trace, which reads no values; but a
        # view's strides would become conditions on its sizes
        results.append(value.contiguous() if set(repeats) <= {1} else value.repeat(repeats))
    return results


def _open_axes(value: Tensor) -> dict[int, str]:
    """Axes left open, with their names: the batch, and time where there is one."""
    if value.dim() < 1:
        return {}
    return {0: "N", value.dim() - 1: "T"} if has_time(value.dim()) else {0: "N"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's advice to its own developers off the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        silent = io.StringIO()  # it prints graphs, too
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _plain(symbolic: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a symbolic function: the exporter sets attributes on it, which a method refuses."""

    def function(*args: Any) -> Any:
        return symbolic(*args)

    return function


def _trace(
    frozen: nn.Module,
    inputs: Sequence[Tensor],
    streamed: Streamed | None,
    *,
    dynamic: bool,
    opset: int,
) -> ir.Model:
    """Trace a frozen module; each of our ops stays one opaque node."""
    states = [] if streamed is None else [state.example for state in streamed.states]
    shapes: Any = None
    if dynamic:
        inputs = _at_least_twos(frozen, inputs)
        dims = {name: torch.export.Dim(name) for name in ("N", "T")}
        open_axes = [_open_axes(value) for value in inputs] + [{0: "N"} for _ in states]
        shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in open_axes)
        if streamed is None:
            shapes = _nested(frozen, shapes)
    inputs = [*inputs, *states]
    # torch 2.13 takes a buffer of the outermost module for the next one where one before it is None
    for name in [name for name, buffer in frozen._buffers.items() if buffer is None]:
        del frozen._buffers[name]
        frozen.__dict__[name] = None
    with _quiet(), torch.no_grad(), contextlib.ExitStack() as stack:
        if streamed is not None:
            stack.enter_context(streamed.traced())
        with _inside(frozen) as running:
            try:
                program = torch.export.export(
                    frozen, tuple(inputs), dynamic_shapes=shapes, strict=False
                )
            except SynapseError as error:  # a layer of ours that refuses its input
                concrete = _concrete(frozen, inputs, error)
                raise type(error)(f"{_where(running)}{concrete}") from error
            except Exception as error:  # the tracer raises whatever it runs into
                raise ExportError(_trace_error(error, running)) from error
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                custom_translation_table={
                    op.torch_op: _plain(op.symbolic) for op in all_ops().values()
                },
                verbose=False,
                # its clean-up merges equal initialisers and with them the names of layers
                optimize=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(_conversion_error(error, program)) from error
    if exported is None:
        raise ExportError("torch.onnx.export returned no program")
    graph: ir.Model = exported.model
    return graph


def _name_border(graph: ir.Model, streamed: Streamed | None) -> None:
    """Keep the inputs' names, those of forward()'s arguments, and name the outputs and states."""
    names = [value.name or "" for value in graph.graph.inputs]
    states = [] if streamed is None else streamed.states
    data = len(names) - len(states)
    names[data:] = [state.name for state in states]
    stem = "output"
    taken = {*names, *graph.graph.initializers}
    while any(name.startswith(stem) for name in taken):
        stem += "_"
    outputs = graph.graph.outputs
    seen = {id(value) for value in graph.graph.inputs}
    for i, value in enumerate(list(outputs)):
        if id(value) in seen:
            # an input that is returned as it is, or one value twice: each needs its own name
            identity = ir.node("Identity", [value], name=f"{stem}_{i}/Identity")
            graph.graph.append(identity)
            outputs[i] = identity.outputs[0]
            outputs[i].shape, outputs[i].type = value.shape, value.type
        seen.add(id(value))
    last = len(outputs) - len(states)
    for i, value in enumerate(outputs[:last]):
        value.name = stem if last == 1 else f"{stem}_{i}"
    for value, state in zip(outputs[last:], states, strict=True):
        value.name = state.output
    for value, name in zip(graph.graph.inputs, names, strict=True):
        value.name = name


def _concrete(frozen: nn.Module, inputs: Sequence[Tensor], error: SynapseError) -> SynapseError:
    """The same error with the sizes of the inputs, where the tracer's has symbols."""
    try:
        frozen(*inputs)
    except SynapseError as concrete:
        return concrete
    return error


def _nested(module: nn.Module, shapes: tuple[Any, ...]) -> Any:
    """Group the shapes of a ``forward(*args)``: torch wants one tuple for the star."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return (shapes,)
    return shapes


def _trace_error(error: Exception, running: Sequence[str]) -> str:
    """One sentence on why the tracer stopped, where, and what to do."""
    text = str(error)
    lines = [line.strip(" -\n") for line in text.splitlines() if line.strip()]
    where = f" in module '{running[-1]}'" if running and running[-1] else ""
    fixed = re.search(
        r"You marked (\w+) as dynamic but your code specialized it .*?\((\d+)\)", text
    )
    if fixed:
        name = {"N": "batch size N", "T": "number of time steps T"}.get(fixed[1], fixed[1])
        return (
            f"the module uses the {name} as a constant ({fixed[2]}); keep it open in forward(), or "
            f"export with dynamic=False"
        )
    if "data-dependent" in text:
        return (
            f"the module cannot be traced: a branch or size{where} depends on the values of a "
            f"tensor; use torch.where or a mask in forward()"
        )
    first = lines[0].rstrip(".") if lines else "no reason given"
    return f"the module cannot be traced{where}: {type(error).__name__}: {first}"


def _conversion_error(error: Exception, program: torch.export.ExportedProgram) -> str:
    """Name the operator that has no ONNX form, and the module that it stands in."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    for link in chain:
        found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", str(link))
        if found is None:
            continue
        operator = found.group(1)
        return (
            f"operator {operator} in module {_module_of(operator, program)} has no ONNX form; "
            f"replace it in forward() by standard operators"
        )
    last = str(chain[-1]).strip().splitlines()
    return f"the module cannot be converted: {last[0] if last else type(chain[-1]).__name__}"


def _module_of(operator: str, program: torch.export.ExportedProgram) -> str:
    """Say in which module of the user's an operator (``aten.name.overload``) stands."""
    with _quiet():
        # the exporter meets what is left after decomposition
        graphs = (program.graph, program.run_decompositions().graph)
    for node in (node for graph in graphs for node in graph.nodes):
        # aten.special_bessel_j0.default becomes prims.bessel_j0 on its way
        if operator.split(".")[1] in str(node.target):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path, kind = stack[-1] if stack else ("", "")
            name = kind if isinstance(kind, str) else kind.__qualname__
            kind = name.rsplit(".", 1)[-1]
            return f"'{path}' ({kind})" if path else kind
    return "(unknown)"


def _bind(model: onnx.ModelProto, opset: int, *, streaming: bool) -> onnx.ModelProto:
    """Attach the function body of every op of ours that the graph uses."""
    del model.functions[:]
    used = iter_used((node.domain, node.op_type) for node in model.graph.node)
    omits = _omits(model)
    model.functions.extend(
        op.function(opset, *omits.get(op.name, ()), streaming=streaming) for op in used
    )
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    if used:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    model.producer_name = "synapse-onnx"
    model.producer_version = __version__
    model.graph.name = "network"
    return model


def _describe(
    model: onnx.ModelProto,
    frozen: nn.Module,
    streamed: Streamed | None,
    *,
    opset: int,
    layout: str,
    input_type: str,
) -> None:
    """Write the metadata: layers, regime, states, what is exact, and notes on what is not."""
    layers = [{"path": path, **layer.describe()} for path, layer in deployables(frozen)]
    numbers = _arithmetic(model)
    for layer in layers:
        if layer["path"] in numbers:
            layer["arithmetic"] = numbers[layer["path"]]
    # a wide sum is exact here and rounded in the module that was not frozen
    sound = {str(layer["path"]): has_exact_sums(layer) for layer in layers}
    exact = exact_values(model, sound)
    states = [] if streamed is None else streamed.states
    hidden = {state.output for state in states}
    outputs = [
        value.name
        for value in model.graph.output
        if value.name in exact and value.name not in hidden
    ]
    regimes = {layer["regime"] for layer in layers if "regime" in layer}
    synapses = [layer for layer in layers if "quantized" in layer]
    ours = (node for node in model.graph.node if node.domain == DOMAIN)
    if all(name in exact for node in ours for name in node.output):
        regime = next(iter(regimes)) if len(regimes) == 1 else "mixed"
    else:
        regime = "mixed" if regimes - {"float"} else "float"
    notes = [
        f"{layer['path'] or 'the synapse'}: float weights; its hook leaves no integer grid of 16 "
        f"bits, or it has no hook"
        for layer in synapses
        if not layer["quantized"]
    ]
    notes += [
        f"{layer['path'] or 'the synapse'}: steps are no powers of two; sums are exact, and the "
        f"product with the step is rounded once"
        for layer in synapses
        if layer["quantized"] and not layer["power_of_two"]
    ]
    notes += [
        f"{layer['path'] or 'the synapse'}: sums pass 2**24; they are taken in two parts, exactly, "
        f"and rounded once, where the module that was not frozen rounds within the sum"
        for layer in synapses
        if layer["quantized"] and layer["wide"]
    ]
    Metadata(
        version=__version__,
        torch_version=torch.__version__,
        opset=opset,
        regime=regime,
        streaming=streamed is not None,
        chunk=1 if streamed is None else streamed.chunk,
        layout=layout,
        input_type=input_type,
        states=tuple(
            {
                "input": state.name,
                "output": state.output,
                "dtype": str(state.example.dtype).removeprefix("torch."),
                # the batch, first, is the stream's
                "shape": [None, *state.example.shape[1:]],
                "start": state.start,
            }
            for state in states
        ),
        layers=tuple(layers),
        exact=tuple(outputs),
        notes=tuple(notes),
    ).write(model)


def check(model: onnx.ModelProto) -> None:
    """Run ONNX's full check, with shape inference through the function bodies.

    Raises:
        ExportError: the checker refuses the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"the exported model does not pass onnx.checker: {first}") from error


def _ours(
    model: onnx.ModelProto,
) -> Iterator[tuple[onnx.NodeProto, OpDef, dict[str, Any], dict[str, onnx.TensorProto]]]:
    """Yield every node of ours with its op, its attributes and its constant inputs, by name."""
    constants = {value.name: value for value in model.graph.initializer}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            op = get_op(node.op_type)
            given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            known = zip(op.inputs, node.input, strict=False)
            fixed = {name: constants[key] for name, key in known if key in constants}
            yield node, op, given, fixed


def _omits(model: onnx.ModelProto) -> dict[str, set[frozenset[str]]]:
    """Return the name of each op -> the sets of what its nodes may leave out."""
    found: dict[str, set[frozenset[str]]] = {}
    for _, op, given, constants in _ours(model):
        if op.omits is not None:
            found.setdefault(op.name, set()).add(op.omits(given, constants))
    return found


def _arithmetic(model: onnx.ModelProto) -> dict[str, str]:
    """Return the path of each layer with a node of ours -> the numbers that it computes in."""
    found: dict[str, list[str]] = {}
    for node, op, given, constants in _ours(model):
        path = layer_of(node)
        if path is not None and op.arithmetic is not None:
            found.setdefault(path, []).append(op.arithmetic(given, constants))
    return {path: ", ".join(dict.fromkeys(said)) for path, said in found.items()}
