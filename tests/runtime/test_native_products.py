"""Products of other frameworks' networks: which become one node with a bias or a neuron."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.runtime import fusion, native

needs_kernels = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

TOGETHER = ("DenseAndLifFloat", "DenseAndBias")
WEIGHT = " ".join(
    f"{name} = {{{', '.join(str(i + 1) for i in range(size))}}},"
    for name, size in (("float[3, 4] w", 12), ("float[4, 3] turned", 12), ("float[4] b", 4))
)
APART = ["DenseAndBias", "LifFloat", "Neg"]
NEURON = "s, u, v = ai.synapse.LifFloat<graded = 0>(c, p, p, p, p, p, p, z, z)"


def model_of(body: str, outputs: str = "float[T, N, 4] s", *, axes: str = "T, N, 3") -> Any:
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'
        f"g (float[{axes}] x, float[N, 4] z, float[1] p, float[3, 4] given) => ({outputs})\n"
        f"<{WEIGHT} float[2, 2] square = {{1, 2, 3, 4}}, double[3, 4] wide = "
        f"{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, int64[2] rows = {{-1, 3}}, "
        f"int64[3] again = {{0, 1, 4}}, float[1, 4] row = {{1, 2, 3, 4}}>\n {{ {body} }}"
    )


def kinds(model: onnx.ModelProto, names: tuple[str, ...] = TOGETHER) -> list[str] | None:
    before = model.SerializeToString()
    found = fusion.fused(model, names)
    assert model.SerializeToString() == before, "the model itself stays as it is"
    if found is None:
        return None
    return [node.op_type for node in found.graph.node]


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("c = MatMul(x, w)", ["x", "w", "ai.synapse.no_bias"]),
        ("m = MatMul(x, w) c = Add(m, b)", ["x", "w", "b"]),
        ("m = MatMul(x, w) c = Add(b, m)", ["x", "w", "b"]),
    ],
    ids=["no bias", "bias", "bias first"],
)
def test_a_product_and_its_neuron(body: str, inputs: list[str]) -> None:
    model = model_of(f"{body} {NEURON}")
    assert kinds(model) == ["DenseAndLifFloat"]
    found = fusion.fused(model, TOGETHER)
    assert found is not None
    (node,) = found.graph.node
    assert list(node.input) == [*inputs, *["p"] * 6, "z", "z"]
    assert {a.name: a.i for a in node.attribute} == {"graded": 0, "inputs_first": 1}
    assert node.domain == "ai.synapse"
    assert kinds(model, ()) is None, "a library without such kernels"


def test_a_product_of_a_turned_input_reads_it_time_last() -> None:
    body = "a = Transpose<perm = [2, 0, 1]>(x) c = MatMul(a, w)"
    model = model_of(f"{body} {NEURON}", axes="N, 3, T")
    found = fusion.fused(model, TOGETHER)
    assert found is not None
    (node,) = found.graph.node
    assert node.input[0] == "x"
    assert {a.name: a.i for a in node.attribute}["time_last"] == 1


@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        # the currents, or what the sum takes, are read by others
        (f"m = MatMul(x, w) c = Add(m, b) {NEURON} e = Neg(c)", APART),
        (f"m = MatMul(x, w) c = Add(m, b) {NEURON} e = Neg(m)", None),
        # no constant, no matrix, no floats, no bias for each output
        (f"c = MatMul(x, given) {NEURON}", None),
        (f"c = MatMul(w, x) {NEURON}", None),
        (f"d = Cast<to = 11>(x) m = MatMul(d, wide) c = Cast<to = 1>(m) {NEURON}", None),
        (f"m = MatMul(x, w) c = Add(m, p) {NEURON}", None),
        (f"m = MatMul(x, w) c = Add(m, m) {NEURON}", None),
        (f"m = MatMul(x, w) c = Sub(m, b) {NEURON}", None),
        # nothing tells that there are spikes
        ("s = MatMul(x, w)", None),
        ("m = MatMul(x, w) a = Add(m, b) s = Relu(a)", None),
    ],
)
def test_what_stays(body: str, nodes: list[str] | None) -> None:
    outputs = "float s, float e" if " e = " in body else "float s"
    assert kinds(model_of(body, outputs)) == nodes


@pytest.mark.parametrize(
    ("options", "matrix", "ok"),
    [
        ("", "w", True),
        ("<transB = 1>", "turned", True),
        ("<transB = 1, alpha = 1.0, beta = 1.0, transA = 0>", "turned", True),
        ("<alpha = 0.5>", "w", False),
        ("<beta = 2.0>", "w", False),
        ("<transA = 1>", "w", False),
    ],
)
@pytest.mark.parametrize("bias", ["", ", b", ", p", ", row"])
def test_a_gemm_between_reshapes(options: str, matrix: str, ok: bool, bias: str) -> None:
    body = f"r = Reshape(x, rows) m = Gemm{options}(r, {matrix}{bias}) c = Reshape(m, again)"
    found = kinds(model_of(f"{body} {NEURON}"))
    good = ok and bias in ("", ", b")
    assert found == (["Reshape", "DenseAndBias", "Reshape", "LifFloat"] if good else None)


def test_a_product_of_spikes_has_no_neuron_behind_it() -> None:
    body = f"c = MatMul(x, w) {NEURON} m = MatMul(s, square2) a = Add(m, b)"
    model = model_of(body.replace("square2", "mixing"), "float s, float a")
    mixing = onnx.helper.make_tensor("mixing", onnx.TensorProto.FLOAT, [4, 4], range(16))
    model.graph.initializer.append(mixing)
    assert kinds(model) == ["DenseAndLifFloat", "DenseAndBias"]


# -- whole networks ----------------------------------------------------------------------------


class _Loop(nn.Module):
    """Layers of snnTorch, one step at a time."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        import snntorch

        torch.manual_seed(0)
        self.first, self.second = nn.Linear(40, 70, bias=bias), nn.Linear(70, 10, bias=bias)
        self.hidden, self.last = snntorch.Leaky(0.9, threshold=0.3), snntorch.Leaky(0.8)

    def forward(self, x: Tensor) -> Tensor:
        a, b, out = self.hidden.init_leaky(), self.last.init_leaky(), []
        for step in x:
            spikes, a = self.hidden(self.first(step), a)
            spikes, b = self.last(self.second(spikes), b)
            out.append(spikes)
        return torch.stack(out)


class _Flat(nn.Module):
    """Products over all steps at once, as SpikingJelly's containers have them."""

    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import layer, neuron

        torch.manual_seed(0)
        self.layers = nn.Sequential(
            layer.SeqToANNContainer(nn.Linear(40, 70)),
            neuron.LIFNode(step_mode="m", v_threshold=0.2),
            layer.Linear(70, 10, bias=False, step_mode="m"),
            neuron.IFNode(step_mode="m", v_threshold=0.5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@needs_kernels
@pytest.mark.parametrize(
    ("make", "package", "found"),
    [
        (_Loop, "snntorch", ["DenseAndLifDelayedFloat"] * 2),
        (lambda: _Loop(bias=False), "snntorch", ["DenseAndLifDelayedFloat"] * 2),
        (_Flat, "spikingjelly", ["DenseAndBias", "DenseAndLifFloat", "LifFloat"]),
    ],
    ids=["loop", "loop without bias", "flat"],
)
def test_networks_of_other_frameworks(make: Any, package: str, found: list[str]) -> None:
    pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = make().eval()
        x = (torch.rand(30, 3, 40, generator=torch.Generator().manual_seed(1)) < 0.3).float()
        model = so.export(network, x)
        session = so.Session(model, native=True)
        assert sorted(session.native_nodes.values()) == found
        for steps in (1, 30):
            wanted = copy.deepcopy(network)(x[:steps]).detach().numpy()
            np.testing.assert_array_equal(session.run(x[:steps].numpy()), wanted)
        assert wanted.any()
        assert so.verify(network, model, x, native=True).ok


@pytest.mark.parametrize(("name", "sizes"), [("w", [3, 4]), ("b", [4])])
def test_what_a_caller_may_replace_is_no_constant(name: str, sizes: list[int]) -> None:
    model = model_of(f"m = MatMul(x, w) c = Add(m, b) {NEURON}")
    fused = kinds(model)
    assert fused is not None
    value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
    model.graph.input.append(value)
    assert kinds(model) != fused
