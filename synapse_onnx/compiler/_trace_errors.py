"""Sentences of failed traces: what stopped the tracer, in which module, and what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import ExportError, SynapseError

__all__ = ["conversion_error", "failure", "running_modules", "trace_error", "with_module"]


@contextlib.contextmanager
def running_modules(module: nn.Module) -> Iterator[list[str]]:
    """Keep a list of the paths of the submodules that are running, innermost last.

    After an exception the list still tells where it was raised.
    """
    running: list[str] = []

    def leave(*_: Any) -> None:  # a hook that returned the path would replace the output
        running.pop()

    with contextlib.ExitStack() as hooks:
        for path, child in module.named_modules():
            enter = child.register_forward_pre_hook(lambda *_, path=path: running.append(path))
            hooks.enter_context(enter)
            hooks.enter_context(child.register_forward_hook(leave))
        yield running


def with_module(error: SynapseError, running: Sequence[str]) -> SynapseError:
    """Return the error of a layer with the layer's path: ``block.neuron: ...``."""
    path = f"{running[-1]}: " if running and running[-1] else ""
    return type(error)(f"{path}{error}")


def trace_error(error: Exception, running: Sequence[str]) -> ExportError:
    """Return one sentence on why the tracer stopped, where, and what to do."""
    text = str(error)
    where = f" in module '{running[-1]}'" if running and running[-1] else ""
    if "data-dependent" in text:
        return ExportError(
            f"the module cannot be traced: a branch or size{where} depends on the values of a "
            f"tensor; use torch.where or a mask in forward()"
        )
    for pattern, sentence in _KNOWN:
        match = re.search(pattern, text)
        if match is not None:
            return ExportError(sentence.format(*match.groups(), where=where))
    return ExportError(f"the module cannot be traced{where}: {_gist(error)}")


#: what torch says, and what a user can do about it
_KNOWN = (
    (
        r"Found <class '(?:.*\.)?(\w+)'> in output, which is not a known type",
        "forward() returns a {0}, and a model returns tensors; return tensors, or tuples, lists "
        "and dicts of them",
    ),
    (
        r"\A(aten\.\w*sparse[\w.]*)",
        "forward() makes a sparse tensor{where} ({0}), and a model has dense ones alone; compute "
        "with dense tensors",
    ),
    (
        r"\A(aten\.[\w.]+)(?:\n|\Z)",
        "operator {0}{where} cannot be traced; replace it in forward() by standard operators",
    ),
    (
        r"numpy\(\) is not supported for tensor subclasses",
        "the module cannot be traced: a tensor{where} becomes a NumPy array; compute with torch",
    ),
    (
        r"found a fake tensor in the exported program constant's list",
        "the module cannot be traced: forward() reads the .data of a tensor, or keeps one outside "
        "of modules; use .detach(), and hold tensors in buffers",
    ),
    (
        r"unhashable type: non-nested Sym",
        "forward() looks a size up in a dictionary or a set{where}, and a model is for all sizes; "
        "leave it out, or export with dynamic=False",
    ),
    (
        r"not '(?:SymBool|SymInt|SymFloat)'",
        "forward() makes a Python number of a size{where}, and a model is for all sizes; compute "
        "with the size as it is, or export with dynamic=False",
    ),
    (
        r"data is not allocated yet",
        "forward() makes a tensor of the values of others{where} by torch.FloatTensor or the like; "
        "use torch.stack",
    ),
)


def failure(frozen: nn.Module, inputs: Sequence[Tensor], what: str) -> SynapseError | None:
    """Return the error that a network raises by itself on these inputs; None where it runs."""
    with running_modules(frozen) as running, torch.no_grad():
        try:
            frozen(*inputs)
        except SynapseError as error:
            return with_module(error, running)
        except Exception as error:  # code of the user's
            where = f", in module '{running[-1]}'" if running and running[-1] else ""
            return ExportError(f"forward() fails on {what}{where}: {_gist(error)}")
    return None


def _gist(error: Exception) -> str:
    """Return class and first line of an error."""
    lines = [line.strip(" -\n") for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".") if lines else "no reason given"
    return f"{type(error).__name__}: {reason}"


def conversion_error(error: Exception, program: torch.export.ExportedProgram) -> ExportError:
    """Name the operator that has no ONNX form, and its module."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        match = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", str(link))
        if match is not None:
            operator = match[1]
            return ExportError(
                f"operator {operator} in module {_module_of(operator, program)} has no ONNX form; "
                f"replace it in forward() by standard operators"
            )
        match = re.search(
            r"parameter '(\w+)' is not provided.*torch_lib::(aten)_(\w+)\(", str(link)
        )
        if match is not None:
            missing, operator = match[1], f"{match[2]}.{match[3]}"
            return ExportError(
                f"operator {operator} in module {_module_of(operator, program)} has an ONNX form "
                f"with its argument {missing!r} alone; give it in forward()"
            )
        match = re.search(r"No ONNX function found for <built-in function (\w+)>", str(link))
        if match is not None:
            return ExportError(
                f"forward() applies {match[1]}() to a size, which has no ONNX form; use // or "
                f"math.floor, or export with dynamic=False"
            )
    lines = str(chain[-1]).strip().splitlines()
    reason = lines[0] if lines else type(chain[-1]).__name__
    return ExportError(f"the module cannot be converted: {reason}")


def _module_of(operator: str, program: torch.export.ExportedProgram) -> str:
    """Return the user's module that calls an operator (``aten.name.overload``)."""
    # torch.onnx decomposes the program first: aten.special_bessel_j0.default in the user's module
    # is prims.bessel_j0 when the exporter finds no ONNX form of it
    graphs = (program.graph, program.run_decompositions().graph)
    for node in (node for graph in graphs for node in graph.nodes):
        if operator.split(".")[1] in str(node.target):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path, kind = stack[-1] if stack else ("", "")
            name = kind if isinstance(kind, str) else kind.__qualname__
            kind = name.rsplit(".", 1)[-1]
            return f"'{path}' ({kind})" if path else kind
    return "(unknown)"
