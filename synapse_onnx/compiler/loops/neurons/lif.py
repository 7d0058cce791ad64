"""Leaky integrate-and-fire neurons: of a voltage, or of a voltage behind a synaptic current.

The loop of the voltage has one state, or that and the spike of the step before. A synaptic current
is a loop of its own, which the voltage reads. If nothing else reads it, it becomes the current of
the neuron. A voltage that reads the current of the step before is one of the step before itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from synapse_onnx.compiler.loops.form import Family, Reference
from synapse_onnx.compiler.loops.found import Found, parameter
from synapse_onnx.compiler.loops.polynomials import Monomial, Polynomial, is_close
from synapse_onnx.compiler.loops.step import Step, UnknownNeuronError
from synapse_onnx.neuron import lif

__all__ = ["find"]


def find(step: Step) -> Found:
    """Return the neuron of a step.

    Raises:
        UnknownNeuronError: it is none.
    """
    outputs = step.outputs()
    voltage = _voltage(step)
    assert step.input is not None
    readout = False
    try:
        outputs = _spikes(step, outputs, voltage)
    except UnknownNeuronError:  # it gives its voltage, of which the others follow
        readout, outputs = True, _families(voltage.before, step)[:1]
    alpha, gain, slot = 0.0, voltage.gain, step.input
    try:
        current = _current(step)
        alpha, gain, slot = current.alpha, voltage.gain * current.gain, current.slot
    except UnknownNeuronError:
        pass  # another loop, whose values are the input
    values = {
        "threshold": voltage.threshold,
        "beta": voltage.beta,
        "alpha": alpha,
        "gain": gain,
        "drive": voltage.drive,
        "reset_value": voltage.reset_value,
    }
    neuron = lif.Neuron(
        **{name: parameter(value, step.shape) for name, value in values.items()},
        reset=voltage.reset,
        strict=voltage.strict,
    )
    if readout:
        neuron.readout, neuron.spiking = True, False
    neuron.eval().requires_grad_(False)
    neuron.freeze()
    return Found(neuron, slot, outputs)


# -- the current -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Current:
    """A synaptic current: u[t] = alpha u[t-1] + gain x[t]."""

    alpha: Any
    gain: Any
    slot: Reference


def _current(step: Step) -> _Current:
    """Return the synaptic current that the input of a step is."""
    source = step.source()
    if source is None or source.input is None or len(source.states) != 1 or source.comparisons:
        raise UnknownNeuronError("its input is no current")
    if source.shape != step.shape:
        raise UnknownNeuronError("its current has another shape")
    ((u, (family, start)),) = source.states.items()
    assert step.input is not None
    after, read = source.values[family], source.values.get(step.input.family.found())
    if read is None:
        raise UnknownNeuronError("its input follows from more than its current")
    if start != 0 or any(each.terms.keys() - {((u, 1),), (("x", 1),)} for each in (after, read)):
        raise UnknownNeuronError("its current starts or changes in another way")
    alpha, gain = after.of(u), after.of("x")
    if np.any(np.asarray(gain) == 0):
        raise UnknownNeuronError("its current has no input")
    factor = np.asarray(read.of("x")) / gain
    if not read.is_close_to(after.scaled(factor)):
        raise UnknownNeuronError("another value than its current is read")
    return _Current(alpha, factor * gain, source.input)


# -- the voltage -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Voltage:
    """Parameters of a voltage, and its polynomial after the step."""

    reset: str
    beta: Any
    gain: Any
    drive: Any
    threshold: Any
    reset_value: Any
    strict: bool
    spike: str
    after: Polynomial

    @property
    def before(self) -> Polynomial:
        """The voltage that is compared with the threshold."""
        if not self.spike:
            return self.after
        terms = self.after.terms
        return Polynomial({m: c for m, c in terms.items() if (self.spike, 1) not in m})


def _voltage(step: Step) -> _Voltage:
    """Return the leaky integrate-and-fire neuron of a step with one state."""
    if step.input is None:
        raise UnknownNeuronError("it has no input")
    _drop_late_spike(step)
    if len(step.states) != 1:
        raise UnknownNeuronError(f"it has {len(step.states)} states")
    ((v, (family, start)),) = step.states.items()
    if start != 0:
        raise UnknownNeuronError(f"its voltage starts from {start}")
    after = step.values[family]
    used = sorted(after.symbols & step.comparisons.keys())
    if len(used) != 1:
        raise UnknownNeuronError(f"its voltage depends on {len(used)} comparisons")
    (s,) = used
    plain: set[Monomial] = {((v, 1),), (("x", 1),), ()}
    if not after.terms.keys() <= plain | {tuple(sorted(((s, 1), *each))) for each in plain}:
        raise UnknownNeuronError("its voltage has other terms")
    compared, strict = step.comparisons[s]
    if compared.symbols == {v}:
        reset, value, threshold = _late_reset(after, compared, v, s)
        s = ""
    else:
        reset, value, threshold = _reset(after, compared, v, s)
    decay, gain, drive = after.of(v), after.of("x"), after.of()
    return _Voltage(reset, decay, gain, drive, threshold, value, strict, s, after)


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
    raise UnknownNeuronError("its reset is another one")


def _reset(after: Polynomial, compared: Polynomial, v: str, s: str) -> tuple[str, Any, Any]:
    """Return reset, voltage after it, and threshold, where the spike of the step itself resets."""
    before = Polynomial({m: c for m, c in after.terms.items() if (s, 1) not in m})
    leading = next((name for name in (v, "x") if np.any(before.of(name) != 0)), None)
    if leading is None:
        raise UnknownNeuronError("its voltage is constant")
    scaled = compared.scaled(1.0 / _slope(compared, before, leading))
    if not scaled.is_parallel_to(before):
        raise UnknownNeuronError("it compares another value than its voltage")
    threshold = before.of() - scaled.of()
    on_state, on_input, on_all = after.of(s, v), after.of(s, "x"), after.of(s)
    if is_close(on_state, -after.of(v)) and is_close(on_input, -after.of("x")):
        return "zero", on_all + after.of(), threshold
    if is_close(on_state, 0) and is_close(on_input, 0) and is_close(on_all, -threshold):
        return "subtract", 0.0, threshold
    raise UnknownNeuronError("its reset is another one")


def _slope(compared: Polynomial, voltage: Polynomial, name: str) -> Any:
    """Return the factor from a voltage to what is compared with 0."""
    slope = np.asarray(compared.of(name)) / voltage.of(name)
    if np.any(slope <= 0):
        raise UnknownNeuronError("it spikes below a voltage")
    return slope


def _drop_late_spike(step: Step) -> None:
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
            offset = np.asarray(compared.of()) - step.values[voltage].of()
            spikes = first + offset > 0 if strict else first + offset >= 0
            parallel = compared.is_parallel_to(step.values[voltage])
            if other == name or not parallel or np.any(spikes):
                continue
            late = step.spike(Polynomial.symbol(other) + Polynomial.constant(offset), strict=strict)
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


def _spikes(step: Step, outputs: list[Family], voltage: _Voltage) -> list[Family]:
    """Return the spikes among the values of a step of which all outputs follow.

    Raises:
        UnknownNeuronError: another value than its spikes is read.
    """
    above = voltage.after - Polynomial.constant(voltage.threshold)
    names = {
        name
        for name, (compared, strict) in step.comparisons.items()
        if name == voltage.spike
        or (not voltage.spike and strict is voltage.strict and compared.is_close_to(above))
    }
    if any(step.values[family].symbols - names for family in outputs):
        raise UnknownNeuronError("another value than its spikes is read")
    spikes = [family for name in names for family in _families(Polynomial.symbol(name), step)]
    read = [family for family in outputs if family in spikes]
    return read if len(read) == len(outputs) else list(dict.fromkeys([*read, *spikes[:1]]))


def _families(value: Polynomial, step: Step) -> list[Family]:
    """Return the families of floats that are a value.

    Raises:
        UnknownNeuronError: there is none.
    """
    found = [
        family
        for family, known in step.values.items()
        if family.dtype is torch.float32 and known.is_close_to(value)
    ]
    if not found:
        raise UnknownNeuronError("it has no value that the neuron gives")
    return found
