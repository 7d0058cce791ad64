"""Bodies of ops by themselves: every opset, every tensor as an input of the graph, no exporter.

A body that is only right for stored weights or for zero states, or at one opset, fails here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import of_one_node
import onnx
import pytest
import together
import torch
from onnx import helper
from torch import Tensor

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.model.options import OPSETS

pytestmark = pytest.mark.gpu

OPS = ops.all_ops()
FIRST = [pytest.param(op, op.samples()[0], id=name) for name, op in OPS.items()]


def tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [a for a in args if isinstance(a, Tensor)]


#: the samples that give the attributes of a node: the first of every op, and the full ones
CALLED = [
    (op, sample)
    for op in OPS.values()
    for i, sample in enumerate(op.samples())
    if i == 0 or (sample.id == "full" and op.name.endswith("DynamicsLoihi"))
]
GROUPS = together.groups(CALLED, alike=lambda _: None, apart=lambda call: call[0].name, most=10)


@cache
def attributes_of_group(group: int) -> dict[str, dict[str, Any]]:
    """Op -> the attributes of its node, as its own symbolic function makes them."""
    branches = []
    for op, sample in GROUPS[group]:
        call = Traced(op, sample.args)
        branches.append(
            together.Branch(op.name, call, tuple(tensors(sample.args)), len(op.outputs))
        )
    model = together.export(branches, dynamic=False).model
    return {
        node.op_type: {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for node in model.graph.node
        if node.domain == ops.DOMAIN
    }


def attributes_of(op: ops.OpDef, sample: ops.Sample) -> dict[str, Any]:
    called = (op.name, sample.id)
    (group,) = (i for i, calls in enumerate(GROUPS) if called in [(o.name, s.id) for o, s in calls])
    return attributes_of_group(group)[op.name]


class Traced(torch.nn.Module):
    """A call of an op whose tensors are all inputs."""

    def __init__(self, op: ops.OpDef, args: tuple[Any, ...]) -> None:
        super().__init__()
        self.op, self.rest = op, tuple(a for a in args if not isinstance(a, Tensor))

    def forward(self, *args: Tensor) -> Any:
        return self.op.torch_op(*args, *self.rest)


def model_of(
    op: ops.OpDef, values: list[Tensor], results: tuple[Tensor, ...], attributes: Any, opset: int
) -> onnx.ModelProto:
    """One node and its function; types and ranks given, sizes left open."""

    def info(name: str, value: Tensor) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
        return helper.make_tensor_value_info(name, kind, [None] * value.dim())

    node = helper.make_node(op.name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "body",
        [info(name, value) for name, value in zip(op.inputs, values, strict=True)],
        [info(name, value) for name, value in zip(op.outputs, results, strict=True)],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[op.function(opset)])
    model.ir_version = 10  # the oldest that opset 21 stands in
    return model


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_a_body_is_valid_at_every_opset(op: ops.OpDef, sample: ops.Sample) -> None:
    attributes, values = attributes_of(op, sample), tensors(sample.args)
    expected = op.torch_op(*sample.args)
    expected = expected if isinstance(expected, tuple) else (expected,)
    # sequences have one axis more than states, which stay as they are
    sequence = sample.args[0].dim()
    feeds = [
        v.movedim(-1, 0).numpy() if i == 0 or name.startswith("x") or name == "line" else v.numpy()
        for i, (name, v) in enumerate(zip(op.inputs, values, strict=True))
    ]
    for opset in OPSETS:
        model = model_of(op, values, expected, attributes, opset)
        onnx.checker.check_model(model, full_check=True)
    found = so.Session(model).run(*feeds)  # test_ops.py runs all of them at the first opset
    found = found if isinstance(found, tuple) else (found,)
    for y, reference in zip(found, expected, strict=True):
        value = np.moveaxis(y, 0, -1) if y.ndim == sequence else y
        assert (value.shape, str(value.dtype)) == (
            tuple(reference.shape),
            str(reference.numpy().dtype),
        )
        difference = np.abs(value - reference.numpy()).max()
        assert difference <= sample.rtol * reference.abs().max().item()


@pytest.mark.parametrize("op", [op for name, op in OPS.items() if name.endswith("DynamicsLoihi")],
                         ids=lambda op: op.name)  # fmt: skip
def test_a_body_keeps_24_bits_at_both_ends(op: ops.OpDef) -> None:
    """Currents that lead beyond either: states stay at the end, or come out at the other."""
    (full,) = (sample for sample in op.samples() if sample.id == "full")
    attributes = attributes_of(op, full)
    x = [name for name in op.inputs if name.startswith("x")]
    turned = {*x, *(name.removeprefix("last_") for name in op.outputs)}
    least, most = 0.0, 0.0
    for sign in (1, -1):
        args = [
            sign * value if name in turned else value
            for name, value in zip(op.inputs, full.args, strict=False)
        ]
        expected = op.torch_op(*args, *full.args[len(args) :])
        model = model_of(op, args, expected, attributes, OPSETS[0])
        feeds = [
            v.movedim(-1, 0).numpy() if name in x else v.numpy()
            for name, v in zip(op.inputs, args, strict=True)
        ]
        found = so.Session(model).run(*feeds)
        for y, reference in zip(found, expected, strict=True):
            value = np.moveaxis(y, 0, -1) if y.ndim == args[0].dim() else y
            np.testing.assert_array_equal(value, reference.numpy())
        membrane = expected[op.outputs.index(f"{membrane_of(op)}_trace")]
        least, most = min(least, float(membrane.min())), max(most, float(membrane.max()))
    end = (2**23 - 1) / 4096
    assert (least, most) == (-end, end)


def membrane_of(op: ops.OpDef) -> str:
    return "voltage" if "voltage_trace" in op.outputs else "imag"


def test_groups_of_channels_stay_apart() -> None:
    """In the bodies of all synapses on images, for every sample: one group, several, pools."""
    seen = set()
    for name, op in OPS.items():
        if "strides" not in op.attributes:
            continue
        for sample in op.samples():
            values = tensors(sample.args)
            attributes = of_one_node.attributes_of(op, list(sample.args[len(values) :]))
            if name.endswith("Pool"):  # a group a channel, see ops/_synapse.py
                attributes["group"] = values[0].shape[1]
            if "Biased" in name:  # the exporter writes how many biases there are
                attributes["out_channels"] = values[-1].shape[0]
            expected = op.torch_op(*sample.args)
            expected = expected if isinstance(expected, tuple) else (expected,)
            model = model_of(op, values, expected, attributes, OPSETS[0])
            x, *rest = (value.numpy() for value in values)
            found = so.Session(model).run(np.moveaxis(x, -1, 0), *rest)
            found = found if isinstance(found, tuple) else (found,)
            for y, reference in zip(found, expected, strict=True):
                value = np.moveaxis(y, 0, -1)
                assert value.shape == reference.shape, (name, sample.id)
                limit = sample.rtol * float(reference.abs().max())
                assert np.abs(value - reference.numpy()).max() <= limit, (name, sample.id)
            seen.add((name, attributes["group"] > 1))
    assert {("ComplexConv", True), ("ComplexConv", False), ("ComplexPool", True)} <= seen
    assert {("QuantizedComplexConvTranspose", True), ("Pool", True)} <= seen
    assert {("QuantizedBiasedConv", True), ("QuantizedBiasedConv", False)} <= seen
