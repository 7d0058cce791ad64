"""Dense products of integers: taken only where they are exact and pay, and always the same sums.

Which product gave the sums shows where that of integers is turned negative: they come out changed
if, and only if, it was taken.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
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
from synapse_onnx.runtime.providers import for_cuda

RNG = np.random.default_rng(0)


def sums(
    x: np.ndarray, weight: np.ndarray, *, spikes: int = 0, integers: int = 1, stored: bool = True,
    negative: bool = False, omits: Sequence[frozenset[str]] = (),
) -> np.ndarray:  # fmt: skip
    """Run one node over x (T, N, C) with weights (O, C), stored in the file or given as inputs."""
    op = ops.get_op("QuantizedDense")
    node = helper.make_node(
        op.name, op.inputs, op.outputs, domain=ops.DOMAIN, spikes=spikes, integers=integers
    )
    tensors = {
        "weight": weight.reshape(*weight.shape, 1, 1, 1),
        "weight_scale": np.ones(1, np.float32),
    }
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
    function = op.function(21, *omits)
    if negative and any(n.op_type == "If" for n in function.node):
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
    ("value", "largest", "outputs", "taken"),
    [
        (127, -128, 130, True),
        (128, -128, 130, False),
        (129, 127, 130, True),
        (130, 127, 130, False),
        (255, 64, 130, True),
        (255, 65, 130, False),
        (256, 1, 130, False),
        (-1, -128, 130, False),  # a second look pays from 256 outputs on
        (-1, -128, 256, True),
        (-1, -128, 300, True),
        (-64, -128, 256, True),
        (63, -128, 256, True),
        (-65, -128, 256, False),
        (-128, 64, 256, True),
        (-129, 64, 256, False),
        (0.5, 1, 256, False),
        (1e30, 1, 256, False),
        (-1e30, 1, 256, False),
        (-0.0, 1, 130, True),
    ],
)
@pytest.mark.parametrize("stored", [True, False])
def test_it_is_taken_where_a_pair_of_products_fits_16_bits(
    value: float, largest: int, outputs: int, taken: bool, stored: bool
) -> None:
    """So many a CPU without VNNI has for it."""
    x = spikes_of(8)
    x[0, 0, 5], x[3, 1, 5] = 1, value
    w = np.zeros((outputs, 8), np.int8)
    w[:, 5] = largest  # one weight, so that sums of floats are exact as well
    assert takes_integers(x, w, stored=stored) == taken


@pytest.mark.parametrize(("value", "taken"), [(63, True), (64, False), (0.5, False)])
@pytest.mark.parametrize("step", [0, 3, 4, 5])
def test_signed_inputs_are_looked_at_to_the_end(step: int, value: float, taken: bool) -> None:
    x = RNG.integers(-64, 64, (6, 2, 40)).astype(np.float32)
    x[step, 1, 9] = value
    assert takes_integers(x, weights_of(300, 40)) == taken


OMITS = [
    frozenset(left) for left in ({"bytes", "looks", "signed"}, {"looks", "signed"}, {"signed"}, ())
]


@pytest.mark.parametrize("first", [0, -1])
@pytest.mark.parametrize("spikes", [0, 1])
@pytest.mark.parametrize("outputs", [31, 32, 127, 128, 255, 256])
def test_what_a_node_leaves_out_changes_nothing_for_it(
    outputs: int, spikes: int, first: int
) -> None:
    x, w = spikes_of(40), weights_of(outputs, 40)
    if first and not spikes:
        x[0, 0, 0] = -1
    weight = helper.make_tensor(
        "weight", onnx.TensorProto.INT8, [*w.shape, 1, 1, 1], w.tobytes(), True
    )
    op = ops.get_op("QuantizedDense")
    mine = op.omits({"integers": 1, "spikes": spikes}, {"weight": weight})
    taken = takes_integers(x, w, spikes=spikes)
    assert takes_integers(x, w, spikes=spikes, omits=[mine]) == taken
    for other in OMITS:
        # nodes of two kinds in a file: what both leave out is left out; any other is right as well
        assert takes_integers(x, w, spikes=spikes, omits=[mine, other]) == taken
        takes_integers(x, w, spikes=spikes, omits=[other])


def test_a_body_has_what_its_file_needs() -> None:
    kinds = [
        {n.op_type for n in all_nodes(ops.get_op("QuantizedDense").function(21, omits).node)}
        for omits in OMITS
    ]
    assert [("If" in k, "Clip" in k, "Floor" in k, "Slice" in k) for k in kinds] == [
        (False, False, False, False), (True, False, False, False),
        (True, True, True, False), (True, True, True, True),
    ]  # fmt: skip
    assert all(len(a) < len(b) for a, b in itertools.pairwise(kinds))
    params = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
    net = nn.Sequential(
        so.block.cuba.Dense(params, 12, 40, weight_scale=3, pre_hook_fx=so.quantize.q8),
        so.block.cuba.Dense(params, 40, 6, weight_scale=3, pre_hook_fx=so.quantize.q8),
    )
    # few outputs; then as many as are worth a look, and two, beside them
    assert _in_body(net).isdisjoint({"If", "Clip"})
    for outputs, asked in ((200, {"Clip"}), (256, {"Clip", "Slice"})):
        wide = so.block.cuba.Dense(params, 12, outputs, pre_hook_fx=so.quantize.q8)
        narrow = so.block.cuba.Dense(params, outputs, 12, pre_hook_fx=so.quantize.q8)
        assert _in_body(nn.Sequential(wide, narrow, *net)) & {"Clip", "Slice"} == asked


def _in_body(net: nn.Module) -> set[str]:
    """Kinds of the nodes in the one body that a file has for its dense synapses."""
    model = so.export(net, networks.spikes(2, 12, 9))
    (body,) = (f for f in model.functions if f.name == "QuantizedDense")
    return {n.op_type for n in all_nodes(body.node)}


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
    w = np.full((256, 1000), -128, np.int8)
    w[128:] = 127
    assert takes_integers(x, w)
    x[0, 0, :500] = -64
    np.minimum(x, 63, out=x)
    assert takes_integers(x, w)
    w = np.clip(w, -64, 64)
    x = np.full((3, 1, 1000), 255, np.float32)
    assert takes_integers(x, w)


@pytest.mark.parametrize("value", [1, -1])
def test_weights_that_are_no_bytes_never_take_them(value: float) -> None:
    x = spikes_of(40)
    x[0, 0, 0] = value
    assert not takes_integers(x, weights_of(300, 40), integers=0)


@pytest.mark.parametrize(
    ("outputs", "spikes", "largest", "said"),
    [
        (31, 1, 127, "floats; faster under 32 outputs"),
        (32, 1, 127, "bytes"),
        (127, 0, 127, "floats; faster under 128 outputs where inputs may not be spikes"),
        (128, 0, -128, "bytes if inputs are 0 to 127, else floats"),
        (255, 0, 64, "bytes if inputs are 0 to 255, else floats"),
        (256, 0, -128, "bytes if inputs are 0 to 127 or -64 to 63, else floats"),
        (256, 0, 63, "bytes if inputs are 0 to 255 or -128 to 127, else floats"),
        (256, 0, 0, "bytes if inputs are 0 to 255 or -128 to 127, else floats"),
    ],
)
def test_the_file_says_which_inputs_are_bytes(
    outputs: int, spikes: int, largest: int, said: str
) -> None:
    w = np.zeros((outputs, 4, 1, 1, 1), np.int8)
    w[-1, -1] = largest
    weights = {"weight": numpy_helper.from_array(w, "weight")}
    op = ops.get_op("QuantizedDense")
    assert op.arithmetic({"integers": 1, "spikes": spikes}, weights, frozenset()) == said


def test_weights_of_zero_give_sums_of_zero() -> None:
    x = RNG.integers(0, 256, (3, 1, 40)).astype(np.float32)
    assert not sums(x, np.zeros((130, 40), np.int8)).any()


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
        shapes = [info.shape for info in sessions[0]._io.inputs]
        x = [
            (RNG.random([{"N": 2, "T": 20}.get(size, size) for size in shape]) < 0.3)
            for shape in shapes
        ]
        outputs = [session.run(*(a.astype(np.float32) for a in x)) for session in sessions]
        np.testing.assert_array_equal(outputs[0], outputs[1], err_msg=file.name)


def test_choices_in_one_another() -> None:
    """ONNX Runtime 1.32 crashes where it settles three at load; in a second it packs no weights."""
    for name in ("QuantizedDense", "QuantizedComplexDense"):
        for node in ops.get_op(name).function(21).node:
            inner = [n for a in node.attribute for n in a.g.node]
            second = [n for i in inner for a in i.attribute for n in all_nodes(a.g.node)]
            kinds = {n.op_type for n in second}
            assert kinds.isdisjoint({"If", "MatMul", "MatMulInteger"})
            assert len([n for n in inner if n.op_type == "If"]) <= 1
