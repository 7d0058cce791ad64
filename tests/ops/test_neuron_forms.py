"""What a neuron's body leaves out: void states, loops of readouts; and single steps of streams."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from graphs import all_nodes
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.ops._writer import Signature, Writer
from synapse_onnx.ops.arithmetic import fixed
from synapse_onnx.ops.equation import NeuronOp

#: op -> the states that its body leaves out here
OMITS = {
    "Cuba": {"current"},
    "CubaDynamics": {"current", "voltage"},
    "CubaLoihi": {"current"},
    "CubaFloat": {"current"},
    "RecurrentCuba": {"current"},
    "Alif": {"current", "refractory"},
    "AlifDynamics": {"threshold", "refractory"},
    "AlifLoihi": {"current", "voltage", "threshold", "refractory"},
    "AlifFloat": {"current"},
    "Adrf": {"threshold", "refractory"},
    "AdrfIz": {"refractory"},
    "LifFloat": {"current"},
    "LifSubtractFloat": {"current", "voltage"},
    "LifDelayedFloat": {"current"},
    "LifDelayedZeroFloat": {"current"},
}


def equation(op: ops.OpDef) -> Any:
    """The op as its equation registers it."""
    method: Any = op.arithmetic
    return method.__self__


def plain(name: str) -> str:
    """The name of a value without the number that makes it its own."""
    return re.sub(r"_\d+$", "", name)


def without(op: ops.OpDef, sample: ops.Sample, states: set[str]) -> list[Tensor]:
    """The tensors of a sample call, nothing kept of some states."""
    neuron = equation(op)
    values = dict(zip(op.inputs, sample.args, strict=False))
    for state in states:
        name = neuron.e.memory[state]
        (table,) = (p for p in neuron.table if p.name == name)
        nothing = (4096.0 if neuron.fixed else 1.0) if table.kept else 0.0
        values[name] = torch.full_like(values[name], nothing)
    return [values[name] for name in op.inputs]


@cache
def model(
    name: str, omits: frozenset[str], graded: bool, ranks: tuple[int, ...], streaming: bool
) -> bytes:
    """One node and its function; everything an input, sizes left open."""
    op = ops.get_op(name)
    sample = op.samples()[0]
    tail = sample.args[len(op.inputs) :]
    attributes = dict(zip(op.attributes, tail, strict=False))
    if "graded" in op.attributes:
        attributes["graded"] = int(graded)
    infos = [
        helper.make_tensor_value_info(
            key, helper.np_dtype_to_tensor_dtype(value.numpy().dtype), [None] * rank
        )
        for key, value, rank in zip(op.inputs, sample.args, ranks, strict=False)
    ]
    node = helper.make_node(name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    outs = [helper.make_value_info(key, onnx.TypeProto()) for key in op.outputs]
    graph = helper.make_graph([node], "one", infos, outs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ops.DOMAIN, 1)]
    function = op.function(21, *([omits] if omits else []), streaming=streaming)
    made = helper.make_model(graph, opset_imports=opsets, functions=[function])
    made.ir_version = 10
    return made.SerializeToString()


def compared(
    name: str, sample: ops.Sample, values: list[Tensor], graded: bool, exact: bool,
    streaming: bool = False,
) -> None:  # fmt: skip
    """Hold ONNX Runtime and the reference evaluator equal to torch, last states too."""
    op = ops.get_op(name)
    tail = list(sample.args[len(op.inputs) :])
    if "graded" in op.attributes:
        tail[-1] = graded
    with torch.no_grad():
        expected = op.torch_op(*values, *tail)
    feeds = {
        key: np.moveaxis(v.numpy(), -1, 0) if key.startswith("x") else v.numpy()
        for key, v in zip(op.inputs, values, strict=True)
    }
    omits = frozenset(OMITS.get(name, ()))
    data = model(name, omits, graded, tuple(v.dim() for v in values), streaming)
    sequence = values[0].dim()
    runs = (
        ort.InferenceSession(data).run(None, feeds),
        ReferenceEvaluator(onnx.load_from_string(data)).run(None, feeds),
    )
    for found in runs:
        for y, reference in zip(found, expected, strict=True):
            value = np.moveaxis(y, 0, -1) if y.ndim == sequence else y
            assert value.dtype == reference.numpy().dtype
            if exact:
                np.testing.assert_array_equal(value, reference.numpy())
            else:
                np.testing.assert_allclose(value, reference.numpy(), rtol=2e-6, atol=2e-6)


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


SINGLE = ["Cuba", "CubaDynamics", "CubaLoihi", "Alif", "AlifLoihi", "Rf", "RfDynamics", "RfIz",
          "RfIzLoihi", "Adrf", "AdrfIz"]  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_step_needs_no_loop(name: str) -> None:
    """One step from any states, and a few in the same file, of void states and of others."""
    op = ops.get_op(name)
    count = len(equation(op).e.currents)
    for sample in op.samples():
        for void in (False, True) if name in OMITS else (False,):
            values = list(sample.args[: len(op.inputs)])
            values = without(op, sample, OMITS[name]) if void else values
            for steps in (1, 3):
                some = [*(x[..., :steps] for x in values[:count]), *values[count:]]
                compared(name, sample, some, sample.id == "graded", exact=True, streaming=True)
    function = op.function(21, streaming=True)
    choices = [
        {a.name: [n.op_type for n in all_nodes(a.g.node)] for a in node.attribute}
        for node in all_nodes(function.node)
        if node.op_type == "If"
    ]
    ways = [c for c in choices if "Unsqueeze" in c["then_branch"] and "Scan" in c["else_branch"]]
    assert any("Scan" not in way["then_branch"] for way in ways)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("decay", [1.0, 0.3])
def test_a_stream_of_one_size_loads(decay: float, steps: int) -> None:
    """All sizes are constants: what they settle in one another must not be lost."""
    net, x = network(decay, 0.5), drive(8)
    expected = net(x).detach().numpy()
    model = so.export(net, x[..., :steps], streaming=True, dynamic=False)
    stream = so.Session(model, native=False).stream(2)
    parts = [stream.run(x[..., t : t + steps].numpy()) for t in range(0, 8, steps)]
    np.testing.assert_array_equal(np.concatenate(parts, -1), expected)


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


# -- in files -----------------------------------------------------------------------------------


def network(*decays: float | tuple[float, ...], **more: Any) -> nn.Module:
    """Dense layers with CUBA neurons of some current decays."""
    torch.manual_seed(2)
    layers: list[nn.Module] = []
    for decay in decays:
        layers.append(so.synapse.Dense(6, 6, weight_scale=3, pre_hook_fx=so.quantize.q8))
        many = isinstance(decay, tuple)
        neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.1, shared_param=not many, **more)
        value = torch.tensor(decay if many else [decay])
        neuron.current_decay.data = 4096 * value
        neuron._ranges.pop("current_decay", None)
        layers.append(neuron)
    return nn.Sequential(*layers).eval()


def drive(steps: int = 30) -> Tensor:
    return (torch.rand(2, 6, steps, generator=torch.Generator().manual_seed(4)) < 0.4).float()


def said(model: onnx.ModelProto) -> list[str]:
    layers = Metadata.read(model).layers
    return [layer["arithmetic"] for layer in layers if layer["kind"] == "cuba"]


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


# -- readouts -----------------------------------------------------------------------------------


def readout(regime: str, current: float, voltage: float) -> Any:
    """A CUBA neuron that never spikes, with some fractions lost every step."""
    neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.5, regime=regime, persistent_state=True).eval()
    neuron.as_readout()
    neuron.current_decay.data = torch.tensor([4096 * current])
    neuron.voltage_decay.data = torch.tensor([4096 * voltage])
    return neuron


def sums(nodes: Iterable[onnx.NodeProto], branch: str = "") -> Iterator[tuple[str, Any]]:
    """Every CumSum, with the name of the branch that it is in."""
    for node in nodes:
        if node.op_type == "CumSum":
            yield branch, node
        for attribute in node.attribute:
            yield from sums(attribute.g.node, attribute.g.name)


def dynamics(model: onnx.ModelProto) -> onnx.FunctionProto:
    (function,) = (f for f in model.functions if f.name.startswith("CubaDynamics"))
    return function


def reversed_sums(model: onnx.ModelProto, narrow: bool) -> bytes:
    """The file with the sums of 32 or 64 bits taken from the end of time."""
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    for branch, node in sums(dynamics(copied).node):
        if (branch == "narrow") == narrow:
            node.attribute.append(helper.make_attribute("reverse", 1))
    return copied.SerializeToString()


#: fractions lost of current and voltage -> states without a loop, states of the loop that is left
SUMS = {
    (1.0, 0.0): (["voltage"], set()),
    (0.0, 0.0): (["current", "voltage"], set()),
    (0.0, 0.25): (["current"], {"voltage"}),
    (0.0, 1.0): (["current"], set()),
    (0.25, 0.0): ([], {"current", "voltage"}),  # a sum of what a loop gives stays in the loop
}


@pytest.mark.parametrize(
    ("regime", "lost"), [*(("slayer", lost) for lost in SUMS), ("loihi", (1.0, 0.0))]
)
def test_a_readout_that_keeps_all_is_a_sum(regime: str, lost: tuple[float, float]) -> None:
    """In the graph and in numbers: 32 bits, 64, and beyond what products with 4096 hold."""
    neuron = readout(regime, *lost)
    x = torch.randint(-64, 65, (2, 3, 12), generator=torch.Generator().manual_seed(6)) / 64
    model = so.export(neuron, x, streaming=True)
    parts = dict(zip(("current", "voltage"), lost, strict=True))
    left_out = [f"no_{name}" for name, part in parts.items() if part == 1] + ["never_threshold"]
    left_out += [f"sum_of_{name}" for name, part in parts.items() if part == 0]
    prefix = "_".join([*sorted(left_out), "narrow_step"])
    loops = {
        a.g.name: {plain(i.name).removesuffix("_before") for i in a.g.input}
        for node in all_nodes(dynamics(model).node)
        if node.op_type == "Scan"
        for a in node.attribute
        if a.name == "body"
    }
    summed, left = SUMS[lost]
    assert {"narrow_step", "wide_step"} <= loops.keys()  # the body of all
    assert (prefix in loops) == bool(left)
    assert loops.get(prefix, set()) & {"current", "voltage"} == left
    branches = [branch for branch, _ in sums(dynamics(model).node)]
    assert branches.count("narrow") == len(summed)

    op = neuron.equation.op("dynamics", regime)
    decays = neuron.current_decay.data, neuron.voltage_decay.data
    sessions = [
        ort.InferenceSession(data)
        for data in (
            model.SerializeToString(), reversed_sums(model, True), reversed_sums(model, False)
        )
    ]  # fmt: skip
    bias = (torch.tensor([0.0]),) if regime == "loihi" else ()
    names = [info.name for info in sessions[0].get_inputs()]
    taken = []
    for size, start in ((1.0, 5), (2.0**13 + 1, 7), (1.0, (1 << 52) + 9)):
        if regime == "loihi" and start > 1 << 24:
            continue  # no state is beyond 24 bits
        state = torch.full((2, 3), start)
        level = fixed.NO_THRESHOLD
        expected = op(x * size, *decays, *bias, state, state + 1, neuron.s_scale, level)[1:]
        values = [(x * size).numpy(), state.numpy(), (state + 1).numpy()]
        found = [session.run(None, dict(zip(names, values, strict=True))) for session in sessions]
        for got, want in zip(found[0], expected, strict=True):
            np.testing.assert_array_equal(got, want.numpy())
        taken.append([not np.array_equal(found[0][0], other[0]) for other in found[1:]])
    exact = bool(summed)
    wide = [False, exact and regime == "slayer"]  # beyond 24 bits a sum of Loihi's wraps round
    assert taken == [[exact, False], wide, [False, False]][: len(taken)]


def test_a_file_says_what_it_sums_up_and_streams_it() -> None:
    """A readout behind a layer, in chunks, and with another decay than at export."""
    torch.manual_seed(3)
    block = so.block.cuba.Affine(
        {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0}, 6, 4,
        pre_hook_fx=so.quantize.q8,
    ).eval()  # fmt: skip
    x = drive(20)
    model = so.export(block, x, streaming=True)
    (text,) = said(model)
    assert "keeps no current" in text
    assert "sums voltage up, without a loop" in text
    expected = block(x).detach().numpy()
    assert expected.any()
    for native in (False, None):
        stream = so.Session(model, native=native).stream(2)
        parts = [stream.run(x[..., a:b].numpy()) for a, b in ((0, 1), (1, 2), (2, 9), (9, 20))]
        np.testing.assert_array_equal(np.concatenate(parts, -1), expected)
    assert so.verify(block, model, x).ok
    (decay,) = (i for i in model.graph.initializer if i.name.endswith("voltage_decay"))
    decay.CopyFrom(numpy_helper.from_array(np.array([1000.0], np.float32), decay.name))
    block.neuron.voltage_decay.data = torch.tensor([1000.0])
    other = block(x).detach().numpy()
    assert not np.array_equal(other, expected)
    np.testing.assert_array_equal(so.Session(model, native=False).run(x.numpy()), other)


def test_a_threshold_that_can_be_reached_is_no_readout() -> None:
    """Traces of a neuron that spikes are reset."""
    op = ops.get_op("CubaDynamics")
    decays = {
        name: numpy_helper.from_array(np.array([0.0], np.float32))
        for name in ("current_decay", "voltage_decay")
    }
    sums = {"sum_of_current", "sum_of_voltage"}
    assert op.omits is not None
    assert op.omits({"threshold": 1 << 51}, decays) == {"never_threshold", *sums}
    assert op.omits({"threshold": (1 << 51) - 1}, decays) == frozenset()
    spikes = ops.get_op("Cuba")
    assert spikes.omits is not None
    assert spikes.omits({"threshold": 1 << 51, "graded": 0}, decays) == {"graded"}


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
