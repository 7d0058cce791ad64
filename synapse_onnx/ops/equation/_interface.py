"""What an op of an equation is called, takes and gives, in one regime."""

from __future__ import annotations

from typing import Any

from synapse_onnx.errors import RegistryError
from synapse_onnx.ops.equation._declaration import NORMED, REGIMES, Equation

__all__ = ["Interface"]

#: kind -> what the name of the op begins and ends in
_NAMES = {"spikes": ("", ""), "dynamics": ("", "Dynamics"), "recurrent": ("Recurrent", "")}


class Interface:
    """Names of one op.

    Args:
        e: the equation.
        regime: one of :data:`REGIMES`, or of :data:`NORMED`.
        kind: "spikes"; "dynamics", the variables over time; "recurrent", spikes with feedback.

    Attributes:
        name: name of the node.
        fixed: whether states are integers.
        spiking: whether it gives spikes, and not variables.
        table: the parameters.
        parameters, states, weights, weight_scales, carried: names of the other inputs.
        inputs, outputs: all names, in order.
        sequences: names of the outputs over time; the others are last states.
        constants: names of the attributes that the equation reads.
        attributes: name -> type of every attribute.
        tail: names of the torch op's arguments after the tensors.
    """

    def __init__(self, e: Equation, regime: str, kind: str) -> None:
        self.e, self.regime, self.kind = e, regime, kind
        self.fixed = regime != "float"
        self.spiking = kind != "dynamics"
        begin, end = _NAMES[kind]
        self.name = f"{begin}{e.name}{end}{ {**REGIMES, **NORMED}[regime] }"
        recurrent = kind == "recurrent"
        self.weights = tuple(f"weight_{x}" for x in e.currents) if recurrent else ()
        self.weight_scales = tuple(f"weight_scale_{x}" for x in e.currents) if recurrent else ()
        self.carried = ("spikes",) if recurrent else ()
        self.table = e.table(regime)
        self.parameters = tuple(parameter.name for parameter in self.table)
        self.states = tuple(state.name for state in e.states)
        self.inputs = (
            *e.currents, *self.weights, *self.weight_scales, *self.carried, *self.parameters,
            *self.states,
        )  # fmt: skip
        self.sequences = ("s",) if self.spiking else tuple(f"{name}_trace" for name in e.traces)
        self.outputs = (
            *self.sequences,
            *(f"last_{name}" for name in (*self.carried, *self.states)),
        )
        self.constants = (*(("scale",) if self.fixed else ()), *e.constants)
        self.attributes: dict[str, Any] = dict.fromkeys(
            self.constants, int if self.fixed else float
        )
        if self.spiking and not e.counts:
            self.attributes["graded"] = int
        names = (*self.inputs, *self.constants)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RegistryError(
                f"equation {e.name}: {', '.join(twice)} names two things; currents, parameters, "
                f"states and constants need names of their own"
            )
        self.tail = (*self.constants, *(("tau", "gradient", "graded") if self.spiking else ()))

    @property
    def schema(self) -> str:
        """The torch op's schema."""
        kinds = {"scale": "int", "tau": "float", "gradient": "float", "graded": "bool"}
        level = "int" if self.fixed else "float"
        arguments = [f"Tensor {name}" for name in self.inputs]
        arguments += [f"{kinds.get(name, level)} {name}" for name in self.tail]
        return f"({', '.join(arguments)}) -> ({', '.join(['Tensor'] * len(self.outputs))})"

    @property
    def doc(self) -> str:
        """The equation, and what this op and its regime add to it."""
        notes = {
            "spikes": "",
            "dynamics": " It returns the variables over time and no spikes.",
            "recurrent": (
                " A current is x[t] + weight_scale * (weight @ s[t-1]): spikes are fed back."
            ),
        }
        bits = ""
        if self.regime == "loihi":
            bits = " States have 24 bits: a current wraps round, a voltage stays at the end."
            if self.e.biased:
                bits += " bias is added where a norm stands in training."
        elif self.regime == "biased":
            bits = " bias, minus the mean of a norm, is added between the states."
        elif self.regime == "normed":
            bits = " Between the states stands a norm: (u + bias) * gain, in float32."
        return f"{self.e.doc}{notes[self.kind]}{bits}"
