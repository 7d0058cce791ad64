"""Neurons are recognised in loops, and become neurons of this package.

A loop and the elementwise operators after it are evaluated as polynomials. If these are those of a
leaky integrate-and-fire neuron, whatever its reset, and nothing but its spikes is read, the neuron
takes the place of the loop: it has a native kernel, a name in reports, and states with names.

The match holds over the reals. The neuron may sum in another order than the network, so that a
value differs by a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    Layer,
    Leaf,
    Reference,
    Stack,
    flat,
    parts_of,
)
from synapse_onnx.compiler.loops.groups import Group, grouped
from synapse_onnx.compiler.loops.numbers import BATCH, Formula
from synapse_onnx.compiler.loops.polynomials import Monomial, Polynomial, is_close
from synapse_onnx.compiler.loops.terms import INPUT, PARAMETER
from synapse_onnx.errors import SynapseError
from synapse_onnx.neuron import lif

__all__ = ["recognise"]

aten = torch.ops.aten


class _UnknownError(Exception):
    """A loop is no neuron of this package, and why."""


def recognise(form: Form) -> dict[str, lif.Neuron]:
    """Put neurons in the place of a form's loops, where they are known.

    Returns:
        Path -> neuron, each at the path of the module that it stands for.
    """
    neurons: dict[str, lif.Neuron] = {}
    groups = grouped(form)
    for group in dict.fromkeys(groups.values()):
        if not group.recurrent:
            continue
        path = form.path_of(group.families) or "neuron"
        try:
            step = _Step(form, group, groups)
            outputs = step.outputs()
            found = _match(step)
            _check_outputs(step, outputs, found)
            neuron = _neuron(found, step.shape)
        except (_UnknownError, SynapseError):
            continue
        name, number = path, 1
        while name in neurons:
            number += 1
            name = f"{path}_{number}"
        neurons[name] = neuron
        for family in outputs:
            family.node, family.first = Layer(name, step.input), {}
    return _beside_parameters(form, neurons)


def _beside_parameters(form: Form, neurons: dict[str, lif.Neuron]) -> dict[str, lif.Neuron]:
    """Give a neuron another path where parameters of its module are read elsewhere."""
    values = list(parts_of(form.outputs))
    read = [str(v.term.args[0]) for v in values if isinstance(v, Leaf) and v.term.op == PARAMETER]
    moved = {
        path: f"{path}.neuron" for path in neurons if any(r.startswith(f"{path}.") for r in read)
    }
    for value in values:
        if isinstance(value, Family) and isinstance(value.node, Layer):
            value.node.path = moved.get(value.node.path, value.node.path)
    return {moved.get(path, path): neuron for path, neuron in neurons.items()}


# -- a step as polynomials -------------------------------------------------------------------------


class _Step:
    """A loop, and the elementwise operators after it, as polynomials.

    Attributes:
        values: the polynomial of each family.
        comparisons: symbol of a spike -> (polynomial, whether it spikes above 0 and not at it).
        states: symbol of a state -> (its family, its value at the start).
        input: the slot of the input.
        shape: sizes of the families' values without the batch.
    """

    def __init__(self, form: Form, group: Group, groups: Mapping[Family, Group]) -> None:
        self._form = form
        self._region = set(group.families)
        self.values: dict[Family, Polynomial] = {}
        self.comparisons: dict[str, tuple[Polynomial, bool]] = {}
        self.states: dict[str, tuple[Family, float]] = {}
        self.input: Any = None
        shapes = {tuple(map(repr, family.shape or ())) for family in group.families}
        first = group.families[0].shape or []
        if len(shapes) != 1 or first[:1] != [BATCH] or len(first) not in (2, 4):
            raise _UnknownError("its values are no (N, C) or (N, C, H, W)")
        if not all(isinstance(size, int) for size in first[1:]):
            raise _UnknownError("its size is open")
        self.shape = tuple(first[1:])
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
                except _UnknownError:
                    continue
                self._region.add(family)
                grows = True

    def outputs(self) -> list[Family]:
        """Return the families that are read by others."""
        read: set[Family] = set()
        for value in parts_of(self._form.outputs):
            if isinstance(value, Family) and value not in self._region:
                slots = value.slots()
            elif isinstance(value, Stack):
                slots = flat(value.slot)
            elif isinstance(value, Last):
                slots = [Reference(value.family)]
            else:
                continue
            read |= {slot.family.found() for slot in slots if isinstance(slot, Reference)}
        return [family for family in self.values if family in read]

    def _value_of(self, family: Family) -> Polynomial:
        if family.first or family.dtype is None or not isinstance(family.node, Apply):
            raise _UnknownError("its first step is another one")
        node = family.node
        rule = _RULES.get(node.op)
        if rule is None:
            raise _UnknownError(f"operator {node.op}")
        kwargs = {k: v for k, v in node.kwargs.items() if k != "dtype"}
        if kwargs.keys() - {"alpha"}:
            raise _UnknownError(f"keyword arguments of {node.op}")
        if node.op is aten._to_copy.default and family.dtype not in (torch.float32, torch.bool):
            raise _UnknownError(f"a cast to {family.dtype}")
        result: Polynomial = rule(self, *map(self._slot, node.args), **kwargs)
        return result

    def _slot(self, slot: Any) -> Polynomial:
        if isinstance(slot, Reference):
            return self._reference(slot)
        if isinstance(slot, Fixed) and not slot.instead:
            return Polynomial.constant(self._shaped(self._constant(slot.value)))
        if isinstance(slot, int | float):
            return Polynomial.constant(slot)
        raise _UnknownError(f"it reads a {type(slot).__name__}")

    def _reference(self, slot: Reference) -> Polynomial:
        family = slot.family.found()
        if family not in self._region:
            if (
                slot.instead
                or slot.delay
                or (self.input is not None and self.input.family.found() is not family)
            ):
                raise _UnknownError("it has more than one input")
            self.input = slot
            return Polynomial.symbol("x")
        if not slot.delay and not slot.instead:
            return self.values[family]
        if slot.delay != 1 or set(slot.instead) != {0}:
            raise _UnknownError("it reads values of several steps before")
        start = np.asarray(self._constant(slot.instead[0]), np.float64)
        if start.size == 0 or np.ptp(start) != 0:
            raise _UnknownError("its neurons start from different values")
        for name, (known, value) in self.states.items():
            if known is family and value == start.flat[0]:
                return Polynomial.symbol(name)
        name = f"state_{len(self.states)}"
        self.states[name] = (family, float(start.flat[0]))
        return Polynomial.symbol(name)

    def _constant(self, value: Any) -> Any:
        """Return a whole value that depends on no input, as an array."""
        if isinstance(value, Formula):
            if value.changes or any(value.factors[1:]):
                raise _UnknownError("a number depends on the size of the input")
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
                raise _UnknownError("a parameter depends on the input")
            return self._form.values[value.term]
        if isinstance(value, Apply):
            return value.op(
                *map(self._evaluated, value.args),
                **{name: self._evaluated(each) for name, each in value.kwargs.items()},
            )
        if isinstance(value, Stack | Last):
            raise _UnknownError("a parameter depends on the input")
        return value

    def _shaped(self, value: Any) -> Any:
        """Return a parameter without its batch axis, of one number if that serves all neurons."""
        array = np.asarray(value, np.float64)
        if array.size and np.ptp(array) == 0:
            return array.flat[0]
        if array.ndim > len(self.shape):
            if array.shape[0] != 1:
                raise _UnknownError("a parameter has a batch axis")
            array = array[0]
        return array

    def spike(self, difference: Polynomial, *, strict: bool) -> Polynomial:
        """Return the symbol of a comparison with 0."""
        if not difference.symbols:
            raise _UnknownError("a comparison of numbers")
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


def _divided(_: _Step, one: Polynomial, other: Polynomial) -> Polynomial:
    if other.value is None or np.any(other.value == 0):
        raise _UnknownError("it divides by a state")
    return one.scaled(1.0 / other.value)


def _chosen(_: _Step, condition: Polynomial, one: Polynomial, other: Polynomial) -> Polynomial:
    return condition * one + (Polynomial.constant(1.0) - condition) * other


def _heaviside(step: _Step, x: Polynomial, at: Polynomial) -> Polynomial:
    if at.value is None or np.any((at.value != 0) & (at.value != 1)) or np.ptp(at.value) != 0:
        raise _UnknownError("heaviside of another value at 0")
    return step.spike(x, strict=not bool(np.asarray(at.value).flat[0]))


def _sum(_: _Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
    return one + other.scaled(alpha)


def _difference(_: _Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
    return one - other.scaled(alpha)


def _reversed(_: _Step, one: Polynomial, other: Polynomial, alpha: float = 1) -> Polynomial:
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


# -- neurons ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A neuron: its parameters, and the polynomial of its voltage after the step."""

    reset: str
    beta: Any
    gain: Any
    drive: Any
    threshold: Any
    reset_value: Any
    strict: bool
    spike: str
    after: Polynomial


def _match(step: _Step) -> _Found:
    """Return the leaky integrate-and-fire neuron of a step with one state."""
    if step.input is None:
        raise _UnknownError("it has no input")
    _drop_late_spike(step)
    if len(step.states) != 1:
        raise _UnknownError(f"it has {len(step.states)} states")
    ((v, (family, start)),) = step.states.items()
    if start != 0:
        raise _UnknownError(f"its voltage starts from {start}")
    after = step.values[family]
    used = sorted(after.symbols & step.comparisons.keys())
    if len(used) != 1:
        raise _UnknownError(f"its voltage depends on {len(used)} comparisons")
    (s,) = used
    plain: set[Monomial] = {((v, 1),), (("x", 1),), ()}
    if not after.terms.keys() <= plain | {tuple(sorted(((s, 1), *each))) for each in plain}:
        raise _UnknownError("its voltage has other terms")
    compared, strict = step.comparisons[s]
    if compared.symbols == {v}:
        reset, value, threshold = _late_reset(after, compared, v, s)
        s = ""
    else:
        reset, value, threshold = _reset(after, compared, v, s)
    decay, gain, drive = after.of(v), after.of("x"), after.of()
    return _Found(reset, decay, gain, drive, threshold, value, strict, s, after)


def _late_reset(after: Polynomial, compared: Polynomial, v: str, s: str) -> tuple[str, Any, Any]:
    """Return reset, voltage after it, and threshold, where the spike of the step before resets."""
    threshold = -compared.of() / _slope(compared, Polynomial.symbol(v), v)
    on_state, on_input, on_all = after.of(s, v), after.of(s, "x"), after.of(s)
    if is_close(on_state, -after.of(v)) and is_close(on_input, -after.of("x")):
        return "delayed_zero", on_all + after.of(), threshold
    if is_close(on_state, -after.of(v)) and is_close(on_input, 0) and is_close(on_all, 0):
        return "zero", 0.0, threshold  # at the end of a step, or at the start of the next
    if is_close(on_state, 0) and is_close(on_input, 0) and is_close(on_all, -threshold):
        return "delayed", 0.0, threshold
    raise _UnknownError("its reset is another one")


def _reset(after: Polynomial, compared: Polynomial, v: str, s: str) -> tuple[str, Any, Any]:
    """Return reset, voltage after it, and threshold, where the spike of the step itself resets."""
    before = Polynomial({m: c for m, c in after.terms.items() if (s, 1) not in m})
    leading = next((name for name in (v, "x") if np.any(before.of(name) != 0)), None)
    if leading is None:
        raise _UnknownError("its voltage is constant")
    rest = before - compared.scaled(1.0 / _slope(compared, before, leading))
    if rest.symbols:
        raise _UnknownError("it compares another value than its voltage")
    threshold = rest.of()
    on_state, on_input, on_all = after.of(s, v), after.of(s, "x"), after.of(s)
    if is_close(on_state, -after.of(v)) and is_close(on_input, -after.of("x")):
        return "zero", on_all + after.of(), threshold
    if is_close(on_state, 0) and is_close(on_input, 0) and is_close(on_all, -threshold):
        return "subtract", 0.0, threshold
    raise _UnknownError("its reset is another one")


def _slope(compared: Polynomial, voltage: Polynomial, name: str) -> Any:
    """Return the factor from a voltage to what is compared with 0."""
    slope = np.asarray(compared.of(name)) / voltage.of(name)
    if np.any(slope <= 0):
        raise _UnknownError("it spikes below a voltage")
    return slope


def _drop_late_spike(step: _Step) -> None:
    """Write a state that is the spike of the step before as a comparison of the voltage then."""
    for name, (family, start) in list(step.states.items()):
        terms = step.values[family].terms
        if len(terms) != 1 or start != 0:
            continue
        ((monomial, factor),) = terms.items()
        if len(monomial) != 1 or monomial[0][0] not in step.comparisons or not is_close(factor, 1):
            continue
        compared, strict = step.comparisons[monomial[0][0]]
        for other, (voltage, first) in step.states.items():
            rest = compared - step.values[voltage]
            at_start = first + np.asarray(rest.of())
            spikes = at_start > 0 if strict else at_start >= 0
            if other == name or rest.symbols or np.any(spikes):
                continue
            late = step.spike(
                Polynomial.symbol(other) + Polynomial.constant(rest.of()), strict=strict
            )
            (symbol,) = late.symbols
            for each, known in step.values.items():
                step.values[each] = _renamed(known, name, symbol)
            for spike, (difference, above) in list(step.comparisons.items()):
                step.comparisons[spike] = (_renamed(difference, name, symbol), above)
            del step.states[name]
            return


def _renamed(value: Polynomial, name: str, other: str) -> Polynomial:
    result = Polynomial({})
    for monomial, factor in value.terms.items():
        product = Polynomial.constant(factor)
        for symbol, power in monomial:
            for _ in range(power):
                product = product * Polynomial.symbol(other if symbol == name else symbol)
        result = result + product
    return result


def _check_outputs(step: _Step, outputs: list[Family], found: _Found) -> None:
    """Refuse a loop of which another value than its spikes is read."""
    for family in outputs:
        value = step.values[family]
        if family.dtype is not torch.float32 or len(value.terms) != 1:
            raise _UnknownError("its voltage is read")
        ((monomial, factor),) = value.terms.items()
        if len(monomial) != 1 or not is_close(factor, 1):
            raise _UnknownError("its voltage is read")
        name = monomial[0][0]
        if found.spike:
            if name != found.spike:
                raise _UnknownError("its voltage is read")
            continue
        compared, strict = step.comparisons.get(name, (Polynomial({}), False))
        above = found.after - Polynomial.constant(found.threshold)
        if strict is not found.strict or not compared.is_close_to(above):
            raise _UnknownError("another value than its spikes is read")


def _neuron(found: _Found, shape: tuple[int, ...]) -> lif.Neuron:
    def value(array: Any) -> Any:
        array = np.asarray(array, np.float64)
        if array.size == 1 or np.ptp(array) == 0:
            return float(array.flat[0])
        if array.shape == shape:
            return torch.from_numpy(array).float()
        if len(shape) == 3 and array.shape == (shape[0], 1, 1):
            return torch.from_numpy(array).float().reshape(-1)
        return torch.from_numpy(np.broadcast_to(array, shape).copy()).float()

    neuron = lif.Neuron(
        threshold=value(found.threshold),
        beta=value(found.beta),
        gain=value(found.gain),
        drive=value(found.drive),
        reset=found.reset,
        reset_value=value(found.reset_value),
        strict=found.strict,
    )
    neuron.eval().requires_grad_(False)
    neuron.freeze()
    return neuron
