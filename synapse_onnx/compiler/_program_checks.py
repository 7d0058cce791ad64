"""What a traced program shows that a model cannot be: refused here, before it is translated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler._watch import read_error, rewritten_tensors
from synapse_onnx.errors import ExportError, InputError, SynapseError
from synapse_onnx.ops import TORCH_NAMESPACE

__all__ = ["check_program"]


def check_program(program: torch.export.ExportedProgram, frozen: nn.Module) -> None:
    """Refuse a program whose model would not run, or would be another network.

    Caches that nothing reads are taken out of the program.

    Raises:
        InputError: a layer of ours gets numbers of another type than float32.
        ExportError: an output is no tensor that a model can return, ``forward`` enters autocast, or
            computes in bfloat16.
    """
    inputs = set(program.graph_signature.user_inputs)
    for node in list(program.graph.nodes):
        if node.op == "placeholder" and node.name in inputs:
            _check_kept(node.meta.get("val"), f"argument {node.name}", "give", InputError)
        elif node.target is torch.ops.aten.copy_.default:
            _check_write(program, node)
        elif node.op == "call_function":
            _check_call(node)
    _check_outputs(program, frozen)


def _check_write(program: torch.export.ExportedProgram, node: torch.fx.Node) -> None:
    """Forget a value of open shape that forward() keeps in a buffer, where nothing reads it.

    The last output of a trained network is one. What is written must be of the buffer's shape,
    which would fix the batch size and the time of the whole model to those of the last call.
    """
    buffer: Any = node.args[0]
    path = program.graph_signature.inputs_to_buffers.get(buffer.name)
    if path is None or not any(isinstance(n, torch.SymInt) for n in node.meta["val"].shape):
        return
    if node.users or len(buffer.users) > 1:
        raise ExportError(
            f"forward() keeps a tensor in buffer {path} and reads it, and its shape is that of an "
            f"earlier call, {tuple(buffer.meta['val'].shape)}; set it to None before the export"
        )
    program.graph.erase_node(node)
    program.graph_module.recompile()


# -- calls ---------------------------------------------------------------------------------------


def _check_call(node: torch.fx.Node) -> None:
    target: Any = node.target
    if target is torch.ops.higher_order.wrap_with_autocast:  # others are written in line by now
        raise ExportError(
            f"{_module_of(node)} enters torch.autocast, and layers compute in float32; leave it "
            f"out for the export, for example by enabled=self.training"
        )
    value = node.meta.get("val")
    if getattr(target, "namespace", "") == TORCH_NAMESPACE:
        _check_layer(node)
    elif isinstance(value, Tensor) and value.dtype is torch.bfloat16 and not _moves(target):
        raise ExportError(
            f"{_module_of(node)} computes in bfloat16 ({_name(target)}), which ONNX Runtime cannot "
            f"on a CPU; compute in float32"
        )
    elif target in (torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims):
        _check_squeeze(node)


def _check_layer(node: torch.fx.Node) -> None:
    """Layers of ours take float32, whatever torch would make of another type."""
    values: list[Any] = [arg.meta.get("val") for arg in node.args if isinstance(arg, torch.fx.Node)]
    first = values[0]
    for value in values:  # a complex neuron has two inputs, of one shape
        if value is first or (isinstance(value, Tensor) and _sized(value) == _sized(first)):
            if value.dtype is torch.float32:
                continue
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(
                f"{_module_of(node)}: the input is {kind}, and layers compute in float32; give "
                f"float32 numbers, by .float()"
            )


def _check_squeeze(node: torch.fx.Node) -> None:
    """An axis that is open is not of size 1, so that the graph would keep it and ONNX not."""
    source: Any = node.args[0]
    shape = source.meta["val"].shape
    dims: Any = node.args[1]
    for dim in dims if isinstance(dims, (list, tuple)) else (dims,):
        if isinstance(shape[dim], torch.SymInt):
            raise ExportError(
                f"{_module_of(node)} squeezes axis {dim} of a tensor of shape {_sizes(shape)}, and "
                f"an open axis goes only where its size is 1; select an index, or export with "
                f"dynamic=False"
            )


def _sized(value: Tensor) -> list[str]:
    """Return a shape as text: to compare a symbol with 3 would tell torch that it is 3."""
    return [str(size) for size in value.shape]


def _sizes(shape: Any) -> str:
    return f"({', '.join('open' if isinstance(n, torch.SymInt) else str(n) for n in shape)})"


def _moves(target: Any) -> bool:
    """Whether an operator casts or moves numbers and computes nothing."""
    return bool(getattr(target, "is_view", False)) or _name(target) in (
        "to", "_to_copy", "clone", "contiguous", "alias", "detach", "reshape",
    )  # fmt: skip


def _name(target: Any) -> str:
    return str(getattr(target, "_schema", None) and target._schema.name.partition("::")[2])


def _module_of(node: torch.fx.Node) -> str:
    """Return the path of the module that calls an operator; the class of the outermost one."""
    stack: list[Any] = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "forward()")
    name = kind if isinstance(kind, str) else kind.__qualname__
    return str(path) or name.rsplit(".", 1)[-1]


# -- outputs ---------------------------------------------------------------------------------------


def _check_outputs(program: torch.export.ExportedProgram, frozen: nn.Module) -> None:
    output: Any = next(node for node in program.graph.nodes if node.op == "output")
    specs = zip(program.graph_signature.output_specs, output.args[0], strict=True)
    values: list[Any] = [value for spec, value in specs if spec.kind.name == "USER_OUTPUT"]
    if not any(isinstance(value, torch.fx.Node) for value in values):
        raise ExportError("forward() returns no tensor, so a model has no output; return one")
    rewritten: dict[str, tuple[str, Tensor]] | None = None
    for i, value in enumerate(values):
        if value is None:
            continue
        what = value.meta.get("val") if isinstance(value, torch.fx.Node) else value
        if not isinstance(what, Tensor):
            raise ExportError(
                f"output {i} of forward() is {_kind(what)}, and a model returns tensors; leave it "
                f"out, or return it as a tensor"
            )
        _check_kept(what, f"output {i} of forward()", "return", ExportError)
        if value.op == "placeholder":
            rewritten = rewritten or dict(_by_placeholder(program, frozen))
            if value.name in rewritten:
                path, tensor = rewritten[value.name]
                raise read_error(path, tensor, f" as output {i}")


def _check_kept(value: Any, what: str, verb: str, kind: type[SynapseError]) -> None:
    """Refuse an input or output of a type that NumPy, or a model, has not."""
    if not isinstance(value, Tensor):
        return
    if value.dtype is torch.bfloat16:
        raise kind(f"{what} is bfloat16, which NumPy has not; {verb} float32")
    if value.is_complex():
        raise kind(
            f"{what} is complex, and a model has real tensors only; {verb} the pair (real, imag)"
        )


def _kind(value: Any) -> str:
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        name = type(value).__name__.removeprefix("Sym").lower()
    else:
        name = type(value).__name__
    return f"a Python {name}"


def _by_placeholder(
    program: torch.export.ExportedProgram, frozen: nn.Module
) -> Iterator[tuple[str, tuple[str, Tensor]]]:
    signature = program.graph_signature
    tensors = dict(rewritten_tensors(frozen))
    for names in (signature.inputs_to_parameters, signature.inputs_to_buffers):
        for placeholder, path in names.items():
            if path in tensors:
                yield placeholder, (path, tensors[path])
