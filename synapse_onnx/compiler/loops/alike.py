"""Families that are computed alike at different steps become one.

Where every second spike is returned, the walk from the outputs finds the voltage of even steps, and
the voltage of odd steps that it is computed of, and that is computed of it::

    even[t] = 0.9 * odd[t - 1] + x[t]           at 0, 2, 4, ...
    odd[t] = 0.9 * even[t - 1] + x[t]           at 1, 3, 5, ...

    v[t] = 0.9 * v[t - 1] + x[t]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from synapse_onnx.compiler.loops.form import (
    Apply,
    Entry,
    Family,
    Fixed,
    Last,
    Listed,
    Phases,
    Reference,
    Stack,
    parts_of,
)

__all__ = ["merge_alike"]


def merge_alike(outputs: list[Any]) -> None:
    """Merge families of a form that are one operator on the same, and have no step in common."""
    parts = list(parts_of(outputs))
    families = [part for part in parts if isinstance(part, Family)]
    if not any(map(_has_phases, parts)):
        return
    for alike in _alike(families):
        first, *others = sorted(alike, key=lambda family: family.number)
        for other in others:
            _merge(first, other)


def _has_phases(part: Any) -> bool:
    """Whether a part of a form reads some steps of a family and not others."""
    if isinstance(part, Stack):
        return part.stride > 1 or isinstance(part.slot, Phases)
    if isinstance(part, Last):
        return isinstance(part.slot, Phases)
    if isinstance(part, Family) and isinstance(part.node, Apply):
        slots = (*part.node.args, *part.node.kwargs.values())
        return any(isinstance(slot, Phases) for slot in slots)
    return False


def _alike(families: list[Family]) -> list[list[Family]]:
    """Return families that are alike: so are those that they read, and no step is in two of them.

    All of one operator are taken for alike, until what they read tells them apart.
    """
    kinds: dict[Family, Any] = dict.fromkeys(families, 0)
    apart: dict[Family, int] = {}
    while True:
        ways = {family: (apart.get(family), _way(family, kinds)) for family in families}
        numbers = {way: i for i, way in enumerate(dict.fromkeys(ways.values()))}
        finer = {family: numbers[way] for family, way in ways.items()}
        if len(numbers) > len(set(kinds.values())):
            kinds = finer
            continue
        classes: dict[int, list[Family]] = defaultdict(list)
        for family, number in finer.items():
            classes[number].append(family)
        mixed = [alike for alike in classes.values() if _overlap(alike)]
        if not mixed:
            return [alike for alike in classes.values() if len(alike) > 1]
        apart |= {family: family.number for alike in mixed for family in alike}


def _overlap(families: list[Family]) -> bool:
    """Whether two families have a value at the same step of a trace."""
    keys = [key for family in families for key in family.members]
    return len(keys) > len(set(keys))


def _way(family: Family, kinds: Mapping[Family, Any]) -> Any:
    """Return how a family is computed, with the kinds of those that it reads."""
    node = family.node
    if isinstance(node, Entry):
        how: Any = (id(node.source), node.axis, node.ahead)
    else:
        named = sorted(node.kwargs.items())
        how = (
            node.op,
            *(_slot(slot, kinds) for slot in node.args),
            *((name, _slot(slot, kinds)) for name, slot in named),
        )
    return (how, repr(family.shape), family.dtype)


def _slot(slot: Any, kinds: Mapping[Family, Any]) -> Any:
    if isinstance(slot, Reference):
        return ("value", kinds[slot.family.found()], slot.delay)
    if isinstance(slot, Fixed):
        return ("fixed", id(slot.value))
    if isinstance(slot, Listed | Phases):
        return (type(slot).__name__, *(_slot(each, kinds) for each in slot.slots))
    return (type(slot).__name__, repr(slot))


def _merge(family: Family, other: Family) -> None:
    """Make two families one, with what each reads instead at its early steps."""
    if isinstance(family.node, Apply):
        pairs = [*zip(family.node.args, other.node.args, strict=True)]
        pairs += [(slot, other.node.kwargs[name]) for name, slot in family.node.kwargs.items()]
        for one, two in pairs:
            _join(one, two)
    family.members |= other.members
    other.merged = family


def _join(one: Any, two: Any) -> None:
    if isinstance(one, Reference | Fixed):
        one.instead = {**one.instead, **two.instead}
    elif isinstance(one, Listed | Phases):
        for each, other in zip(one.slots, two.slots, strict=True):
            _join(each, other)
