"""What native kernels compute at once: the outputs of node by node, and where it may not be."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from of_one_node import attributes_of, session_of, split, whole
from onnx import helper, numpy_helper

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.runtime import fusion, native

#: synapses with a neuron
PAIRS = [name for name in native.together() if not name.endswith("AndBias")]

needs_kernels = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _model(body: str, outputs: str = "float[T, N, 4] y") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'
        f"g (float[N, 3, T] x, float[4, 3] w, float[1] s, bool on) => ({outputs}) {{ {body} }}"
    )


_TURN = "a = Transpose<perm = [2, 0, 1]>(x)"
_DENSE = "y = ai.synapse.QuantizedDense<integers = 1, spikes = 0>(a, w, s)"


def test_the_turn_before_a_dense_synapse_goes() -> None:
    model = _model(f"{_TURN} {_DENSE}")
    before = model.SerializeToString()
    found = fusion.fused(model)
    assert found is not None
    assert _kinds(found) == ["QuantizedDense"]
    (node,) = found.graph.node
    assert node.input[0] == "x"
    assert {a.name: a.i for a in node.attribute}["time_last"] == 1
    assert model.SerializeToString() == before, "the model itself stays as it is"


@pytest.mark.parametrize("op", ["QuantizedDense", "Dense"])
def test_two_synapses_share_it(op: str) -> None:
    other = _DENSE.replace("y =", "z =") if op == "QuantizedDense" else "z = ai.synapse.Dense(a, w)"
    found = fusion.fused(_model(f"{_TURN} {_DENSE} {other}", "float y, float z"))
    assert found is not None
    assert _kinds(found) == ["QuantizedDense", op]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (_DENSE.replace("(a,", "(x,"), "float y"),
        (f"{_TURN} {_DENSE}", "float y, float a"),
        (f"{_TURN} {_DENSE} z = Neg(a)", "float y, float z"),
        (f"{_TURN} y = MatMul(a, w)", "float y"),
        (f"{_TURN} y = ai.synapse.QuantizedDense<integers = 1>(w, a, s)", "float y"),
        (f"a = Transpose<perm = [1, 0, 2]>(x) {_DENSE}", "float y"),
        (f"a = Transpose(x) {_DENSE}", "float y"),
        (f"{_TURN} y = ai.synapse.Dense(w, a)", "float y"),
        (
            f"{_TURN} {_DENSE} z = If(on) <then_branch = p () => (q) {{ q = Neg(a) }}, "
            "else_branch = r () => (t) { t = Identity(x) }>",
            "float y, float z",
        ),
        (
            f"{_TURN} {_DENSE} z = If(on) <then_branch = p () => (a) {{ u = Neg(x) }}, "
            "else_branch = r () => (t) { t = Identity(x) }>",
            "float y, float z",
        ),
    ],
    ids=[
        "none", "output", "other reader", "other op", "not as input", "other axes", "no axes",
        "float weights, not as input", "inner graph", "output of an inner graph",
    ],
)  # fmt: skip
def test_what_others_read_stays(body: str, outputs: str) -> None:
    assert fusion.fused(_model(body, outputs)) is None


def _network(inputs: int, *, is_complex: bool = False, wide: bool = False) -> torch.nn.Module:
    torch.manual_seed(inputs)
    hook = so.quantize.Quantizer(bits=12) if wide else so.quantize.q8
    module = so.synapse.complex if is_complex else so.synapse
    dense = module.Dense(inputs, 140 if not is_complex else 9, weight_scale=3, pre_hook_fx=hook)
    neuron: Any = so.neuron.rf if is_complex else so.neuron.cuba
    params = {"period": 8.0, "decay": 0.1} if is_complex else {"current_decay": 0.25}
    if not is_complex:
        params["voltage_decay"] = 0.03
    return torch.nn.Sequential(dense, neuron.Neuron(1.0, **params)).eval()


@functools.cache
def _exported(inputs: int, layout: str = "NCT", **options: bool) -> onnx.ModelProto:
    return so.export(_network(inputs, **options), torch.zeros(2, inputs, 4), layout=layout)


def _values(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(shape[-1])
    x = (draw.random(shape) < 0.3).astype(np.float32)
    if kind == "graded":
        x *= draw.integers(-300, 300, shape)
    elif kind == "one graded":
        x.flat[-1] = 7
    elif kind == "real":
        x *= draw.random(shape, dtype=np.float32)
    elif kind == "negative zero":
        x[x == 0] = -0.0
    elif kind == "infinite":
        x.flat[x.size // 2] = np.inf
    return x


@needs_kernels
@pytest.mark.parametrize("steps", [1, 2, 15, 16, 17, 130, 320, 321, 700])
@pytest.mark.parametrize(("inputs", "batch"), [(1, 1), (33, 3), (100, 2)])
def test_spikes_of_all_sizes(inputs: int, batch: int, steps: int) -> None:
    network = _network(inputs)
    x = _values("spikes", (batch, inputs, steps))
    model = _exported(inputs)
    assert fusion.fused(model) is not None
    expected = network(torch.from_numpy(x)).detach().numpy()
    for threads in (1, 2):
        found = so.Session(model, native=True, threads=threads).run(x)
        np.testing.assert_array_equal(found, expected)


@needs_kernels
@pytest.mark.parametrize("kind", ["graded", "one graded", "real", "negative zero", "infinite"])
@pytest.mark.parametrize("options", [{}, {"is_complex": True}, {"wide": True}], ids=str)
def test_other_values_and_weights(kind: str, options: dict[str, bool]) -> None:
    x = _values(kind, (3, 20, 70))
    fused, apart = (_exported(20, layout, **options) for layout in ("NCT", "TNC"))
    assert fusion.fused(fused) is not None
    assert fusion.fused(apart) is None
    (expected,) = session_of(apart).run(None, {"input": np.moveaxis(x, -1, 0)})
    found = so.Session(fused, native=True).run(x)
    np.testing.assert_array_equal(found, np.moveaxis(expected, 0, -1))


@needs_kernels
def test_bytes() -> None:
    network = _network(33)
    x = (np.random.default_rng(0).random((2, 33, 50)) < 0.3) * np.array([1, 3])[:, None, None]
    model = so.export(network, torch.from_numpy(x).float(), input_type="uint8")
    found = fusion.fused(model)
    assert found is not None
    assert "Transpose" not in _kinds(found)[:1]
    for values in (x > 0, x):
        given = values.astype(np.uint8)
        expected = network(torch.from_numpy(values.astype(np.float32))).detach().numpy()
        np.testing.assert_array_equal(so.Session(model, native=True).run(given), expected)


@needs_kernels
def test_a_session_of_a_file_is_fused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(_exported(5), tmp_path / "m.onnx")
    made = []
    monkeypatch.setattr(
        "synapse_onnx.runtime.providers.fused",
        lambda *given: made.append(fusion.fused(*given)) or made[-1],
    )
    given, opened = [], ort.InferenceSession
    monkeypatch.setattr(
        ort, "InferenceSession", lambda data, *a, **k: given.append(data) or opened(data, *a, **k)
    )
    so.Session(tmp_path / "m.onnx", native=False)
    assert made == []
    assert given == [(tmp_path / "m.onnx").read_bytes()]
    session = so.Session(tmp_path / "m.onnx", native=True)
    assert len(made) == 1
    assert made[0] is not None
    assert given[1:] == [made[0].SerializeToString()]
    assert session.kernels == ("Cuba", "QuantizedDense")


@needs_kernels
def test_another_rank_is_refused() -> None:
    found = fusion.fused(_exported(5))
    assert found is not None
    found.graph.input[0].type.tensor_type.ClearField("shape")
    session = so.Session(found, native=True)
    with pytest.raises(Exception, match=r"needs the axes \(N, C, T\), got \(1, 5\)"):
        session.session.run(None, {session.inputs[0]: np.zeros((1, 5), np.float32)})


# -- a dense synapse and the neuron behind it --------------------------------------------------

CUBA = ("QuantizedDenseAndCuba",)


def _cuba(body: str, outputs: str = "float[T, N, 4] z") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'
        "g (float[T, N, 3] a, float[4, 3] w, float[1] s, float[1] d, int64[N, 4] v, bool on)"
        f" => ({outputs}) {{ {body} }}"
    )


_NEURON = "z, u, r = ai.synapse.Cuba<scale = 4096, threshold = 9, graded = 0>(y, d, d, v, v)"


def test_a_neuron_takes_its_synapse_in() -> None:
    model = _cuba(f"{_DENSE} {_NEURON}")
    before = model.SerializeToString()
    found = fusion.fused(model, CUBA)
    assert found is not None
    (node,) = found.graph.node
    assert node.op_type == "QuantizedDenseAndCuba"
    assert list(node.input) == ["a", "w", "s", "d", "d", "v", "v"]
    assert list(node.output) == ["z", "u", "r"]
    attributes = {a.name: a.i for a in node.attribute}
    assert attributes == {
        "scale": 4096, "threshold": 9, "graded": 0, "integers": 1, "spikes": 0,
    }  # fmt: skip
    assert model.SerializeToString() == before, "the model itself stays as it is"


def test_a_neuron_takes_in_a_synapse_that_turns() -> None:
    model = _cuba(f"b = Transpose<perm = [2, 0, 1]>(a) {_DENSE.replace('(a,', '(b,')} {_NEURON}")
    found = fusion.fused(model, CUBA)
    assert found is not None
    (node,) = found.graph.node
    assert node.op_type == "QuantizedDenseAndCuba"
    assert node.input[0] == "a"
    assert {a.name: a.i for a in node.attribute}["time_last"] == 1


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (f"{_DENSE} {_NEURON}", "float z, float y"),
        (f"{_DENSE} {_NEURON} q = Neg(y)", "float z, float q"),
        (f"{_DENSE} {_NEURON.replace('(y, d,', '(y, y,')}", "float z"),
        (f"{_DENSE} p = Neg(y) {_NEURON.replace('(y,', '(p,')}", "float z"),
        (f"{_DENSE} {_NEURON.replace('Cuba<', 'Alif<')}", "float z"),
        (f"{_DENSE} {_NEURON.replace('ai.synapse.', '')}", "float z"),
        (f"{_DENSE.replace('ai.synapse.', '')} {_NEURON}", "float z"),
        (
            f"{_DENSE} {_NEURON} q = If(on) <then_branch = p () => (e) {{ e = Neg(y) }}, "
            "else_branch = r () => (t) { t = Identity(s) }>",
            "float z, float q",
        ),
    ],
    ids=[
        "currents are an output", "currents are read", "currents are a parameter", "node between",
        "no such kernel", "another domain's neuron", "another domain's synapse", "inner graph",
    ],
)  # fmt: skip
def test_currents_that_others_read_stay(body: str, outputs: str) -> None:
    assert fusion.fused(_cuba(body, outputs), CUBA) is None
    assert fusion.fused(_cuba(f"{_DENSE} {_NEURON}")) is None, "a library without such kernels"


def test_complex_currents_in_another_order_stay_apart() -> None:
    names = ("QuantizedComplexDenseAndRf",)
    synapse = "p, q = ai.synapse.QuantizedComplexDense<integers = 1>(a, w, w, s, s)"
    neuron = "z, u, r = ai.synapse.Rf<scale = 4096, threshold = 9, graded = 0>(p, q, d, d, v, v)"
    found = fusion.fused(_cuba(f"{synapse} {neuron}"), names)
    assert found is not None
    (node,) = found.graph.node
    assert list(node.input) == ["a", "w", "w", "s", "s", "d", "d", "v", "v"]
    for read in ("p", "q"):  # one of the two by another node, or given away
        assert fusion.fused(_cuba(f"{synapse} {neuron} e = Neg({read})"), names) is None
        assert fusion.fused(_cuba(f"{synapse} {neuron}", f"float z, float {read}"), names) is None
    assert fusion.fused(_cuba(f"{synapse} {neuron.replace('(p, q', '(q, p')}"), names) is None


@needs_kernels
def test_every_neuron_takes_a_synapse_in() -> None:
    neurons = {
        op.name
        for op in ops.all_ops().values()
        if "graded" in op.attributes and not op.name.startswith("Recurrent")
        if any(name.startswith("last_") for name in op.outputs)
    }
    assert {name.split("And")[1] for name in PAIRS} == neurons


def _pair(
    name: str, args: tuple[Any, ...], weight: np.ndarray, step: np.ndarray, *, graded: int | None
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A synapse and a neuron whose parameters and states are those of a call; and the latter."""
    synapse, neuron = name.split("And")
    op = ops.all_ops()[neuron]
    tensors, rest = split(args)
    attributes = attributes_of(op, rest)
    if graded is not None:
        attributes["graded"] = graded
    currents = [given for given in op.inputs if given in ("x", "x_real", "x_imag")]
    weights = [f"weight{k}" for k in range(len(currents))]
    steps = [f"step{k}" for k in range(len(currents))]
    biases = ["synapse_bias"] if "Biased" in synapse else []
    feeds = {
        given: tensor.numpy()
        for given, tensor in zip(op.inputs, tensors, strict=True)
        if given not in currents
    }
    if not synapse.startswith("Quantized"):
        steps = []
    facts = {"integers": 1} if steps else {}
    nodes = [
        helper.make_node(
            synapse, ["spikes", *weights, *steps, *biases], currents, domain=ops.DOMAIN, **facts
        ),
        helper.make_node(neuron, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes),
    ]
    inputs = [
        helper.make_tensor_value_info(
            given, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for given, array in feeds.items()
    ]
    inputs.append(helper.make_tensor_value_info("spikes", onnx.TensorProto.FLOAT, ["T", "N", "I"]))
    kinds = {f"last_{given}": array.dtype for given, array in feeds.items()}
    outputs = [
        helper.make_tensor_value_info(
            given, helper.np_dtype_to_tensor_dtype(kinds.get(given, np.dtype(np.float32))), None
        )
        for given in op.outputs
    ]
    constants = [
        numpy_helper.from_array(np.roll(weight, k, axis=0)[..., None, None, None], weights[k])
        for k in range(len(weights))
    ]
    constants += [numpy_helper.from_array(step, given) for given in steps]
    bias = np.linspace(-1, 2, len(weight), dtype=np.float32)
    constants += [numpy_helper.from_array(bias, given) for given in biases]
    return whole(helper.make_graph(nodes, "pair", inputs, outputs, constants)), feeds


def _same(model: onnx.ModelProto, feeds: dict[str, np.ndarray], threads: int = 2) -> np.ndarray:
    """Compare the outputs of both together with those of both apart; return the spikes."""
    together = fusion.fused(model, native.together())
    assert together is not None
    assert len(together.graph.node) == 1
    expected = session_of(model).run(None, feeds)
    found = session_of(together, threads).run(None, feeds)
    for value, wanted in zip(found, expected, strict=True):
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(value, wanted)
    return expected[0]


def _inputs(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(len(kind))
    x = (draw.random(shape) < 0.4).astype(np.float32)
    if kind == "graded":
        x *= draw.integers(-90, 90, shape)
    elif kind == "real":
        x[shape[0] // 2] *= draw.random(shape[1:], dtype=np.float32)
    elif kind == "infinite":
        x[1, 0, 0], x[-1, -1, -1] = np.inf, np.nan
    return x


@needs_kernels
@pytest.mark.parametrize("kind", ["spikes", "graded", "real", "infinite"])
@pytest.mark.parametrize("name", PAIRS)
def test_together_as_apart(name: str, kind: str) -> None:
    neuron = name.split("And")[1]
    draw = np.random.default_rng(3)
    spiked = 0.0
    for sample in ops.all_ops()[neuron].samples():
        tensors, _ = split(sample.args)
        batch, channels, *images = tensors[-1].shape
        if images:
            continue
        weight = draw.integers(-50, 90, (channels, 7)).astype(np.int8)
        step = np.array([1 / 64], np.float32)
        if not name.startswith("Quantized"):
            weight = (weight / np.float32(71)).astype(np.float32)
        for graded in (0, 1):
            model, feeds = _pair(name, sample.args, weight, step, graded=graded)
            feeds["spikes"] = _inputs(kind, (40, batch, 7))
            spiked += float(np.count_nonzero(_same(model, feeds)))
    assert spiked


def _cuba_call(batch: int, channels: int, *, level: int = 3000, state: int = 0) -> tuple[Any, ...]:
    """Arguments of a CUBA neuron with a decay for each channel."""
    decay = torch.arange(channels) % 900 + 50.0
    start = torch.arange(batch * channels).reshape(batch, channels) % 5 + state
    x = torch.zeros(batch, channels, 1)
    return (x, 2 * decay, decay, start, start + 1, 4096, level, 1.0, 1.0, False)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("steps", [0, 1, 17, 330, 1024, 1029])
@pytest.mark.parametrize(("batch", "outputs"), [(1, 1), (1, 300), (3, 65), (19, 128), (2, 1200)])
def test_together_in_all_sizes(batch: int, outputs: int, steps: int, threads: int) -> None:
    if steps * batch * outputs > 3e6:
        steps = 40
    weight = np.random.default_rng(outputs).integers(-128, 128, (outputs, 5)).astype(np.int8)
    step = (np.arange(outputs) % 3 + 1).astype(np.float32) / 64
    model, feeds = _pair(
        "QuantizedDenseAndCuba", _cuba_call(batch, outputs), weight, step, graded=None
    )
    feeds["spikes"] = _inputs("spikes", (steps, batch, 5))
    _same(model, feeds, threads)


@needs_kernels
def test_many_inputs_are_read_sample_by_sample() -> None:
    """More inputs than events are kept for at once."""
    weight = np.random.default_rng(0).integers(-3, 5, (2, 9000)).astype(np.int8)
    model, feeds = _pair(
        "QuantizedDenseAndCuba", _cuba_call(3, 2), weight, np.ones(1, np.float32) / 64, graded=None
    )
    feeds["spikes"] = _inputs("spikes", (700, 3, 9000))
    assert _same(model, feeds).any()


@needs_kernels
@pytest.mark.parametrize("place", ["state", "current", "later"])
def test_states_that_32_bits_do_not_hold(place: str) -> None:
    """Blocks are computed once more in 64 bits, from the states that the steps before left."""
    state = 1 << 40 if place == "state" else 0
    step = np.array([1e6 if place == "current" else 1.0], np.float32)
    weight = np.full((3, 4), 100, np.int8)
    args = _cuba_call(2, 3, level=1 << 50, state=state)
    model, feeds = _pair("QuantizedDenseAndCuba", args, weight, step, graded=1)
    spikes = np.zeros((1200, 2, 4), np.float32)
    spikes[1100 if place == "later" else 3] = 30000
    feeds["spikes"] = spikes
    _same(model, feeds)


@needs_kernels
@pytest.mark.parametrize("most", [7, 8, 15, 16, 31, 32, 63, 64, 127])
def test_weights_of_few_bits(most: int) -> None:
    """Bytes are added as bytes for as long as the largest of them fit."""
    for least in (-most - 1, -most):
        weight = np.full((150, 3000), most, np.int8)
        weight[::2] = least
        model, feeds = _pair(
            "QuantizedDenseAndCuba", _cuba_call(1, 150, level=1 << 40), weight,
            np.ones(1, np.float32), graded=None,
        )  # fmt: skip
        feeds["spikes"] = np.ones((2, 1, 3000), np.float32)
        feeds["spikes"][1, 0, :13] = 0
        del model.graph.node[1], model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None))
        wanted = feeds["spikes"] @ weight.T.astype(np.float32)
        (found,) = session_of(model).run(None, feeds)
        np.testing.assert_array_equal(found, wanted)


@needs_kernels
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spikes": np.zeros((4, 2), np.float32)}, "QuantizedDenseAndCuba.*axes .T, N, C.*4, 2"),
        ({"spikes": np.zeros((4, 2, 6), np.float32)}, "a weight for 5 inputs does not fit"),
        ({"spikes": np.zeros((4, 3, 5), np.float32)}, "a state of shape .2, 9. does not fit"),
    ],
    ids=["axes", "inputs", "batch"],
)
def test_what_does_not_fit_together_is_refused(
    change: dict[str, np.ndarray], sentence: str
) -> None:
    model, feeds = _pair(
        "QuantizedDenseAndCuba", _cuba_call(2, 9), np.ones((9, 5), np.int8),
        np.ones(1, np.float32), graded=None,
    )  # fmt: skip
    model.graph.input[-1].type.tensor_type.ClearField("shape")
    together = fusion.fused(model, native.together())
    assert together is not None
    with pytest.raises(Exception, match=sentence):
        session_of(together).run(None, feeds | change)


@needs_kernels
def test_what_is_asked_for_is_still_there() -> None:
    """verify and inspect look at currents between a synapse and its neuron."""
    network, x = _network(33), torch.from_numpy(_values("spikes", (2, 33, 50)))
    model = so.export(network, x)
    assert fusion.fused(model, native.together()) is not None
    session = so.Session(model, native=True)
    assert session.kernels == ("Cuba", "QuantizedDense")
    report = so.verify(network, model, x, native=True)
    assert report.ok, str(report)
