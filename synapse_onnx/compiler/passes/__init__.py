"""Lowering: small passes over the exported graph, one a file, found by themselves.

Every pass is a function ``run(model)`` that changes an ``onnx_ir.Model`` in place and returns how
many changes it made. A pass that cannot prove that the outputs stay the same does not fire.

A file says where its pass runs by the names of other passes, for example ::

    AFTER = ("cancel_transposes",)
    BEFORE = ("clean_up",)

``AFTER = EVERY_OTHER`` is for the last one. Where nothing is said, the names decide.
"""

from __future__ import annotations

import graphlib
import importlib
from collections.abc import Callable, Mapping
from functools import cache

import onnx_ir as ir

from synapse_onnx._discovery import public_modules
from synapse_onnx.errors import RegistryError

__all__ = ["EVERY_OTHER", "all_passes", "lower"]

#: what the last pass runs after
EVERY_OTHER = ("*",)


@cache
def all_passes() -> Mapping[str, Callable[[ir.Model], int]]:
    """Return name -> ``run`` of every pass in this folder, in the order in which they run.

    Raises:
        RegistryError: a pass names one that does not exist, or no order satisfies all of them.
    """
    modules = {
        name: importlib.import_module(f"{__name__}.{name}") for name in public_modules(__path__)
    }
    earlier: dict[str, set[str]] = {name: set() for name in modules}
    for name, module in modules.items():
        after, before = getattr(module, "AFTER", ()), getattr(module, "BEFORE", ())
        if after == EVERY_OTHER:
            after = modules.keys() - {name}
        for other in (*after, *before):
            if other not in modules:
                raise RegistryError(f"pass {name} names {other!r}, which is no pass")
        earlier[name].update(after)
        for other in before:
            earlier[other].add(name)
    sorter = graphlib.TopologicalSorter(earlier)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = " before ".join(error.args[1])
        raise RegistryError(f"the passes have no order: {circle}") from error
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()])  # of several that may run, by name
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return {name: modules[name].run for name in order}


def lower(model: ir.Model) -> dict[str, int]:
    """Run every pass, in order; return the number of changes of each."""
    return {name: run(model) for name, run in all_passes().items()}
