"""Remove Reshapes that give an earlier shape back: images stay (T·N, C, H, W) between operators.

Torch code that runs once over a sequence folds time into the batch and unfolds it after every
operator. Between a convolution and its pool ONNX Runtime would turn the whole sequence to its plain
layout and back again for such a pair:

    c = Conv (x)    a = Reshape (c) [T, N, C, H, W]
                    b = Reshape (a) [T·N, C, H, W]      y = MaxPool (b)      becomes
    c = Conv (x)    y = MaxPool (c)
"""

from __future__ import annotations

import onnx_ir as ir

AFTER = ("cancel_transposes",)  # a Reshape is moved before a Transpose that goes
BEFORE = ("clean_up",)


def run(model: ir.Model) -> int:
    """Let what reads a Reshape read the value of the same shape that it goes back to."""
    changes = 0
    for node in model.graph:
        if not _is_reshape(node) or node.outputs[0].is_graph_output():
            continue
        source = _of_the_same_shape(node)
        if source is not None:
            node.outputs[0].replace_all_uses_with(source)
            changes += 1
    return changes


def _is_reshape(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Reshape" and not node.domain


def _of_the_same_shape(last: ir.Node) -> ir.Value | None:
    """Return the value of the same shape that a Reshape and those before it start from."""
    wanted, node, found = last.outputs[0].shape, last, None
    while node is not None and _is_reshape(node):
        value = node.inputs[0]
        if value is None:
            break
        if _are_equal(value.shape, wanted):
            found = value
        node = value.producer()  # type: ignore[assignment]
    return found


def _are_equal(one: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Whether two shapes are known to be equal: an open size is equal to itself alone."""
    if one is None or other is None or len(one) != len(other):
        return False
    return all(
        a == b and (isinstance(a, int) or a.value is not None)
        for a, b in zip(one, other, strict=True)
    )
