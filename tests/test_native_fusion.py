"""What native kernels compute at once: the outputs of node by node, and where it may not be."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

import synapse_onnx as so
from synapse_onnx import fusion, native

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


def test_two_synapses_share_it() -> None:
    other = _DENSE.replace("y =", "z =")
    found = fusion.fused(_model(f"{_TURN} {_DENSE} {other}", "float y, float z"))
    assert found is not None
    assert _kinds(found) == ["QuantizedDense"] * 2


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
        (f"{_TURN} y = ai.synapse.Dense(a, w)", "float y"),
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
        "float weights", "inner graph", "output of an inner graph",
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
    expected = so.Session(apart, native=True).run(np.moveaxis(x, -1, 0))
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
        "synapse_onnx.runtime.fused", lambda model: made.append(fusion.fused(model)) or made[-1]
    )
    so.Session(tmp_path / "m.onnx", native=False)
    assert made == []
    session = so.Session(tmp_path / "m.onnx", native=True)
    assert len(made) == 1
    assert made[0] is not None
    assert session.kernels == ("Cuba", "QuantizedDense")


@needs_kernels
def test_another_rank_is_refused() -> None:
    found = fusion.fused(_exported(5))
    assert found is not None
    found.graph.input[0].type.tensor_type.ClearField("shape")
    session = so.Session(found, native=True)
    with pytest.raises(Exception, match=r"needs the axes \(N, C, T\), got \(1, 5\)"):
        session.session.run(None, {session.inputs[0]: np.zeros((1, 5), np.float32)})
