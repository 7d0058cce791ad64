"""Transposes between torch's layout (N, C[, H, W], T) and the graph's, (T, N, C[, H, W])."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["is_transpose", "permutation", "time_first", "time_last", "turns"]


def is_transpose(node: ir.Node) -> bool:
    """Whether a node is a Transpose that names its axes, as those of the tracer do."""
    return node.op_type == "Transpose" and node.domain == "" and "perm" in node.attributes


def permutation(node: ir.Node) -> list[int]:
    """Return the axes of a Transpose."""
    return list(node.attributes["perm"].as_ints())


def turns(node: ir.Node, axes: list[int]) -> bool:
    """Whether a node is a Transpose with these axes."""
    return is_transpose(node) and permutation(node) == axes


def time_first(rank: int) -> list[int]:
    """Return the axes that move time from the end to the front."""
    return [rank - 1, *range(rank - 1)]


def time_last(rank: int) -> list[int]:
    """Return the axes that move time from the front to the end."""
    return [*range(1, rank), 0]
