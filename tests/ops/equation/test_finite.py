"""Loops of floats whose resets are products: right also where a number is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from graphs import all_nodes
from node_forms import OMITS, compared, equation, without
from onnx import numpy_helper

from synapse_onnx import ops
from synapse_onnx.ops._writer import Signature, Writer
from synapse_onnx.ops.equation import NeuronOp
from synapse_onnx.ops.equation._finite import witnesses

FLOATS = [
    name
    for name in sorted(ops.all_ops())
    if isinstance(getattr(ops.get_op(name).arithmetic, "__self__", None), NeuronOp)
    and not equation(ops.get_op(name)).fixed
]

#: equations -> the states whose last values show that all were finite
SHOWN = {
    "CubaFloat": ["voltage"],
    "CubaDynamicsFloat": ["voltage"],
    "RecurrentCubaFloat": ["voltage"],
    "LifFloat": ["voltage"],
    "LifSubtractFloat": ["voltage"],
    "LifDelayedFloat": ["voltage"],
    "LifDelayedZeroFloat": ["voltage"],
    "AlifFloat": ["threshold", "refractory"],
    "RfIzFloat": ["real", "imag"],
    "RfFloat": [],
}


@pytest.mark.parametrize("name", SHOWN)
def test_states_that_show_whether_all_is_finite(name: str) -> None:
    shown = witnesses(equation(ops.get_op(name)))
    assert shown is not None
    assert sorted(shown) == sorted(SHOWN[name])


def _scans(name: str, *omits: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
    """Names and operators of the loops of a body."""
    for node in all_nodes(ops.get_op(name).function(21, *omits).node):
        for attribute in node.attribute:
            if node.op_type == "Scan" and attribute.name == "body":
                yield attribute.g.name, {each.op_type for each in attribute.g.node}


@pytest.mark.parametrize("name", [name for name in SHOWN if SHOWN[name]])
def test_the_loop_that_is_tried_chooses_nothing(name: str) -> None:
    scans = list(_scans(name, frozenset({"graded"})))
    (tried,) = (operators for scan, operators in scans if "finite" in scan)
    (other,) = (operators for scan, operators in scans if "finite" not in scan)
    assert "Where" in other
    assert "Where" not in tried


def test_a_step_of_a_leaky_neuron_has_few_operators() -> None:
    """Leak, input, drive, comparison, spike, and what it takes off."""
    omits = frozenset({"graded", "current", "zero_v_reset"})
    scans = dict(_scans("LifFloat", omits))
    assert scans["no_current_zero_v_reset_finite_step"] == {
        "Mul", "Add", "GreaterOrEqual", "Cast", "Sub",
    }  # fmt: skip
    function = ops.get_op("LifFloat").function(21, omits)
    (graph,) = (
        a.g
        for node in all_nodes(function.node)
        for a in node.attribute
        if a.name == "body" and a.g.name == "no_current_zero_v_reset_finite_step"
    )
    assert len(graph.node) == 7  # two of Mul and of Add; ONNX Runtime drops an Add of zero


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e37])
@pytest.mark.parametrize("step", [2, -1])
@pytest.mark.parametrize("name", FLOATS)
def test_currents_that_are_not_finite(name: str, step: int, value: float) -> None:
    sample = ops.get_op(name).samples()[0]
    for values in (
        list(sample.args[: len(ops.get_op(name).inputs)]),
        without(ops.get_op(name), sample, OMITS.get(name, set())),
    ):
        values[0] = values[0].clone()
        values[0][0, 1, ..., step] = value
        with np.errstate(all="ignore"):
            compared(name, sample, values, False, exact=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", FLOATS)
def test_states_that_are_not_finite_at_the_start(name: str, value: float) -> None:
    op = ops.get_op(name)
    sample = op.samples()[0]
    for state in equation(op).states:
        values = without(op, sample, OMITS.get(name, set()))
        at = op.inputs.index(state)
        values[at] = values[at].clone()
        values[at][0, 1] = value
        with np.errstate(all="ignore"):
            compared(name, sample, values, False, exact=False)


@pytest.mark.parametrize("name", ["LifFloat", "LifDelayedZeroFloat"])
def test_a_voltage_after_spikes_that_is_zero(name: str) -> None:
    """Its term is left out, if the parameter of the very call is zero."""
    op = ops.get_op(name)
    known = OMITS[name]
    OMITS[name] = known | {"zero_v_reset"}
    try:
        for sample in op.samples():
            values = without(op, sample, known)
            compared(name, sample, values, False, exact=False)
            at = op.inputs.index("v_reset")
            values[at] = torch.zeros_like(values[at])
            compared(name, sample, values, False, exact=False)
            values[op.inputs.index("alpha")].fill_(0.5)
            compared(name, sample, values, False, exact=False)
    finally:
        OMITS[name] = known


@pytest.mark.parametrize(
    ("name", "values", "left_out"),
    [
        ("LifFloat", [0.0], True),
        ("LifFloat", [0.0, 0.0], True),
        ("LifFloat", [0.0, 0.25], False),
        ("LifDelayedZeroFloat", [-0.25], False),
        ("CubaFloat", [0.0], False),
    ],
)
def test_what_a_node_may_leave_out(name: str, values: list[float], left_out: bool) -> None:
    constant = numpy_helper.from_array(np.array(values, np.float32))
    omits = equation(ops.get_op(name)).omits({"graded": 0}, {"v_reset": constant})
    assert ("zero_v_reset" in omits) == left_out


class Hidden(ops.Equation):
    """A neuron that forgets what was reset: no state shows an infinite product."""

    name = "Hidden"
    doc = "v[t] = x[t], 0 where v[t] >= threshold; w[t] = 1 where v[t] >= 0, else 0."
    parameters = (ops.Parameter("decay", "of no use"),)
    states = (ops.State("voltage", "what was compared"), ops.State("other", "a spike"))
    traces = fires = ("voltage",)
    memory: ClassVar[Mapping[str, str]] = {}

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        v = x.x - s.other
        after = a.reset(v >= c.threshold, 0, v)
        lost = a.where(s.voltage >= c.threshold, after, x.x)
        return {"voltage": lost, "other": a.scaled(s.other, p.decay)}, {"voltage": v}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        return a.spike(v.voltage >= c.threshold, v.voltage, c.threshold)


def test_an_equation_that_hides_infinity_chooses() -> None:
    op = NeuronOp(Hidden(), "float", "spikes")
    assert witnesses(op) is None
    w = Writer(Signature(op.name, op.inputs, op.outputs, op.attributes), 21)
    function = w.function(op.body(w))
    names = [
        a.as_graph().name for node in function for a in node.attributes.values() if a.name == "body"
    ]
    assert "finite_step" not in names
