"""Lowering: small passes over the exported graph, one a file, in the order given here.

Every pass is a function ``run(model)`` that changes an ``onnx_ir.Model`` in place and returns how
many changes it made. A pass that cannot prove that the outputs stay the same does not fire.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from synapse_onnx.compiler.passes import (
    cancel_transposes,
    clean_up,
    give_shapes,
    mark_spikes,
    move_transposes,
    name_after_modules,
    store_int4,
)

__all__ = ["LOWERING", "lower"]

LOWERING: tuple[tuple[str, Callable[[ir.Model], int]], ...] = (
    ("give_shapes", give_shapes.run),
    ("move_transposes", move_transposes.run),
    ("cancel_transposes", cancel_transposes.run),
    ("clean_up", clean_up.run),
    ("mark_spikes", mark_spikes.run),
    ("store_int4", store_int4.run),
    ("name_after_modules", name_after_modules.run),
)


def lower(model: ir.Model) -> dict[str, int]:
    """Run every pass, in order; return the number of changes of each."""
    return {name: run(model) for name, run in LOWERING}
