"""What the body of a node may leave out, from the attributes and the constant inputs of the node.

======================  ============================================================================
``graded``, ``binary``  spikes that carry a height, or those that do not
``short``               the loop whose products are exact in float32, for decays of few bits
``current``, ...        a state of which nothing is kept from step to step, by its name
``zero_drive``, ...     what is added or subtracted, of floats, where it is zero: parameters that an
                        equation calls :attr:`Equation.often_zero`
``one_gain``, ...       a factor, or what a spike takes off, of floats, where it is one:
                        :attr:`Equation.often_one`
``never_threshold``     resets, for no state reaches that level: that of a readout in fixed point
``sum_of_voltage``      the loop of such a readout's state that is kept whole: it is a sum over time
======================  ============================================================================

A body asks for the last five itself, from the parameters: ONNX Runtime settles that when it loads
constants, and a file whose parameters are changed still computes them. It serves any node, but for
spikes of a kind that no node of the file has; without the loop of float32 it is only slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from synapse_onnx.ops._writer import FLOAT, Signature, Writer
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.equation._arithmetic import NEVER, Arithmetic
from synapse_onnx.ops.equation._bounds import WHOLE_LIMIT
from synapse_onnx.ops.equation._declaration import Equation
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._loop import Values, void_states
from synapse_onnx.ops.equation._values import write_values

__all__ = [
    "BINARY",
    "GRADED",
    "SHORT",
    "fraction_kept",
    "never",
    "node_omits",
    "settled",
    "summed",
    "without",
]

GRADED, BINARY, SHORT = "graded", "binary", "short"

#: fractions with an odd part beyond this have no product that is exact in float32, of usual states:
#: those below 2**18
_MOST_ODD = 1 << 6


def never(level: str) -> str:
    """Return the name of this: no state reaches a level."""
    return f"never_{level}"


def settled(e: Equation) -> dict[str, tuple[str, int]]:
    """Return the name of this: a parameter is a number for all neurons; with both of them."""
    zeros = {f"zero_{parameter}": (parameter, 0) for parameter in e.often_zero}
    return zeros | {f"one_{parameter}": (parameter, 1) for parameter in e.often_one}


def sum_of(state: str) -> str:
    """Return the name of this: all of a state is kept."""
    return f"sum_of_{state}"


def summed(op: Interface, omits: frozenset[str]) -> list[str]:
    """Return the states that are sums over time."""
    return [state for state in op.states if sum_of(state) in omits]


def without(op: Interface, values: Values, omits: frozenset[str]) -> Values:
    """Put numbers in the place of fractions and levels that a body does without."""
    memory = op.e.memory
    lost = {memory[state]: 0 for state in op.states if state in omits}
    whole = {memory[state]: 1 for state in summed(op, omits)}
    numbers = dict(found for name, found in settled(op.e).items() if name in omits)
    levels = {name: NEVER for name in op.e.constants if never(name) in omits}
    return values._replace(p={**values.p, **lost, **whole, **numbers}, c={**values.c, **levels})


def node_omits(
    op: Interface, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
) -> frozenset[str]:
    """Return what the body of a node may leave out, provably, for all of its neurons.

    Where spikes are graded in fixed point that is :data:`BINARY` alone: there are no other loops.

    Args:
        op: the op.
        attributes: those of the node, by name.
        constants: inputs of the node that are constants, by name.
    """
    spikes: frozenset[str] = frozenset()
    if op.spiking:
        spikes = frozenset({BINARY if attributes.get("graded") else GRADED})
        if op.fixed and BINARY in spikes:
            return spikes
    fractions = {
        state: fraction_kept(op, constants[name], name)
        for state, name in op.e.memory.items()
        if name in constants
    }
    void = frozenset(state for state, kept in fractions.items() if not kept.any())
    if not op.fixed:
        return spikes | _seen_finite(op, void) | _settled_by(op, constants)
    if op.spiking and op.e.has_upper_bounds and any(map(_has_many_bits, fractions.values())):
        spikes |= {SHORT}
    levels = [attributes[name] for name in op.e.constants]
    if not op.spiking and fractions and min(levels) >= WHOLE_LIMIT:
        void |= {never(name) for name in op.e.constants}
        void |= {sum_of(state) for state, kept in fractions.items() if (kept == DECAY_ONE).all()}
    return spikes | void


def _seen_finite(op: Interface, void: frozenset[str]) -> frozenset[str]:
    """Return the void states of floats that follow from no other state.

    Zero times infinity is no zero: a body asks whether all that is lost is finite, which it knows
    of a state that it can compute for all of time.
    """
    while void:
        w = Writer(Signature(op.name, op.inputs, op.outputs, op.attributes), 21)
        known = void_states(op.e, Arithmetic(w, FLOAT), write_values(op, w), void)
        if len(known) == len(void):
            break
        void = void & set(known)
    return void


def _settled_by(op: Interface, constants: Mapping[str, onnx.TensorProto]) -> frozenset[str]:
    """Return which of :func:`settled` the constants of a node settle."""
    return frozenset(
        name
        for name, (parameter, number) in settled(op.e).items()
        if parameter in constants
        and (onnx.numpy_helper.to_array(constants[parameter]) == number).all()
    )


def _has_many_bits(kept: Any) -> bool:
    """Whether the odd part of some fraction, 15 of 3840, is above :data:`_MOST_ODD`."""
    return bool((kept // np.maximum(kept & -kept, 1)).max() > _MOST_ODD)


def fraction_kept(op: Interface, constant: onnx.TensorProto, name: str) -> Any:
    """Return what is kept of a state, one number or one a channel."""
    (table,) = (parameter for parameter in op.table if parameter.name == name)
    values = onnx.numpy_helper.to_array(constant)
    if op.fixed:
        values = values.astype("int64")
    return (DECAY_ONE if op.fixed else 1) - values if table.kept else values
