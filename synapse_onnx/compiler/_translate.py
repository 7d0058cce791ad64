"""From a traced program to an ONNX graph, by torch's exporter.

Three things take most of the time of a small network there, and are left out where they can be:

- ``torch.onnx.export`` reads torchlib's table of some 500 translations at every call, from the
  source text of each. The function that it calls takes a table that is read already, and a program
  needs a few of them. That function is private to torch, so where a torch has another one,
  ``torch.onnx.export`` is called as it is documented, and gives the same graph.
- It lists all operators of torch that can be taken apart, and traces the whole program once more to
  do so. A program whose operators torchlib translates would come out as it went in.
- It runs the whole program once more to convert arguments whose types differ. Most programs have
  none.

The last two are functions of torch's, which meanwhile return the program as it is given. A torch
that has no such functions takes its time, and gives the same graph.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import inspect
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch

from synapse_onnx.compiler._bounds import unify_bounds
from synapse_onnx.compiler._types import is_of_one_type
from synapse_onnx.compiler.loops import scan
from synapse_onnx.errors import ExportError
from synapse_onnx.ops import TORCH_NAMESPACE, all_ops

__all__ = ["translate"]

#: torch's package of the functions that torch.onnx.export calls
_EXPORTER = "torch.onnx._internal.exporter"

#: onnxscript's list of the functions that translate operators of torch
_TORCHLIB = "onnxscript.function_libs.torch_lib.registration"

#: torch's exporter without its optimiser, which merges equal initialisers, and the names of layers
#: with them
_OPTIONS: Mapping[str, Any] = {"verbose": False, "optimize": False}


#: operators that torch does not tag as core and does not take apart either
_ELEMENTARY = {
    operator.getitem,
    torch.ops.aten.ones.default,
    torch.ops.aten.zeros.default,
}

#: a loop over time, which stands for a Scan
_LOOP = torch.ops.synapse_loops.recurrence.default

#: one program is translated at a time, for functions of torch's are replaced meanwhile
_lock = threading.RLock()


def translate(program: torch.export.ExportedProgram, opset: int) -> ir.Model:
    """Return the graph of a program of ``torch.export.export``; each op of ours is one node.

    Raises:
        torch.onnx.OnnxExporterError: an operator has no ONNX form.
        ExportError: torch returned no graph.
    """
    own = {op.torch_op: op.symbolic for op in all_ops().values()} | {_LOOP: scan.symbolic}
    unify_bounds(program)
    _leave_out_detaching(program.graph)
    export = _export_with_table()
    if export is None:
        table = {op: _as_function(symbolic) for op, symbolic in own.items()}
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=opset, custom_translation_table=table, **_OPTIONS
        )
    else:
        table = _table(opset, tuple(own.items()), _names(program))
        decomposed = _is_decomposed(program, table)
        of_one_type = decomposed and is_of_one_type(program.graph_module)
        if not of_one_type:  # what torch makes of it has other operators
            table = _table(opset, tuple(own.items()), None)
        with (
            _left_out("decompose_with_registry", program if decomposed else None),
            _left_out("insert_type_promotion_nodes", program.graph_module if of_one_type else None),
        ):
            exported = export(program, registry=table, opset_version=opset, **_OPTIONS)
    if exported is None:
        raise ExportError("torch.onnx.export returned no program")
    graph: ir.Model = exported.model
    return graph


def _leave_out_detaching(graph: torch.fx.Graph) -> None:
    """Leave out what ``torch.tensor(1.0)`` does to the constant that it has made: it has no effect.

    It would be the only operator of many programs that is to be taken apart.
    """
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.detach_.default and graph.output_node() not in node.users:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_decomposed(program: torch.export.ExportedProgram, table: Any) -> bool:
    """Whether a second trace would leave a program as it is: every operator is elementary.

    Elementary operators are ours, those that torch tags as core, like ``view``, and those that are
    functions by their schema, like ``linear``: what torchlib translates is not taken apart.
    ``reshape`` is not: it is a view or a copy. ``add_`` is not: it changes its argument.
    """
    return all(
        node.op in ("placeholder", "output")
        or node.target in _ELEMENTARY
        or (_is_elementary(node.target) and table.is_registered(node.target))
        for node in program.graph.nodes
    )


def _is_elementary(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        return inspect.isbuiltin(target)  # of sizes, as operator.mul
    if target.namespace == TORCH_NAMESPACE or target is _LOOP or torch.Tag.core in target.tags:
        return True
    arguments = target._schema.arguments
    return torch.Tag.maybe_aliasing_or_mutating not in target.tags and not any(
        argument.alias_info for argument in arguments
    )


@contextlib.contextmanager
def _left_out(name: str, value: object) -> Iterator[None]:
    """Let torch's exporter leave out a step of its preparations for one program or graph.

    The function of this name returns this ``value`` as it is; others are prepared as always.
    """
    steps: Any = getattr(importlib.import_module(f"{_EXPORTER}._core"), "_fx_passes", None)
    if value is None or not hasattr(steps, name):
        yield
        return
    with _lock:
        step = getattr(steps, name)

        def unless_left_out(given: Any, *args: Any, **kwargs: Any) -> Any:
            return given if given is value else step(given, *args, **kwargs)

        setattr(steps, name, unless_left_out)
        try:
            yield
        finally:
            setattr(steps, name, step)


@functools.cache
def _export_with_table() -> Callable[..., Any] | None:
    """Return the function of torch's exporter that takes a table of translations; None without."""
    try:
        export: Callable[..., Any] = importlib.import_module(f"{_EXPORTER}._core").export
        taken = inspect.signature(export).parameters.keys()
        read = inspect.signature(_registry().from_torchlib).parameters.keys()
    except (ImportError, AttributeError):
        return None
    known = taken >= {"registry", "opset_version", *_OPTIONS} and "opset_version" in read
    return export if known else None


def _registry() -> Any:
    """Return torch's class of tables of translations."""
    return importlib.import_module(f"{_EXPORTER}._registration").ONNXRegistry


def _names(program: torch.export.ExportedProgram) -> frozenset[str]:
    """Return the names of torch's operators in a program, without those of their overloads."""
    called = (node.target for node in program.graph.nodes if node.op == "call_function")
    return frozenset(str(getattr(op, "__name__", op)).partition(".")[0] for op in called)


@functools.cache
def _torchlib(opset: int, name: str | None = None) -> Any:
    """Return torchlib's table for an opset, of the operators with this name or of all."""
    with contextlib.ExitStack() as stack:
        if name is not None:
            stack.enter_context(_narrowed(name))
        return _registry().from_torchlib(opset_version=opset)


@contextlib.contextmanager
def _narrowed(name: str) -> Iterator[None]:
    """Let torchlib list operators with this name alone: it reads the source of what it lists."""
    listed: Any = importlib.import_module(_TORCHLIB)
    whole: Any = getattr(listed, "default_registry", None)
    if not hasattr(whole, "items"):  # another onnxscript lists them elsewhere
        yield
        return
    with _lock:
        importlib.import_module(f"{_TORCHLIB.rpartition('.')[0]}.ops")  # which fill the list
        listed.default_registry = {
            qualified: functions
            for qualified, functions in whole.items()
            if qualified.partition("::")[2].partition(".")[0] == name
        }
        try:
            yield
        finally:
            listed.default_registry = whole


@functools.lru_cache(maxsize=8)
def _own_table(opset: int, own: tuple[tuple[Any, Callable[..., Any]], ...]) -> Any:
    """Return a table with operators of ours, and what writes their nodes."""
    table = copy.copy(_torchlib(opset, ""))
    table.functions = {op: list(functions) for op, functions in table.functions.items()}
    for op, symbolic in own:
        table.register_op(op, _as_function(symbolic))
    return table


def _table(
    opset: int, own: tuple[tuple[Any, Callable[..., Any]], ...], names: frozenset[str] | None
) -> Any:
    """Return a table with operators of ours, and torchlib's of these names or all."""
    table = copy.copy(_own_table(opset, own))
    read = (
        [_torchlib(opset)] if names is None else [_torchlib(opset, name) for name in sorted(names)]
    )
    table.functions = {op: f for each in read for op, f in each.functions.items()} | table.functions
    return table


def _as_function(symbolic: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a symbolic function: the exporter sets attributes on it, which a method refuses."""

    def function(*args: Any) -> Any:
        return symbolic(*args)

    return function
