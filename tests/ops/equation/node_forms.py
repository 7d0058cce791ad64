"""One node of an equation with a body that leaves states out, and networks of CUBA neurons."""

from __future__ import annotations

import re
from collections.abc import Set
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.model.metadata import Metadata

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
    streaming: bool = False, omits: Set[str] | None = None,
) -> None:  # fmt: skip
    """Hold ONNX Runtime and the reference evaluator equal to torch, last states too.

    The body leaves out what ``omits`` says, else the states of :data:`OMITS`.
    """
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
    left_out = frozenset(OMITS.get(name, ()) if omits is None else omits)
    data = model(name, left_out, graded, tuple(v.dim() for v in values), streaming)
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
