"""Files that were changed in ways that a comparison by names and values alone overlooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import NEURON, spikes
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(3, 6, 12, rate=0.4)


def dense(count: int, out: int) -> so.block.cuba.Dense:
    return so.block.cuba.Dense(NEURON, count, out, weight_scale=3)


def made(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(layers or (dense(6, 8), dense(8, 3)))).eval()


def differs(network: nn.Module, model: onnx.ModelProto, x: Tensor) -> bool:
    with torch.no_grad():
        return bool((so.Session(model).run(x.numpy()) != network(x).numpy()).any())


def _overloaded(model: onnx.ModelProto) -> None:
    """ONNX Runtime runs the body of the overload, in which threes are zeros."""
    body = onnx.FunctionProto()
    body.CopyFrom(next(f for f in model.functions if f.name == "QuantizedDense"))
    body.overload = "other"
    for node in body.node:
        node.input[:] = ["read" if name == "x" else name for name in node.input]
    for i, node in enumerate(_without(3.0, "x", "read")):
        body.node.insert(i, node)
    model.functions.insert(0, body)
    for node in model.graph.node:
        if node.op_type == "QuantizedDense":
            node.overload = "other"


def _without(value: float, name: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that replace a value by zero."""
    return [
        helper.make_node("Constant", [], ["value"], name="value", value_float=value),
        helper.make_node("Sub", [name, name], ["zero"], name="zero"),
        helper.make_node("Equal", [name, "value"], ["is_value"], name="is_value"),
        helper.make_node("Where", ["is_value", "zero", name], [result], name="where"),
    ]


def _folded(model: onnx.ModelProto) -> None:
    """NumPy and ONNX Runtime round the exponential of one number to two."""
    argument = np.float32(3.1848085)
    for name, value in (("argument", argument), ("power", np.exp(argument))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    result = helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, None)
    same = [helper.make_node("Identity", ["input"], ["chosen"])]
    branches = {
        f"{key}_branch": helper.make_graph(nodes, key, [], [result])
        for key, nodes in (("then", same), ("else", _without(3.0, "input", "chosen")))
    }
    for node in model.graph.node:
        node.input[:] = ["chosen_input" if name == "input" else name for name in node.input]
    first = [
        helper.make_node("Exp", ["argument"], ["exp"], name="exp"),
        helper.make_node("Equal", ["exp", "power"], ["equal"], name="equal"),
        helper.make_node("If", ["equal"], ["chosen_input"], name="if", **branches),
    ]
    for i, node in enumerate(first):
        model.graph.node.insert(i, node)


def _sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.float32([1]), "0.neuron.current_decay")
    places = helper.make_tensor("places", onnx.TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1]))


@pytest.mark.parametrize("forge", [_overloaded, _folded, _sparse])
def test_a_forged_file_is_not_equal(forge: Callable[[onnx.ModelProto], None]) -> None:
    network = made()
    model = so.export(network, X)
    forge(model)
    assert differs(network, model, 3 * X)
    report = so.verify(network, model, X)
    assert not report.ok
    assert report.problems


class Clipped(nn.Module):
    """A dense layer of what a parameter cuts off, and a loop that cuts off, too."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = dense(6, 4)
        self.most = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y, v, rows = self.dense(torch.minimum(x, self.most)), torch.zeros(x.shape[0], 4), []
        for t in range(y.shape[-1]):
            v = torch.where(v > 3, v * 0.5, v * 0.25) + y[..., t] + x[:, :4, t]
            v = torch.clamp(v, max=9.5)
            rows.append(v)
        return torch.stack(rows, -1)


def _instead_of_most(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: Any) -> None:
    """Compute the parameter by nodes, of constants."""
    graph = model.graph
    graph.initializer.remove(next(t for t in graph.initializer if t.name == "most"))
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)


def _sized(model: onnx.ModelProto) -> None:
    """The file lies about the shape of what is counted, so that a program may take it for 0."""
    _instead_of_most(
        model,
        helper.make_node("Greater", ["x", "level"], ["large"], "z1"),
        helper.make_node("NonZero", ["large"], ["places"], "z2"),
        helper.make_node("Size", ["places"], ["size"], "z3"),
        helper.make_node("Add", ["size", "one"], ["sum"], "z4"),
        helper.make_node("Cast", ["sum"], ["most"], "z5", to=1),
        level=np.float32(10), one=np.array([1]),
    )  # fmt: skip
    info = helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [3, 0])
    model.graph.value_info.append(info)


def _two_values(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["most"], "constant", value_floats=[7.0])
    value = numpy_helper.from_array(np.ones(1, np.float32))
    node.attribute.append(helper.make_attribute("value", value))
    _instead_of_most(model, node)


def _overflowing(model: onnx.ModelProto) -> None:
    """NumPy and ONNX Runtime have other powers of integers that overflow."""
    _instead_of_most(
        model,
        helper.make_node("Pow", ["three", "many"], ["power"], "z1"),
        helper.make_node("Equal", ["power", "found"], ["equal"], "z2"),
        helper.make_node("Where", ["equal", "right", "wrong"], ["most"], "z3"),
        three=np.int32([3]), many=np.int32([25]), found=np.int32([1180052131]),
        right=np.float32([1]), wrong=np.float32([7]),
    )  # fmt: skip


def _of_no_number(model: onnx.ModelProto) -> None:
    """ONNX Runtime's largest of 3 and NaN is 3."""
    _instead_of_most(
        model,
        helper.make_node("ReduceMax", ["numbers"], ["largest"], "z1", keepdims=1),
        helper.make_node("Equal", ["largest", "largest"], ["known"], "z2"),
        helper.make_node("Where", ["known", "wrong", "right"], ["most"], "z3"),
        numbers=np.float32([3, np.nan]), right=np.float32([1]), wrong=np.float32([7]),
    )  # fmt: skip


def _sparse_within(model: onnx.ModelProto) -> None:
    """A constant of a loop hides the one around it."""
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    name = next(node.input[2] for node in body.node if node.op_type == "Clip")
    values = numpy_helper.from_array(np.float32([500]), name)
    places = helper.make_tensor("places", onnx.TensorProto.INT64, [1], [0])
    body.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1]))


@pytest.mark.parametrize(
    "forge", [_sized, _two_values, _overflowing, _of_no_number, _sparse_within]
)
def test_what_programs_read_otherwise_is_not_equal(
    forge: Callable[[onnx.ModelProto], None],
) -> None:
    torch.manual_seed(0)
    network = Clipped().eval()
    model = so.export(network, X)
    assert so.verify(network, model, X).ok
    forge(model)
    assert differs(network, model, 50 * X)
    report = so.verify(network, model, X)
    assert not report.ok
    assert report.problems


def _twice(field: str) -> Callable[[onnx.ModelProto], None]:
    """A part twice: ONNX Runtime takes the last, and another program may take the first."""

    def forge(model: onnx.ModelProto) -> None:
        parts = model.graph.initializer if field == "initializer" else getattr(model, field)
        kept = list(parts)
        other = type(kept[0])()
        other.CopyFrom(kept[0])
        if isinstance(other, onnx.TensorProto):
            other.raw_data = bytes(len(other.raw_data))
        elif isinstance(other, onnx.OperatorSetIdProto):
            other.version += 1
        del parts[:]
        parts.extend([other, *kept])

    return forge


def _in_two_fields(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    tensor.float_data.extend([0.0] * numpy_helper.to_array(tensor).size)


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (_twice("initializer"), "initialiser 0.synapse.weight is in the file 2 times"),
        (_twice("opset_import"), "is in the file 2 times"),
        (_in_two_fields, "has values in several fields, of which one counts"),
    ],
    ids=["initialiser", "opset", "fields"],
)
def test_what_programs_may_read_in_two_ways_is_named(
    forge: Callable[[onnx.ModelProto], None], sentence: str
) -> None:
    network = made()
    model = so.export(network, X)
    forge(model)
    assert any(sentence in problem for problem in so.verify(network, model, X).problems)


def test_a_sign_of_zero_is_a_difference() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = dense(6, 3)
            self.register_buffer("zero", torch.zeros(6, 1))

        def forward(self, x: Tensor) -> Any:
            return self.dense(x + torch.atan2(self.zero, x + 1.5))

    network = made(Net())
    model = so.export(network, X)
    (zero,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("zero"))
    zero.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(zero), zero.name))
    report = so.verify(network, model, X)
    assert any("6 of 6 values differ" in problem for problem in report.problems)


def test_a_reference_to_an_attribute_and_another_order_get_a_verdict() -> None:
    network = made()
    model = so.export(network, X)
    model.graph.node[-1].attribute[0].ref_attr_name = "other"
    assert any("a reference to other" in p for p in so.verify(network, model, X).problems)
    model = so.export(network, X)
    for node in model.graph.node:
        node.name = node.name if node.domain else f"renamed {node.name}"
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[1:] + nodes[:1])
    report = so.verify(network, model, X)
    assert report.verdict == "equal", str(report)


# -- right networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_module_of_torchs_in_two_places_leaves_layers_their_paths(streaming: bool) -> None:
    relu = nn.ReLU()
    network = made(dense(6, 8), relu, dense(8, 3), relu)
    model = so.export(network, X, streaming=streaming)
    report = so.verify(network, model, X)
    assert report.verdict == "equal", str(report)
    assert [row.name for row in report.layers][::3] == ["0.synapse", "2.synapse"]


def test_a_network_in_training_is_not_touched() -> None:
    """Spectral norm goes on whenever the weight is read."""
    network = made().train()
    spectral_norm(network[0].synapse, "weight")
    network(X)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = so.verify(network, so.export(network, X), X)
    assert report.ok, str(report)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


Norm = so.neuron.norm.MeanOnlyBatchNorm


class Spike(so.neuron.cuba.Neuron):
    def spike(self, voltage: Tensor) -> Tensor:
        return super().spike(2 * voltage)


class Dynamics(so.neuron.cuba.Neuron):
    def dynamics(self, input: Any) -> tuple[Tensor, ...]:
        current, voltage = super().dynamics(input)
        return current, 2 * voltage


class Doubled(Norm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("neuron", "norm"), [(Spike, Norm), (Dynamics, Norm), (so.neuron.cuba.Neuron, Doubled)]
)
def test_a_subclass_keeps_its_step_with_a_norm(neuron: Any, norm: Any) -> None:
    """The norm becomes part of the neuron's own step alone."""
    network = made(so.synapse.Dense(6, 5, weight_scale=3), neuron(**NEURON, norm=norm))
    network.train()(X)
    network.eval()
    model = so.export(network, X)
    assert not differs(network, model, X)
    assert so.verify(network, model, X).ok
