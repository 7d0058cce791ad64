"""Name nodes and values after their module, and drop the exporter's own names and metadata.

Those follow an internal numbering, and hold file paths and line numbers of the machine that
exported. A file that is the same every time can have neither.
"""

from __future__ import annotations

import ast
import re
from collections import Counter

import onnx_ir as ir

from synapse_onnx.compiler.passes import EVERY_OTHER
from synapse_onnx.model.metadata import LAYER
from synapse_onnx.ops import DOMAIN, get_op

AFTER = EVERY_OTHER  # nodes that a later pass adds would have no name

_SYMBOL = re.compile(r"\b[su]\d+\b")
_SCOPES = "pkg.torch.onnx.name_scopes"
#: what torch says of a parameter, buffer or other tensor of a module, and of no other initialiser
_OF_MODULE = "pkg.torch.export.graph_signature.InputSpec.kind"


def run(model: ir.Model) -> int:
    """Rename every node and its outputs; mark our own nodes with their layer."""
    used: Counter[str] = Counter()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
        path = scopes[-2] if len(scopes) > 1 else ""
        if path.startswith("_"):  # the tracer's own nodes, of no module
            path = ""
        ours = node.domain == DOMAIN
        stem = path if ours and path else "/".join(part for part in (path, node.op_type) if part)
        used[stem] += 1
        name = stem if used[stem] == 1 else f"{stem}#{used[stem]}"
        node.name = name
        node.metadata_props.clear()
        if ours:
            node.metadata_props[LAYER] = path
            suffixes = [f":{output}" for output in get_op(node.op_type).outputs]
        else:
            suffixes = [":out"] if len(node.outputs) == 1 else [
                f":out{i}" for i in range(len(node.outputs))
            ]  # fmt: skip
        for value, suffix in zip(node.outputs, suffixes, strict=True):
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.name = name + suffix
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    _name_constants(model.graph)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    _name_open_axes(model.graph)
    return sum(used.values())


def _name_constants(graph: ir.Graph) -> None:
    """Number initialisers that are no parameter of a module: val_7 becomes constant_0."""
    count = 0
    inputs = {value.name for value in graph.inputs}
    for value in list(graph.initializers.values()):
        if _OF_MODULE not in value.metadata_props:
            # ours, or one of the user's
            while f"constant_{count}" in graph.initializers or f"constant_{count}" in inputs:
                count += 1
            value.name = f"constant_{count}"


def _name_open_axes(graph: ir.Graph) -> None:
    """Rename the tracer's symbols (s77) to N and T, the first and the last axis of an input."""
    names: dict[str, str] = {}
    for value in graph.inputs:
        dims = list(value.shape or ())
        for dim, name in zip((*dims[:1], *dims[-1:]), ("N", "T"), strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                names.setdefault(dim.value, name)
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim

    def name(symbol: re.Match[str]) -> str:
        # u0 is a size that depends on values: in our ops, only the number of bins of time
        return names.get(symbol[0], "T_bins" if symbol[0].startswith("u") else symbol[0])

    return ir.SymbolicDim(_SYMBOL.sub(name, dim.value))
