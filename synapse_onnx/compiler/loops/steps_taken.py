"""Operators that a step gives its own number, though they take no tensor there."""

from __future__ import annotations

from typing import Any

import torch

from synapse_onnx.compiler.loops.form import Apply, Family, Form, flat, parts_of
from synapse_onnx.compiler.loops.numbers import Formula
from synapse_onnx.compiler.loops.whole_sequence import for_tensors

__all__ = ["operator_without_steps"]


def operator_without_steps(form: Form) -> tuple[str, str]:
    """Return the first operator that cannot take the number of a step, and its line of code.

    Within a model the number of a step is a tensor. ``buffer[t + 1] = v``, where the buffer is
    returned as it is, needs a Python number instead.

    Returns:
        Its name and its line; "" and "" if there is none.
    """
    for family in parts_of(form.outputs):
        if isinstance(family, Family) and isinstance(family.node, Apply) and _fails(family.node):
            latest = max(family.members, key=lambda key: (key[0].steps, key[1]))
            return str(family.node.op), form.places.get(family.members[latest], "")
    return "", ""


def _fails(node: Apply) -> bool:
    schema = getattr(for_tensors(node.op), "_schema", None)
    if schema is None:
        return False
    kinds = {argument.name: argument.type for argument in schema.arguments}
    given = [*zip(kinds, node.args, strict=False), *node.kwargs.items()]
    return any(
        not isinstance(kinds.get(name), torch.TensorType) for name, slot in given if _steps(slot)
    )


def _steps(slot: Any) -> bool:
    """Whether a slot is a number that changes from step to step, or a list with one."""
    return any(isinstance(each, Formula) and each.changes for each in flat(slot))
