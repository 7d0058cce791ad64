"""Operators that change their argument, written as operators that return a new value.

torch does so by a second trace, which takes longer than the first. Most code needs none: it changes
what an operator has just made, and nobody holds another view of it::

    tmp = mem * beta              tmp = mul(mem, beta)          tmp = mul(mem, beta)
    tmp -= reset           ->     tmp_1 = sub_(tmp, reset)  ->  tmp_1 = sub(tmp, reset)
    mem = tmp + x                 mem = add(tmp, x)             mem = add(tmp_1, x)

    out[t] = mem                  copy_(select(out, 0, t), mem) ->  select_scatter(out, mem, 0, t)
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from synapse_onnx.compiler.loops.memory import returning
from synapse_onnx.compiler.loops.reading import SELECT, SELECT_SCATTER

__all__ = ["changes_left", "seen_changes", "without_changes"]

aten = torch.ops.aten

#: operators that return their first argument, if it is of their type already
_ITSELF = {
    aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten.detach.default,
    aten.detach_.default, aten.alias.default,
}  # fmt: skip

#: operators besides elementwise ones that return a tensor of their own
_OWN = {
    aten.zeros.default, aten.ones.default, aten.full.default, aten.zeros_like.default,
    aten.ones_like.default, aten.full_like.default, aten.new_zeros.default, aten.clone.default,
    aten.linear.default, aten.matmul.default, aten.conv1d.default, aten.conv2d.default,
    aten.stack.default, aten.rand_like.default, aten.empty_like.default, aten.empty.memory_format,
    aten.new_empty.default, aten.batch_norm.default, aten.layer_norm.default, aten.cat.default,
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.mm.default, aten.bmm.default,
    aten.addmm.default, SELECT_SCATTER,
    aten.lift_fresh.default,  # torch.tensor(0.0), which nobody else holds
}  # fmt: skip

#: operators whose result has the memory of their argument, or a copy of it
_VIEWS = {
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int,
    aten.unsqueeze.default, aten.permute.default, aten.transpose.int,
}  # fmt: skip

#: operators that return several tensors, each of its own
_OWN_EACH = {aten.lstm_cell.default}


def without_changes(graph: fx.Graph) -> bool:
    """Rewrite the operators of a graph that change their first argument.

    Returns:
        Whether that was possible; else the graph computes what it did, and changes as much.
    """
    if changes_left(graph):
        return False
    nodes = list(graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    for node in _changes_of(nodes):
        changed = node.args[0]
        assert isinstance(changed, fx.Node)
        if _is_row(changed):
            changed, node = changed.args[0], _scattered(graph, node)  # noqa: PLW2901
            order[node] = order[node.prev]
            assert isinstance(changed, fx.Node)
        else:
            node.target = returning(node.target)

        def is_later(user: fx.Node, change: fx.Node = node) -> bool:
            return order[user] > order[change]

        changed.replace_all_uses_with(node, delete_user_cb=is_later)
    for node in nodes:
        if node.target in (aten.detach_.default, aten.copy_.default):  # which nobody reads now
            graph.erase_node(node)
    return True


def changes_left(graph: fx.Graph) -> list[fx.Node]:
    """Return the operators that cannot be rewritten so."""
    nodes = list(graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        if _is_its_argument(node):
            node.replace_all_uses_with(node.args[0])
    return [node for node in _changes_of(nodes) if not _is_rewritten(node, order)]


def seen_changes(graph: fx.Graph) -> list[fx.Node]:
    """Return the operators that change a value which others than their own readers may see.

    A copy that ``contiguous()`` or ``reshape()`` made may be no copy where sizes are others.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    return [node for node in _changes_of(order) if not _is_unseen(node, node.args[0], node, order)]


def _is_rewritten(node: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether nobody sees the change of a node besides those who read its result."""
    target = node.args[0]
    if not isinstance(target, fx.Node):
        return False
    changed, change = target, node
    if _is_row(target) and node.target == aten.copy_.default:
        row, value = target.meta["val"], node.args[1]
        if not isinstance(value, fx.Node) or node.users or len(target.users) > 1:
            return False
        given = value.meta["val"]
        if (given.shape, given.dtype) != (row.shape, row.dtype):
            return False
        sequence = target.args[0]
        assert isinstance(sequence, fx.Node)
        changed, change = sequence, target
    else:
        op = returning(node.target)
        if op is None or node.target == aten.copy_.default or not _keeps_type(node, op):
            return False
    return _is_unseen(node, changed, change, order)


def _is_unseen(node: fx.Node, changed: Any, change: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether nobody reads a value, or what shares its memory, after a node has changed it."""
    if not isinstance(changed, fx.Node) or not _is_own(changed):
        return False
    seen_before = [each for each in _aliases(changed, change) if order[each] < order[node]]
    return not any(order[user] > order[node] for each in seen_before for user in each.users)


def _is_its_argument(node: fx.Node) -> bool:
    """Whether a value is the very tensor that its operator was given, as ``y.float()`` of one."""
    if node.op != "call_function" or node.target not in _ITSELF:
        return False
    before = node.args[0]
    options = [*node.args[2:], node.kwargs.get("copy"), node.kwargs.get("memory_format")]
    if not isinstance(before, fx.Node) or any(options):
        return False
    one, other = before.meta.get("val"), node.meta.get("val")
    same = [getattr(each, "dtype", None) for each in (one, other)]
    return same[0] is not None and same[0] == same[1]


def _is_row(node: fx.Node) -> bool:
    """Whether a value is a row of another one, as in ``out[t] = y``."""
    return node.op == "call_function" and node.target == SELECT


def _scattered(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Put the row that a node writes in its sequence, and return that."""
    row, value = node.args[:2]
    assert isinstance(row, fx.Node)
    sequence, axis, index = row.args
    assert isinstance(sequence, fx.Node)
    with graph.inserting_after(node):
        result = graph.call_function(SELECT_SCATTER, (sequence, value, axis, index))
    result.meta = dict(node.meta) | {"val": sequence.meta["val"]}
    return result


def _changes_of(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Return the operators that change values."""
    return [node for node in nodes if _changes(node) and node.target != aten.detach_.default]


def _changes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _keeps_type(node: fx.Node, op: Any) -> bool:
    """Whether the other operator gives a value of the same type: int32 += int64 stays int32."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: each.meta["val"])
    result, value = op(*args, **kwargs), node.meta["val"]
    return bool(result.dtype == value.dtype and result.shape == value.shape)


def _is_own(node: fx.Node) -> bool:
    """Whether a value has memory of its own: no argument, parameter or other value shares it."""
    if node.op != "call_function":
        return False
    if _changes(node):  # of a value that was made before
        before = node.args[0]
        return isinstance(before, fx.Node) and _is_own(before)
    if node.target == aten.clone.default and node.kwargs.get("memory_format") is not None:
        return False  # of contiguous() or reshape()
    if node.target is operator.getitem:  # of what no other node is
        source: Any = node.args[0]
        return source.target in _OWN_EACH and sum(u.args == node.args for u in source.users) == 1
    if node.target in _VIEWS:  # of what nobody else reads: y = norm(x).view(T, N, C); y += z
        before = node.args[0]
        return isinstance(before, fx.Node) and _is_own(before) and list(before.users) == [node]
    if node.target in _OWN:
        return True
    schema = getattr(node.target, "_schema", None)
    return (
        schema is not None
        and torch.Tag.pointwise in getattr(node.target, "tags", ())
        and all(each.alias_info is None for each in schema.returns)
    )


def _aliases(node: fx.Node, change: fx.Node) -> Iterator[fx.Node]:
    """Yield the values that share memory with one that is changed, besides itself."""
    for user in node.users:
        if user is change:
            continue
        if user.op == "output" or (user.op == "call_function" and _may_alias(user)):
            yield user
            yield from _aliases(user, change)


def _may_alias(node: fx.Node) -> bool:
    """Whether a value may share memory with an argument of its operator."""
    return not _is_own(node) or _changes(node)
