"""Bodies without void states: they compute the same, and files say what they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from graphs import all_nodes
from node_forms import OMITS, compared, drive, equation, network, plain, said, without
from onnx import helper, numpy_helper
from torch import nn

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.ops._writer import Signature, Writer
from synapse_onnx.ops.equation import NeuronOp

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("name", OMITS)
def test_a_body_without_states_computes_the_same_from_any(name: str) -> None:
    """Samples start from states of their own; what is asked is asked of the parameters."""
    op = ops.get_op(name)
    for sample in op.samples():
        graded = sample.id == "graded"
        values = without(op, sample, OMITS[name])
        compared(name, sample, values, graded, exact=equation(op).fixed)
        count = len(equation(op).e.currents)
        one = [*(x[..., :1] for x in values[:count]), *values[count:]]
        compared(name, sample, one, graded, exact=equation(op).fixed)


@pytest.mark.parametrize("name", OMITS)
def test_a_node_that_keeps_its_states_takes_the_body_of_all(name: str) -> None:
    """In the same file: of some channels, or a little."""
    op = ops.get_op(name)
    sample = op.samples()[1]
    compared(name, sample, list(sample.args[: len(op.inputs)]), False, exact=equation(op).fixed)
    values = without(op, sample, OMITS[name])
    first = equation(op).e.memory[min(OMITS[name])]
    at = op.inputs.index(first)
    values[at] = values[at].flatten()[:1].expand(sample.args[0].shape[1]).clone()
    values[at][1] = 4095 if equation(op).fixed else 0.5
    compared(name, sample, values, False, exact=equation(op).fixed)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("Cuba", {"voltage"}),
        ("CubaDynamics", None),  # no loop at all
        ("Alif", {"voltage", "threshold"}),
        ("AlifLoihi", None),
        ("LifFloat", {"voltage"}),
        ("LifSubtractFloat", None),
    ],
)
def test_what_a_loop_without_states_hands_on(name: str, left: set[str] | None) -> None:
    function = ops.get_op(name).function(21, frozenset(OMITS[name]))
    prefix = "".join(f"no_{state}_" for state in sorted(OMITS[name]))
    bodies = [
        a.g
        for node in all_nodes(function.node)
        if node.op_type == "Scan"
        for a in node.attribute
        if a.name == "body" and a.g.name.startswith(prefix)
    ]
    assert bool(bodies) == (left is not None)
    states = equation(ops.get_op(name)).states
    for body in bodies:
        read = {key for node in body.node for key in node.input}
        carried = {s for s in states for i in body.input if plain(i.name) == f"{s}_before"}
        used = {s for s in carried if f"{s}_before" in map(plain, read)}
        assert used == left
    general = list(all_nodes(ops.get_op(name).function(21).node))
    assert not any(value.startswith("no_") for node in general for value in node.output)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["LifFloat", "CubaFloat", "LifSubtractFloat"])
def test_floats_that_are_no_numbers_take_the_body_of_all(name: str, value: float) -> None:
    """Zero times infinity is NaN, which torch keeps for ever."""
    op = ops.get_op(name)
    sample = op.samples()[0]
    values = without(op, sample, OMITS[name])
    values[0] = values[0].clone()
    values[0][0, 1, 3] = value
    with np.errstate(all="ignore"):
        compared(name, sample, values, False, exact=False)


#: ops of floats whose parameters are often one or zero, in bodies of spikes and of voltages
SETTLED = [
    name for name, op in ops.all_ops().items()
    if name.startswith("Lif") and not name.endswith("Dynamics")
]  # fmt: skip


def _of_steps(function: onnx.FunctionProto, prefix: str) -> list[onnx.GraphProto]:
    """The bodies of loops whose names begin with something."""
    scans = [node for node in all_nodes(function.node) if node.op_type == "Scan"]
    bodies = [a.g for node in scans for a in node.attribute if a.name == "body"]
    return [body for body in bodies if body.name.startswith(prefix)]


@pytest.mark.parametrize("name", SETTLED)
def test_a_factor_of_one_and_what_is_zero_are_left_out(name: str) -> None:
    op = ops.get_op(name)
    omits = frozenset({"one_gain", "zero_drive"})
    found = op.omits({}, {  # type: ignore[misc]
        "gain": numpy_helper.from_array(np.ones(3, np.float32)),
        "drive": numpy_helper.from_array(np.zeros(1, np.float32)),
    })  # fmt: skip
    assert omits <= found
    function = op.function(21, omits)
    lean = _of_steps(function, "one_gain_zero_drive_")
    assert lean
    read = {plain(key) for body in lean for node in body.node for key in node.input}
    assert not {"drive_b", "gain_b"} & read
    # each parameter as it is left out, and as it is not: the body of all computes that
    for gain, added in ((1.0, 0.0), (1.0, 0.125), (0.5, 0.0)):
        for sample in op.samples()[:2]:
            values = dict(zip(op.inputs, sample.args, strict=False))
            values["gain"] = torch.full_like(values["gain"], gain)
            values["drive"] = torch.full_like(values["drive"], added)
            compared(name, sample, [values[key] for key in op.inputs], False, False, omits=omits)


@pytest.mark.parametrize("taken_off", [1.0, 0.75])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["LifSubtractFloat", "LifDelayedFloat"])
def test_a_spike_that_takes_one_off(name: str, value: float, taken_off: float) -> None:
    """Also of floats that are not finite, and by the same body where it is not one."""
    op = ops.get_op(name)
    omits = frozenset({"one_v_reset", "current"})
    assert "one_v_reset" in op.omits(  # type: ignore[misc]
        {}, {"v_reset": numpy_helper.from_array(np.ones(1, np.float32))}
    )
    lean = _of_steps(op.function(21, omits), "no_current_one_v_reset_")
    assert lean
    assert not any("v_reset_b" in node.input for body in lean for node in body.node)
    sample = op.samples()[0]
    values = without(op, sample, {"current"})
    given = dict(zip(op.inputs, values, strict=True))
    given["v_reset"] = torch.full_like(given["v_reset"], taken_off)
    given["x"] = given["x"].clone()
    given["x"][0, 1, 3] += value
    with np.errstate(all="ignore"):
        compared(name, sample, [*given.values()], False, exact=False, omits=omits)


@pytest.mark.parametrize("streaming", [False, True])
def test_neurons_that_leave_different_things_out_share_a_body(streaming: bool) -> None:
    """Each kind of node a branch of its own: ONNX Runtime 1.32 crashed when it loaded the file."""
    torch.manual_seed(1)
    kinds = [
        {"threshold": 1.0, "reset": "subtract"},
        {"threshold": 0.5, "reset": "subtract"},
        {"threshold": 0.5, "reset": "subtract", "gain": 0.5},
        {"threshold": 1.0, "reset": "subtract", "drive": 0.125},
    ]
    layers = [
        part
        for given in kinds
        for part in (so.synapse.Dense(6, 6, weight_scale=3), so.neuron.lif.Neuron(**given))
    ]
    net, x = nn.Sequential(*layers).eval(), drive()
    model = so.export(net, x, streaming=streaming)
    (function,) = (f for f in model.functions if f.name == "LifSubtractFloat")
    names = {body.name for body in _of_steps(function, "")}
    assert "no_current_finite_step" in names
    report = so.verify(net, model, x, native=False)
    assert report.ok, str(report)


class Late(ops.Equation):
    """A neuron that spikes a step late: what it compares is the voltage of the step before."""

    name = "Late"
    doc = "v[t] = (1 - decay) v[t-1] + x[t]; s[t] = 1 where v[t-1] >= threshold, else 0."
    parameters = (ops.Parameter("decay", "fraction of the voltage lost every step"),)
    states = (ops.State("voltage", "membrane voltage"),)
    traces = fires = ("before",)
    memory: ClassVar[Mapping[str, str]] = {"voltage": "decay"}

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"voltage": a.scaled(s.voltage, p.decay) + x.x}, {"before": s.voltage}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        return a.spike(v.before >= c.threshold, v.before, c.threshold)


@pytest.mark.parametrize(
    ("kind", "omits"),
    [
        ("spikes", {"voltage"}),
        ("dynamics", {"voltage"}),
        ("dynamics", {"never_threshold", "sum_of_voltage"}),
    ],
)
def test_a_state_that_is_a_result_as_it_was_stays_in_the_loop(kind: str, omits: set[str]) -> None:
    """What nothing is kept of, or all, is handed on where the step before is looked at."""
    op = NeuronOp(Late(), "slayer", kind)
    x = torch.arange(-6, 6).reshape(1, 2, 6) / 4
    decay, state = 4096.0 if "voltage" in omits else 0.0, torch.tensor([[700, -5]])
    level = 1 << 51 if kind == "dynamics" else 500
    rest = (torch.tensor([decay]), state, 1024, level)
    tail = () if kind == "dynamics" else (1.0, 1.0, False)
    expected = op.compute(x, *rest, *tail)
    signature = Signature("Late", op.inputs, op.outputs, op.attributes)
    w = Writer(signature, 21, [frozenset(omits)])
    function = onnx_ir.to_proto(w.function(op.body(w)))
    attributes = dict(zip(op.attributes, (1024, level, 0), strict=False))
    node = helper.make_node("Late", op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    feeds = {"x": np.moveaxis(x.numpy(), -1, 0), "decay": rest[0].numpy(), "voltage": state.numpy()}
    infos = [
        helper.make_tensor_value_info(
            key, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
        )
        for key, value in feeds.items()
    ]
    outs = [helper.make_value_info(key, onnx.TypeProto()) for key in op.outputs]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ops.DOMAIN, 1)]
    graph = helper.make_graph([node], "one", infos, outs)
    made = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    trace, last = ort.InferenceSession(made.SerializeToString()).run(None, feeds)
    np.testing.assert_array_equal(np.moveaxis(trace, 0, -1), expected[0].numpy())
    np.testing.assert_array_equal(last, expected[1].numpy())


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("decays", "void"),
    [
        ((1.0,), [True]),
        ((1.0, 0.3, 1.0), [True, False, True]),
        (((1.0,) * 6,), [True]),
        (((1.0,) * 5 + (0.5,),), [False]),
        ((0.3,), [False]),
    ],
)
def test_a_file_has_the_loops_that_its_nodes_need(
    decays: Any, void: list[bool], dynamic: bool
) -> None:
    """Choices that constants settle, of sizes that are constants, too: ONNX Runtime loads them."""
    net, x = network(*decays), drive()
    net(x)
    model = so.export(net, x, dynamic=dynamic)
    assert ["keeps no current" in text for text in said(model)] == void
    assert ("not all channels" in said(model)[0]) == (isinstance(decays[0], tuple) and not void[0])
    (function,) = (f for f in model.functions if f.name == "Cuba")
    assert ("no_current" in str(function)) == any(void)
    expected = net(x).detach().numpy()
    assert expected.any()
    assert not expected.all()
    for native in (False, None):
        np.testing.assert_array_equal(so.Session(model, native=native).run(x.numpy()), expected)


def test_an_op_says_which_states_are_void_and_which_are_not_quite() -> None:
    op = ops.get_op("Alif")

    def said(**decays: list[float]) -> set[str]:
        arrays = {n: numpy_helper.from_array(np.float32(v), n) for n, v in decays.items()}
        attributes = {
            "graded": 0, "base_threshold": 64, "threshold_step": 64,
        }  # fmt: skip
        omits = op.omits(attributes, arrays)  # type: ignore[misc]
        return set(op.arithmetic(attributes, arrays, omits).split("; ")[1:])  # type: ignore[misc]

    partly = "not all channels lose all of it"
    assert said() == set()
    assert said(current_decay=[4096.0] * 3, voltage_decay=[100.0]) == {"keeps no current"}
    assert said(current_decay=[4096.0, 100.0]) == {f"keeps current: {partly}"}
    assert said(refractory_decay=[0.0, 4096.0], threshold_decay=[4096.0]) == {
        "keeps no threshold", f"keeps refractory: {partly}",
    }  # fmt: skip


def test_a_file_whose_parameters_are_changed_computes_them() -> None:
    """The file itself asks what it may leave out: another decay takes the loops of all."""
    x = drive()
    model = so.export(network(1.0), x)
    (decay,) = (i for i in model.graph.initializer if i.name.endswith("current_decay"))
    decay.CopyFrom(numpy_helper.from_array(np.array([1000.0], np.float32), decay.name))
    other = network(1000 / 4096)(x).detach().numpy()
    assert not np.array_equal(other, network(1.0)(x).detach().numpy())
    np.testing.assert_array_equal(so.Session(model, native=False).run(x.numpy()), other)


def test_graded_spikes_keep_all_states_in_fixed_point() -> None:
    net, x = network(1.0, graded_spike=True), drive()
    model = so.export(net, x)
    assert "keeps" not in said(model)[0]
    expected = net(x).detach().numpy()
    np.testing.assert_array_equal(so.Session(model, native=False).run(x.numpy()), expected)


@pytest.mark.parametrize("native", [False, None])
def test_a_stream_keeps_its_states(native: bool | None) -> None:
    """A void state is still an input and an output, and any chunks give the whole."""
    net, x = network(1.0, 0.3), drive(12)
    model = so.export(net, x, streaming=True)
    names = [state["input"] for state in Metadata.read(model).states]
    assert names == ["1.current", "1.voltage", "3.current", "3.voltage"]
    expected = net(x).detach().numpy()
    stream = so.Session(model, native=native).stream(2)
    parts = [stream.run(x[..., a:b].numpy()) for a, b in ((0, 1), (1, 2), (2, 9), (9, 12))]
    np.testing.assert_array_equal(np.concatenate(parts, -1), expected)
    current = net[0](x)[..., -1]
    np.testing.assert_array_equal(stream.states["1.current"], (4096 * current).long().numpy())


def test_many_neurons_without_a_current() -> None:
    """More than from which on products of few bits are tried in float32."""
    neuron = so.neuron.cuba.Neuron(1.0, 1.0, 1 / 16).eval()
    x = torch.randint(-16, 32, (1, 3000, 20), generator=torch.Generator().manual_seed(1)) / 16
    expected = neuron(x).numpy()
    assert expected.any()
    assert not expected.all()
    for dynamic in (True, False):
        model = so.export(neuron, x, dynamic=dynamic)
        np.testing.assert_array_equal(so.Session(model, native=False).run(x.numpy()), expected)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["cuba", "alif"])
def test_a_current_that_is_an_output_and_keeps_nothing(kind: str, streaming: bool) -> None:
    """It is what comes in, which no branch of a graph may hand on as its own."""
    neuron = getattr(so.neuron, kind).Neuron
    parameters = {**neuron.example, "current_decay": 1.0, "regime": "float"}
    module = getattr(so.block, kind).Affine(parameters, 6, 4, dynamics=True)
    x = (torch.arange(2 * 6 * 7).reshape(2, 6, 7) % 3 == 0).float()
    module(x)
    assert so.verify(module, so.export(module, x, streaming=streaming), x).ok
