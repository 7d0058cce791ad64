"""Put initialisers in the order in which nodes read them.

The exporter's own order depends on how often it traced the program.
"""

from __future__ import annotations

import onnx_ir as ir

AFTER = ("clean_up",)  # which makes initialisers of constants


def run(model: ir.Model) -> int:
    """Return the number of initialisers that moved; those that no node reads come last."""
    initializers = model.graph.initializers
    before = dict.fromkeys(initializers.values())
    read = (value for node in model.graph.all_nodes() for value in node.inputs if value in before)
    order = list(dict.fromkeys([*read, *before]))  # each once, where it comes first
    initializers.clear()
    for value in order:
        initializers.add(value)
    return sum(old is not new for old, new in zip(before, order, strict=True))
