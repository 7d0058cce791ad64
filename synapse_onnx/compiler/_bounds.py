"""Bounds of ``clamp`` in one type, as torch's exporter takes them.

torch's exporter casts ``y.clamp(0, 0.5)`` by making a tensor of the bound that has another type,
and then finds no operator with a tensor and a number.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["unify_bounds"]

_CLAMPS = {
    torch.ops.aten.clamp.default, torch.ops.aten.clamp_.default,
    torch.ops.aten.clip.default, torch.ops.aten.clip_.default,
}  # fmt: skip


def unify_bounds(program: torch.export.ExportedProgram) -> None:
    """Make floats of both bounds of a clamp, where one of them is."""
    for node in program.graph.nodes:
        bounds: tuple[Any, ...] = node.args[1:]
        if node.target in _CLAMPS and {type(bound) for bound in bounds} == {int, float}:
            node.args = (node.args[0], *(float(bound) for bound in bounds))
