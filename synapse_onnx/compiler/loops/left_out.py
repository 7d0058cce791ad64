"""Loops that leave steps out: which steps of its sequences a trace reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_onnx.compiler.loops.form import Apply, Family, Form, Phases, Stack, parts_of
from synapse_onnx.compiler.loops.numbers import Formula
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.reading import SELECT, SLICE, STACK, Reading
from synapse_onnx.compiler.loops.terms import Size, Term, terms_in

__all__ = ["least_steps", "longest_period", "orders_of"]

#: slices of a sequence that are looked at; windows of each step are more
_SLICES = 4


def orders_of(readings: Mapping[Size, Reading]) -> list[Order]:
    """Return the orders of loops that leave steps out, as some traces of a network suggest.

    They suggest one where sequences are read at steps 1, 3, 5, ... alone, or where one is cut, as
    ``x[1::2]`` is. It is a guess: the form shows whether there is such a loop.
    """
    found: dict[Order, None] = {}
    steps: dict[Size, list[int]] = {}
    for size, reading in readings.items():
        indices, slices = _reads(reading, size.steps)
        steps[size] = sorted(indices)
        for start, end, stride in slices if len(slices) <= _SLICES else ():
            found[Order(start=start, stride=stride, left_out=size.steps - end)] = None
    read = _of_steps(steps)
    orders = ([read] if read else []) + list(found)
    return [order for order in orders if not order.takes_all and order.left_out >= 0]


def _of_steps(steps: Mapping[Size, list[int]]) -> Order | None:
    """Return the order in which a loop reads these steps, if they are equally far apart."""
    longest = max(steps.values(), key=len)
    if len(longest) < 3:
        return None
    start, stride = longest[0], longest[1] - longest[0]
    left_out = 0
    for size, indices in steps.items():
        if indices != list(range(start, indices[-1] + 1 if indices else 0, stride)):
            return None
        left_out = max(left_out, size.steps - indices[-1] - stride)
    return Order(start=start, stride=stride, left_out=left_out)


def _reads(reading: Reading, length: int) -> tuple[set[int], set[tuple[int, int, int]]]:
    """Return the steps of sequences that are read, and the parts (start, end, stride) of slices."""
    indices: set[int] = set()
    slices: set[tuple[int, int, int]] = set()
    seen: set[Term] = set()
    todo = [term for term in reading.outputs if isinstance(term, Term)]
    while todo:
        term = todo.pop()
        if term in seen:
            continue
        seen.add(term)
        todo += terms_in(term)
        if term.op not in (SELECT, SLICE) or term.args[0].op is STACK:
            continue
        given: list[Any] = [*term.args, *(0, None, None, 1)[len(term.args) - 1 :]]
        source, axis, part = given[0], given[1], given[2:]
        size = reading.shape(source)
        if size[axis % len(size)] != length:
            continue
        if term.op is SELECT:
            indices.add(part[0])
        else:
            start, end, stride = slice(*part).indices(length)
            slices.add((start, end, stride))
    return indices, slices


def least_steps(form: Form) -> int:
    """Return the length of a sequence of which every part that a form takes has two steps."""
    counts = [1]
    for value in parts_of(form.outputs):
        if isinstance(value, Stack) and (value.start or value.stride > 1):
            counts.append(value.start + value.stride + 1)
        elif isinstance(value, Apply) and value.op is SLICE and _is_cut(value):
            counts.append(value.args[2] + 2)
    count = max(counts) if form.order.takes_all else max(2, *counts)
    return form.order.length(count)


def longest_period(form: Form) -> int:
    """Return after how many steps a form does the same again: the longest period of its parts."""
    periods = [1]
    for part in parts_of(form.outputs):
        if isinstance(part, Stack):
            periods += [part.stride, *_periods(part.slot)]
        elif isinstance(part, Family) and isinstance(part.node, Apply):
            for slot in (*part.node.args, *part.node.kwargs.values()):
                periods += _periods(slot)
    return max(periods)


def _periods(slot: Any) -> list[int]:
    if isinstance(slot, Phases):
        return [len(slot.slots), *(each for inner in slot.slots for each in _periods(inner))]
    if isinstance(slot, Formula):
        return [len(slot.cycle)]
    return []


def _is_cut(value: Apply) -> bool:
    """Whether a slice leaves so many values out, a number that is known."""
    start = value.args[2] if len(value.args) > 2 else None
    return isinstance(start, int) and start > 0
