"""The order in which the families of a form are computed.

Families that follow from each other through time are one group, and a loop. Every other family is
a group of its own, and is computed for all steps at once. So a loop holds the recurrence alone::

    mem -> spike -> reset -> mem          one loop
    convolution of all inputs             before it
    mean of all spikes                    after it
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import networkx

from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Form,
    Last,
    Reference,
    Stack,
    flat,
    parts_of,
)
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.whole_sequence import has_rule

__all__ = ["Group", "grouped"]


@dataclass(frozen=True, eq=False)
class Group:
    """Families that are computed together.

    Attributes:
        families: the families, each after those of the same step that it reads.
        outputs: those that are read outside.
        recurrent: whether they are computed step by step, in a loop.
    """

    families: list[Family]
    outputs: list[Family]
    recurrent: bool


def grouped(form: Form) -> dict[Family, Group]:
    """Return the group of every family that the outputs of a form depend on."""
    graph: Any = networkx.DiGraph()
    wanted: set[Family] = set()
    for family in _reached(form, wanted):
        graph.add_node(family)
        for slot in family.slots():
            if isinstance(slot, Reference):
                read = slot.family.found()
                graph.add_edge(family, read)
                # a tuple is no sequence, and whoever takes a part of it is in the same loop
                if (
                    _takes_part(family)
                    and isinstance(read.node, Apply)
                    and not has_rule(read.node.op)
                ):
                    graph.add_edge(read, family)
    groups: dict[Family, Group] = {}
    for component in networkx.strongly_connected_components(graph):
        recurrent = len(component) > 1 or any(graph.has_edge(f, f) for f in component)
        families = _sorted(component)
        outputs = [
            family
            for family in families
            if family in wanted or any(p not in component for p in graph.predecessors(family))
        ]
        group = Group(families, outputs, recurrent)
        groups.update(dict.fromkeys(families, group))
    return groups


def _takes_part(family: Family) -> bool:
    return isinstance(family.node, Apply) and family.node.op is operator.getitem


def _sorted(component: set[Family]) -> list[Family]:
    """Sort families by what they read of the same step."""
    graph: Any = networkx.DiGraph()
    for family in sorted(component, key=attrgetter("number")):
        graph.add_node(family)
        for slot in family.slots():
            if isinstance(slot, Reference) and not slot.delay and slot.family.found() in component:
                graph.add_edge(slot.family.found(), family)
    try:
        return list(networkx.lexicographical_topological_sort(graph, key=attrgetter("number")))
    except networkx.NetworkXUnfeasible:
        raise NoLoopError("its layers read each other in another order at other steps") from None


def _reached(form: Form, wanted: set[Family]) -> Iterator[Family]:
    """Yield every family that the outputs depend on; ``wanted`` gets those that a whole reads."""
    for value in parts_of(form.outputs):
        if isinstance(value, Family):
            yield value
        elif isinstance(value, Stack | Last):
            wanted.update(
                slot.family.found() for slot in flat(value.slot) if isinstance(slot, Reference)
            )
