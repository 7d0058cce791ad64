"""Transposes between torch's layout (N, C[, H, W], T) and the graph's, (T, N, C[, H, W])."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["permutation", "time_first", "time_last"]


def permutation(node: ir.Node | None) -> list[int] | None:
    """Return the axes of a Transpose that names them, as those of the tracer do; else None."""
    if node is None or node.op_type != "Transpose" or node.domain or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())


def time_first(rank: int) -> list[int]:
    """Return the axes that move time from the end to the front."""
    return [rank - 1, *range(rank - 1)]


def time_last(rank: int) -> list[int]:
    """Return the axes that move time from the front to the end."""
    return [*range(1, rank), 0]
