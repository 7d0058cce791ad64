"""Store weights of standard operators as integers with a scale, where they lie on an integer grid.

Linear maps of a network that was quantised compute with floats that are integers times a scale. In
loops that were found they are synapses of ours; what is left, as a recurrent weight within a Scan,
computes with the same floats as before, which follow from fewer bytes:

    y = MatMul (x, w)      becomes      w = Mul (Cast <to = FLOAT> (integers), scale)
                                        y = MatMul (x, w)

The product is the float to the last bit: a grid is one only then. Not DequantizeLinear: ONNX
Runtime 1.32 makes a product of it that rounds the inputs (MatMulNBits).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch

from synapse_onnx.compiler.loops.scan import RECURRENCE
from synapse_onnx.compiler.names import unique
from synapse_onnx.compiler.passes.store_int4 import as_int4
from synapse_onnx.grid import Grid, find_grid, is_by_chance

AFTER = ("clean_up",)  # weights are initialisers from then on
BEFORE = ("order_initializers", "part_scales", "store_int4")

FLOAT = ir.DataType.FLOAT

#: operators that multiply and sum
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def run(model: ir.Model) -> int:
    """Replace float weights that lie on a grid by integers, a Cast and a Mul; return how many."""
    graph = model.graph
    taken = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value}
    changes = 0
    for value in list(graph.initializers.values()):
        found = _grid_of(value) if _is_weight(value) else None
        if found is not None:
            _store(graph, value, *found, taken)
            changes += 1
    return changes


def _is_weight(value: ir.Value) -> bool:
    """Whether a value is a matrix, or more, of floats that products read alone."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2:
        return False
    if value.is_graph_output() or math.prod(tensor.numpy().shape) == 0:
        return False
    readers = [use.node for use in value.uses()]
    return bool(readers) and all(map(_multiplies, readers))


def _multiplies(node: ir.Node) -> bool:
    if node.op_type == "Transpose" and not node.domain:
        readers = [use.node for use in node.outputs[0].uses()]
        return bool(readers) and all(map(_multiplies, readers))
    return (node.domain, node.op_type) == RECURRENCE or (
        not node.domain and node.op_type in _PRODUCTS
    )


def _grid_of(value: ir.Value) -> tuple[Grid, int] | None:
    """Return the grid of a weight, and the axis of its scales; None of one that has none."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    if not np.isfinite(array).all():
        return None
    weight = torch.from_numpy(np.array(array))
    for bits in (8, 16):
        for axis in (0, 1):  # a matrix may be turned
            grid = find_grid(weight, axis, bits)
            if grid is not None and not is_by_chance(grid, axis):
                return grid, axis
    return None


def _store(graph: ir.Graph, value: ir.Value, grid: Grid, axis: int, taken: set[str | None]) -> None:
    rank = grid.integers.dim()
    scale = grid.scale.reshape([-1 if i == axis else 1 for i in range(rank)])
    name, tensor = value.name, ir.tensor(scale.numpy())
    assert name is not None
    scales = ir.Value(name=unique(f"{name}_scale", taken), const_value=tensor)
    scales.dtype, scales.shape = FLOAT, ir.Shape(list(scale.shape))
    array = grid.integers.numpy()
    stored = as_int4(array, name) or ir.tensor(array)
    integers = ir.Value(name=name, const_value=stored)
    integers.dtype, integers.shape = stored.dtype, value.shape
    cast = ir.node("Cast", [integers], {"to": int(FLOAT)})
    product = ir.node("Mul", [cast.outputs[0], scales])
    for each in (cast.outputs[0], product.outputs[0]):
        each.dtype, each.shape = FLOAT, value.shape
    first = min((use.node for use in value.uses()), key=list(graph).index)
    value.replace_all_uses_with(product.outputs[0])
    del graph.initializers[name]
    for each in (integers, scales):
        each.metadata_props.update(value.metadata_props)
        graph.initializers.add(each)
    for node in (cast, product):
        node.metadata_props.update(first.metadata_props)
        graph.insert_before(first, node)
