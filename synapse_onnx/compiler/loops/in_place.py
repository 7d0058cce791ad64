"""Operators that change their argument, written as operators that return a new value.

torch does so by a second trace, which takes longer than the first. Most code needs none: it changes
what an operator has just made, and nobody holds another view of it::

    tmp = mem * beta              tmp = mul(mem, beta)          tmp = mul(mem, beta)
    tmp -= reset           ->     tmp_1 = sub_(tmp, reset)  ->  tmp_1 = sub(tmp, reset)
    mem = tmp + x                 mem = add(tmp, x)             mem = add(tmp_1, x)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

__all__ = ["without_changes"]

aten = torch.ops.aten

#: operators besides elementwise ones that return a tensor of their own
_OWN = {
    aten.zeros.default, aten.ones.default, aten.full.default, aten.zeros_like.default,
    aten.ones_like.default, aten.full_like.default, aten.new_zeros.default, aten.clone.default,
    aten.linear.default, aten.matmul.default, aten.conv1d.default, aten.conv2d.default,
    aten.stack.default, aten.rand_like.default,
}  # fmt: skip


def without_changes(program: torch.export.ExportedProgram) -> bool:
    """Rewrite the operators of a program that change their first argument.

    Returns:
        Whether that was possible; else the program is as it was.
    """
    nodes = list(program.graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    changes = [node for node in nodes if _changes(node) and node.target != aten.detach_.default]
    replaced = {node: _returning(node.target) for node in changes}
    if None in replaced.values():
        return False
    for node in changes:
        target = node.args[0]
        if not isinstance(target, fx.Node) or not _is_own(target):
            return False
        if not _keeps_type(node, replaced[node]):
            return False
        for alias in _aliases(target, node):
            if any(order[user] > order[node] for user in alias.users):
                return False
    for node in changes:
        target = node.args[0]
        assert isinstance(target, fx.Node)
        node.target = replaced[node]

        def is_later(user: fx.Node, change: int = order[node]) -> bool:
            return order[user] > change

        target.replace_all_uses_with(node, delete_user_cb=is_later)
    for node in nodes:
        if node.target == aten.detach_.default:  # which changes no value
            node.target = aten.detach.default
    return True


def _changes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _returning(op: Any) -> Any:
    """Return the operator that returns what another one makes of its first argument, or None."""
    schema = op._schema
    changed = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    if changed != [True] + [False] * (len(changed) - 1) or len(schema.returns) != 1:
        return None
    namespace, _, name = schema.name.partition("::")
    if namespace != "aten" or not name.endswith("_"):
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, op._overloadname, None)


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
