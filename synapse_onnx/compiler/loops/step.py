"""A loop, and the elementwise operators after it: polynomials of its states, input and spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Fixed,
    Form,
    Last,
    Leaf,
    Reference,
    Stack,
    flat,
    parts_of,
)
from synapse_onnx.compiler.loops.groups import Group
from synapse_onnx.compiler.loops.numbers import BATCH, Formula
from synapse_onnx.compiler.loops.polynomials import Polynomial
from synapse_onnx.compiler.loops.terms import INPUT

__all__ = ["Step", "UnknownNeuronError"]

aten = torch.ops.aten


class UnknownNeuronError(Exception):
    """A loop is no neuron of this package, and why."""


class Step:
    """A loop, and the elementwise operators after it, as polynomials.

    Attributes:
        values: the polynomial of each family.
        comparisons: symbol of a spike -> (polynomial, whether it spikes above 0 and not at it).
        states: symbol of a state -> (its family, its value at the start).
        input: the slot of the input.
        shape: sizes of the families' values without the batch.

    Raises:
        UnknownNeuronError: it is no polynomial of one input, its states and spikes.
    """

    def __init__(self, form: Form, group: Group, groups: Mapping[Family, Group]) -> None:
        self._form, self._groups = form, groups
        self._region = set(group.families)
        self.values: dict[Family, Polynomial] = {}
        self.comparisons: dict[str, tuple[Polynomial, bool]] = {}
        self.states: dict[str, tuple[Family, float]] = {}
        self.input: Reference | None = None
        shapes = {tuple(map(repr, family.shape or ())) for family in group.families}
        first = group.families[0].shape or []
        if len(shapes) != 1 or first[:1] != [BATCH]:
            raise UnknownNeuronError("its values have no batch, or several shapes")
        if not all(isinstance(size, int) for size in first[1:]):
            raise UnknownNeuronError("its size is open")
        self.shape: tuple[int, ...] = tuple(first[1:])
        for family in group.families:
            self.values[family] = self._value_of(family)
        self._add_followers(groups)

    def _add_followers(self, groups: Mapping[Family, Group]) -> None:
        """Add what follows from the loop alone, element by element."""
        grows = True
        while grows:
            grows = False
            for family, group in groups.items():
                if family in self._region or group.recurrent or not isinstance(family.node, Apply):
                    continue
                references = [s for s in family.slots() if isinstance(s, Reference)]
                if not references or any(
                    r.family.found() not in self._region or r.delay or r.instead for r in references
                ):
                    continue
                try:
                    self.values[family] = self._value_of(family)
                except UnknownNeuronError:
                    continue
                self._region.add(family)
                grows = True

    def source(self) -> Step | None:
        """Return the loop that computes the input, if nothing else reads a value of it."""
        assert self.input is not None
        family = self.input.family.found()
        loop = family
        while not self._groups[loop].recurrent:  # what follows from a loop alone is part of it
            slots = [s for s in loop.slots() if isinstance(s, Reference)]
            if len(slots) != 1:
                return None
            loop = slots[0].family.found()
        source = Step(self._form, self._groups[loop], self._groups)
        return source if source.outputs(beside=self._region) == [] else None

    def outputs(self, beside: Set[Family] = frozenset()) -> list[Family]:
        """Return the families that are read by others, besides by these."""
        read: set[Family] = set()
        for value in parts_of(self._form.outputs):
            if isinstance(value, Family) and value not in self._region | beside:
                slots = value.slots()
            elif isinstance(value, Stack | Last):
                slots = flat(value.slot)
            else:
                continue
            read |= {slot.family.found() for slot in slots if isinstance(slot, Reference)}
        return [family for family in self.values if family in read]

    def _value_of(self, family: Family) -> Polynomial:
        if family.first or family.dtype is None or not isinstance(family.node, Apply):
            raise UnknownNeuronError("its first step is another one")
        node = family.node
        rule = _RULES.get(node.op)
        if rule is None:
            raise UnknownNeuronError(f"operator {node.op}")
        kwargs = {k: v for k, v in node.kwargs.items() if k != "dtype"}
        if kwargs.keys() - {"alpha"}:
            raise UnknownNeuronError(f"keyword arguments of {node.op}")
        if node.op is aten._to_copy.default and family.dtype not in (torch.float32, torch.bool):
            raise UnknownNeuronError(f"a cast to {family.dtype}")
        result: Polynomial = rule(self, *map(self._slot, node.args), **kwargs)
        return result

    def _slot(self, slot: Any) -> Polynomial:
        if isinstance(slot, Reference):
            return self._reference(slot)
        if isinstance(slot, Fixed) and not slot.instead:
            return Polynomial.constant(self._shaped(self._constant(slot.value)))
        if isinstance(slot, int | float):
            return Polynomial.constant(slot)
        raise UnknownNeuronError(f"it reads a {type(slot).__name__}")

    def _reference(self, slot: Reference) -> Polynomial:
        family = slot.family.found()
        if family not in self._region:
            if (
                slot.instead
                or slot.delay
                or (self.input is not None and self.input.family.found() is not family)
            ):
                raise UnknownNeuronError("it has more than one input")
            sizes = tuple(family.shape or ())
            if sizes != (BATCH, *self.shape) or family.dtype is not torch.float32:
                raise UnknownNeuronError("its input has another shape or type than its values")
            self.input = slot
            return Polynomial.symbol("x")
        if not slot.delay and not slot.instead:
            return self.values[family]
        if slot.delay != 1 or set(slot.instead) != {0}:
            raise UnknownNeuronError("it reads values of several steps before")
        start = np.asarray(self._constant(slot.instead[0]), np.float64)
        if start.size == 0 or np.ptp(start) != 0:
            raise UnknownNeuronError("its neurons start from different values")
        for name, (known, value) in self.states.items():
            if known is family and value == start.flat[0]:
                return Polynomial.symbol(name)
        name = f"state_{len(self.states)}"
        self.states[name] = (family, float(start.flat[0]))
        return Polynomial.symbol(name)

    def _constant(self, value: Any) -> Any:
        """Return a whole value that depends on no input, as an array."""
        if isinstance(value, Formula):
            if value.changes or any(value.factors[1:]) or value.divisor is not None:
                raise UnknownNeuronError("a number depends on the size of the input")
            return value.factors[0]
        result = self._evaluated(value)
        return result.detach().numpy() if isinstance(result, Tensor) else result

    def _evaluated(self, value: Any) -> Any:
        if isinstance(value, Formula):
            return value.at(1, 1)  # sizes of what is filled with one number
        if isinstance(value, list):
            return [self._evaluated(each) for each in value]
        if isinstance(value, Leaf):
            if value.term.op == INPUT:
                raise UnknownNeuronError("a parameter depends on the input")
            return self._form.values[value.term]
        if isinstance(value, Apply):
            return value.op(
                *map(self._evaluated, value.args),
                **{name: self._evaluated(each) for name, each in value.kwargs.items()},
            )
        if isinstance(value, Stack | Last):
            raise UnknownNeuronError("a parameter depends on the input")
        return value

    def _shaped(self, value: Any) -> Any:
        """Return a parameter without its batch axis, of one number if that serves all neurons."""
        array = np.asarray(value, np.float64)
        if array.size and np.ptp(array) == 0:
            return array.flat[0]
        if array.ndim > len(self.shape):
            if array.shape[0] != 1:
                raise UnknownNeuronError("a parameter has a batch axis")
            array = array[0]
        return array

    def spike(self, difference: Polynomial, *, strict: bool) -> Polynomial:
        """Return the symbol of a comparison with 0."""
        if not difference.symbols:
            raise UnknownNeuronError("a comparison of numbers")
        if len(difference.symbols) == 1 and difference.symbols <= self.comparisons.keys():
            (spike,) = difference.symbols  # where(spike > 0, ...)
            off = np.asarray(difference.of())
            on = off + difference.of(spike)
            if np.all(off <= 0 if strict else off < 0) and np.all(on > 0 if strict else on >= 0):
                return Polynomial.symbol(spike)
        for name, (known, above) in self.comparisons.items():
            if above is strict and known.is_close_to(difference):
                return Polynomial.symbol(name)
        name = f"spike_{len(self.comparisons)}"
        self.comparisons[name] = (difference, strict)
        return Polynomial.symbol(name)


def _divided(_: Step, one: Polynomial, other: Polynomial) -> Polynomial:
    if other.value is None or np.any(other.value == 0):
        raise UnknownNeuronError("it divides by a state")
    return one.scaled(1.0 / other.value)


def _chosen(_: Step, condition: Polynomial, one: Polynomial, other: Polynomial) -> Polynomial:
    return condition * one + (Polynomial.constant(1.0) - condition) * other


def _heaviside(step: Step, x: Polynomial, at: Polynomial) -> Polynomial:
    if at.value is None or np.any((at.value != 0) & (at.value != 1)) or np.ptp(at.value) != 0:
        raise UnknownNeuronError("heaviside of another value at 0")
    return step.spike(x, strict=not bool(np.asarray(at.value).flat[0]))


def _sum(_: Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
    return one + other.scaled(alpha)


def _difference(_: Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
    return one - other.scaled(alpha)


def _reversed(_: Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
    return other - one.scaled(alpha)


_RULES: Mapping[Any, Callable[..., Polynomial]] = {
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _difference,
    aten.rsub.Scalar: _reversed,
    aten.rsub.Tensor: _reversed,
    aten.mul.Tensor: lambda _, one, other: one * other,
    aten.div.Tensor: _divided,
    aten.neg.default: lambda _, one: one.scaled(-1.0),
    aten.gt.Tensor: lambda step, one, other: step.spike(one - other, strict=True),
    aten.gt.Scalar: lambda step, one, other: step.spike(one - other, strict=True),
    aten.ge.Tensor: lambda step, one, other: step.spike(one - other, strict=False),
    aten.ge.Scalar: lambda step, one, other: step.spike(one - other, strict=False),
    aten.lt.Tensor: lambda step, one, other: step.spike(other - one, strict=True),
    aten.lt.Scalar: lambda step, one, other: step.spike(other - one, strict=True),
    aten.le.Tensor: lambda step, one, other: step.spike(other - one, strict=False),
    aten.le.Scalar: lambda step, one, other: step.spike(other - one, strict=False),
    aten.heaviside.default: _heaviside,
    aten.where.self: _chosen,
    aten.where.ScalarOther: _chosen,
    aten.where.ScalarSelf: _chosen,
    aten.logical_not.default: lambda _, one: Polynomial.constant(1.0) - one,
    aten._to_copy.default: lambda _, one: one,
}
