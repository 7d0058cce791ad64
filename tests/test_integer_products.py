"""Dense products of integers: taken only where they are exact and pay, and always the same sums.

Which product gave the sums shows where that of integers is turned negative: they come out changed
if, and only if, it was taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import all_nodes
from onnx import helper, numpy_helper
from torch import nn

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.runtime import for_cuda

RNG = np.random.default_rng(0)


def sums(
    x: np.ndarray, weight: np.ndarray, *, spikes: int = 0, integers: int = 1, stored: bool = True,
    negative: bool = False,
) -> np.ndarray:  # fmt: skip
    """Run one node over x (T, N, C) with weights (O, C), stored in the file or given as inputs."""
    op = ops.get_op("QuantizedDense")
    node = helper.make_node(
        op.name, op.inputs, op.outputs, domain=ops.DOMAIN, spikes=spikes, integers=integers
    )
    tensors = {"weight": weight.reshape(*weight.shape, 1, 1, 1), "step": np.ones(1, np.float32)}
    kinds = {name: helper.np_dtype_to_tensor_dtype(v.dtype) for name, v in tensors.items()}
    inputs = [
        helper.make_tensor_value_info(
            "x", helper.np_dtype_to_tensor_dtype(x.dtype), [None, None, x.shape[-1]]
        )
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    if not stored:
        inputs += [
            helper.make_tensor_value_info(name, kinds[name], v.shape) for name, v in tensors.items()
        ]
    function = op.function(21)
    if negative:
        # the branch that casts int32 sums to floats
        graph = next(
            a.g
            for n in function.node
            for a in n.attribute
            if any(inner.op_type == "MatMulInteger" for inner in a.g.node)
        )
        (cast,) = (n for n in graph.node if n.input[0] == "sum_32")
        cast.output[0] = "right"
        graph.node.append(helper.make_node("Neg", ["right"], ["sum_f"]))
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            inputs,
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            constants if stored else [],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(ops.DOMAIN, 1)],
        functions=[function],
    )
    model.ir_version = 10
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    (y,) = session.run(None, {"x": x} | ({} if stored else tensors))
    return y


def takes_integers(x: np.ndarray, weight: np.ndarray, **how: Any) -> bool:
    """Whether the product of integers is taken; its sums are held equal to NumPy's."""
    found, other = (sums(x, weight, negative=negative, **how) for negative in (False, True))
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    np.testing.assert_array_equal(found, exact.astype(np.float32))
    if np.array_equal(found, other, equal_nan=True):
        return False
    np.testing.assert_array_equal(found, -other)
    return True


def spikes_of(inputs: int, steps: int = 6) -> np.ndarray:
    return (RNG.random((steps, 2, inputs)) < 0.3).astype(np.float32)


def weights_of(outputs: int, inputs: int, dtype: type = np.int8) -> np.ndarray:
    return RNG.integers(-128, 128, (outputs, inputs)).astype(dtype)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("outputs", "spikes", "taken"),
    [(127, 0, False), (128, 0, True), (31, 1, False), (32, 1, True), (128, 1, True)],
)
def test_it_is_taken_where_it_pays(outputs: int, spikes: int, taken: bool, stored: bool) -> None:
    x, w = spikes_of(40), weights_of(outputs, 40)
    assert takes_integers(x, w, spikes=spikes, stored=stored) == taken
    assert not takes_integers(x, w, spikes=spikes, stored=stored, integers=0)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (127, True),
        (128, False),
        (255, False),
        (-1, False),
        (0.5, False),
        (1e30, False),
        (-0.0, True),
    ],
)
def test_it_is_taken_for_counts_of_seven_bits(value: float, taken: bool) -> None:
    """Beyond them a CPU without VNNI adds a pair of products in too few bits."""
    x = spikes_of(8)
    x[0, 0, 5], x[3, 1, 5] = 1, value
    w = np.zeros((130, 8), np.int8)
    w[:, 5] = 1  # so that sums of floats are exact as well
    assert takes_integers(x, w) == taken


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_left_to_floats(value: float) -> None:
    x = spikes_of(8)
    x[3, 1, 5] = value
    w = np.ones((130, 8), np.int8)
    found, other = (sums(x, w, negative=negative) for negative in (False, True))
    np.testing.assert_array_equal(found, other)
    assert not np.isfinite(found[3, 1]).any()
    assert np.isfinite(found[3, 0]).all()


def test_the_largest_sums_of_pairs_are_exact() -> None:
    x = np.full((3, 1, 1000), 127, np.float32)
    w = np.full((128, 1000), -128, np.int8)
    w[64:] = 127
    assert takes_integers(x, w)


@pytest.mark.parametrize(("bits", "taken"), [(4, 1), (8, 1), (9, 0)])
def test_weights_of_eight_bits_may_be_multiplied_as_bytes(bits: int, taken: int) -> None:
    hook = so.quantize.Quantizer(scale=64, bits=bits)
    net = nn.Sequential(so.synapse.Dense(6, 140, weight_scale=40, pre_hook_fx=hook))
    assert asked(so.export(net, networks.spikes(2, 6, 9))) == [taken]


def asked(model: onnx.ModelProto) -> list[int]:
    nodes = (n for n in model.graph.node if n.domain == ops.DOMAIN)
    return [a.i for n in nodes for a in n.attribute if a.name == "integers"]


@pytest.mark.parametrize(("largest", "taken"), [(127, True), (128, False), (255, False)])
def test_bytes_come_as_they_are(largest: int, taken: bool) -> None:
    x = RNG.integers(0, 100, (6, 2, 40)).astype(np.uint8)
    x[2, 1, 7] = largest
    assert takes_integers(x, weights_of(130, 40)) == taken


def test_a_gpu_gets_products_of_floats(tmp_path: Path) -> None:
    net = nn.Sequential(so.synapse.Dense(6, 140, pre_hook_fx=so.quantize.q8))
    model = so.export(net, networks.spikes(2, 6, 9))
    x = np.full((9, 2, 6), 3, np.float32)
    asked_of: list[str] = []
    for graph in (model, for_cuda(model)):
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        session = ort.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {session.get_inputs()[0].name: x.transpose(1, 2, 0)})
        events = json.loads(Path(session.end_profiling()).read_text())
        kinds = {event.get("args", {}).get("op_name", "") for event in events}
        asked_of.append("bytes" if kinds & {"MatMulInteger", "DynamicQuantizeMatMul"} else "floats")
    assert asked_of == ["bytes", "floats"]


def test_a_gpu_gets_a_flat_graph_with_the_same_spikes() -> None:
    folder = Path(so.__file__).parents[1] / "models"
    if not folder.exists():
        pytest.skip("models/ is beside the checkout's package alone")
    files = sorted(folder.glob("*.onnx"))
    assert len(files) > 10
    for file in files:
        model = onnx.load(file)
        flat = for_cuda(model)
        assert not flat.functions
        assert {node.domain for node in flat.graph.node} == {""}
        sessions = [so.Session(graph) for graph in (model, flat)]
        shapes = [info.shape for info in sessions[0]._input_infos]
        x = [
            (RNG.random([{"N": 2, "T": 20}.get(size, size) for size in shape]) < 0.3)
            for shape in shapes
        ]
        outputs = [session.run(*(a.astype(np.float32) for a in x)) for session in sessions]
        np.testing.assert_array_equal(outputs[0], outputs[1], err_msg=file.name)


def test_no_choice_stands_in_another() -> None:
    """ONNX Runtime 1.32 crashes where it settles an If in an If from constants at load."""
    for name in ("QuantizedDense", "QuantizedComplexDense"):
        for node in ops.get_op(name).function(21).node:
            inner = [n.op_type for a in node.attribute for n in all_nodes(a.g.node)]
            assert "If" not in inner
