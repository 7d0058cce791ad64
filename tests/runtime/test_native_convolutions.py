"""Convolutions of other frameworks' networks: which become nodes with a native kernel."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from of_one_node import session_of
from onnx import helper, numpy_helper
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.runtime import fusion, native

needs_kernels = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

TOGETHER = ("ConvAndBias",)
NEURON = "s, u, v = ai.synapse.LifFloat<graded = 0>(x, p, p, p, p, p, p, z, z)"
FOLD = "r = Reshape(s, images)"
NORM = "n = BatchNormalization<epsilon = 0.5>(c, scale, shift, mean, variance)"
SIZES = {
    "w": (32, 12, 3, 3), "b": (32,), "line": (32, 12, 3), "row": (1, 32), "scale": (32,),
    "shift": (32,), "mean": (32,), "variance": (32,),
}  # fmt: skip


def model_of(body: str, outputs: str = "float[M, O, H, W] y") -> onnx.ModelProto:
    """A neuron, and what comes after it."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'
        "g (float[T, N, 12, 7, 6] x, float[N, 12, 7, 6] z, float[1] p, float[32, 12, 3, 3] given)"
        f" => ({outputs})\n"
        f"<int64[4] images = {{-1, 12, 7, 6}}, int64[3] lines = {{-1, 12, 42}}>\n"
        f"{{ {NEURON} {body} }}"
    )
    draw = np.random.default_rng(0)
    for name, size in SIZES.items():
        value = np.abs(draw.standard_normal(size, dtype=np.float32)) + np.float32(0.1)
        value *= -1 if name == "b" else 1
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def kinds(model: onnx.ModelProto) -> list[str] | None:
    before = model.SerializeToString()
    found = fusion.fused(model, TOGETHER)
    assert model.SerializeToString() == before, "the model itself stays as it is"
    return None if found is None else [node.op_type for node in found.graph.node[1:]]


@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        (f"{FOLD} y = Conv(r, w)", ["Reshape", "ConvAndBias"]),
        (f"{FOLD} y = Conv(r, w, b)", ["Reshape", "ConvAndBias"]),
        (f'{FOLD} y = Conv<auto_pad = "NOTSET">(r, w, b)', ["Reshape", "ConvAndBias"]),
        (f"{FOLD} c = Conv(r, w, b) {NORM} y = Relu(n)", ["Reshape", "ConvAndBias", "Relu"]),
        (
            f"{FOLD} m = AveragePool<kernel_shape = [2, 2]>(r) y = Conv(m, w, b)",
            ["Reshape", "AveragePool", "ConvAndBias"],
        ),
    ],
    ids=["no bias", "bias", "named default", "norm", "pool"],
)
@needs_kernels
def test_a_convolution_of_spikes(body: str, nodes: list[str]) -> None:
    model = model_of(body)
    assert kinds(model) == nodes
    draw = np.random.default_rng(1)
    feeds = {
        "x": draw.random((9, 2, 12, 7, 6), dtype=np.float32), "z": np.zeros((2, 12, 7, 6), "f"),
        "p": np.array([0.9], np.float32),
    }  # fmt: skip
    del model.graph.input[3]
    found = fusion.fused(model, native.together())
    assert found is not None
    wanted, value = (session_of(m).run(None, feeds)[0] for m in (model, found))
    assert wanted.any()
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        # no spikes, or something happened to them
        ("r = Reshape(x, images) y = Conv(r, w, b)", None),
        (f"{FOLD} e = Add(r, p) y = Conv(e, w, b)", None),
        (f"{FOLD} y = Conv(w, r)", None),
        # no constants of the right sizes, no images
        (f"{FOLD} y = Conv(r, given)", None),
        (f"{FOLD} y = Conv(r, w, p)", None),
        (f"{FOLD} y = Conv(r, w, row)", None),
        ("r = Reshape(s, lines) y = Conv(r, line, b)", None),
        # pads that only the shape tells
        (f'{FOLD} y = Conv<auto_pad = "SAME_UPPER">(r, w, b)', None),
        # norms that others see, or that compute statistics, stay
        (f"{FOLD} c = Conv(r, w, b) {NORM} y = Add(n, c)", ["ConvAndBias", NORM[4:22], "Add"]),
        (
            f"{FOLD} c = Conv(r, w, b) n = BatchNormalization(c, scale, shift, mean, p) y = Neg(n)",
            ["ConvAndBias", NORM[4:22], "Neg"],
        ),
        (
            f"{FOLD} c = Conv(r, w, b) n, q, o = BatchNormalization<training_mode = 1>"
            "(c, scale, shift, mean, variance) y = Neg(n)",
            ["ConvAndBias", NORM[4:22], "Neg"],
        ),
    ],
)
def test_what_stays(body: str, nodes: list[str] | None) -> None:
    found = kinds(model_of(body))
    assert found == (nodes if nodes is None else ["Reshape", *nodes])


def test_a_library_without_the_kernel() -> None:
    assert fusion.fused(model_of(f"{FOLD} y = Conv(r, w, b)"), ("DenseAndBias",)) is None


def test_geometry_is_kept() -> None:
    geometry = "dilations = [2, 1], group = 1, kernel_shape = [3, 3], pads = [0, 1, 2, 3]"
    model = model_of(f"{FOLD} y = Conv<{geometry}, strides = [1, 2]>(r, w, b)")
    found = fusion.fused(model, TOGETHER)
    assert found is not None
    node = found.graph.node[-1]
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {
        "strides": [1, 2], "pads": [0, 1, 2, 3], "dilations": [2, 1], "group": 1,
    }  # fmt: skip


class _Images(nn.Module):
    """Convolutions of snnTorch with norms and pools; the images of the second are in tiles."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch

        torch.manual_seed(0)
        sizes = ((2, 16), (16, 32), (32, 24))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in sizes)
        self.neurons = nn.ModuleList(snntorch.Leaky(0.9, threshold=0.5) for _ in sizes)
        for norm in self.norms:
            for value, low in ((norm.running_mean, -0.2), (norm.running_var, 0.05)):
                value.uniform_(low, 0.2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        states, out = [neuron.init_leaky() for neuron in self.neurons], []
        for step in x:
            spikes = step
            for i, neuron in enumerate(self.neurons):
                currents = self.norms[i](self.convs[i](spikes))
                spikes, states[i] = neuron(currents, states[i])
                if i == 1:
                    spikes = nn.functional.max_pool2d(spikes, 2)
            out.append(spikes)
        return torch.stack(out)


@needs_kernels
def test_a_network_of_images() -> None:
    pytest.importorskip("snntorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _Images().eval()
        x = (torch.rand(6, 2, 2, 28, 28, generator=torch.Generator().manual_seed(1)) < 0.2).float()
        model = so.export(network, x)
        fused = fusion.fused(model, native.together())
        assert fused is not None
        bodies = [a.g for n in fused.graph.node for a in n.attribute if n.op_type == "Scan"]
        found = [n.op_type for graph in (fused.graph, *bodies) for n in graph.node]
        assert found.count("ConvAndBias") == 2
        assert "ConvAndBias" in [n.op_type for graph in bodies for n in graph.node]
        assert found.count("Conv") == 1, "the input's convolution is ONNX Runtime's"
        wanted = copy.deepcopy(network)(x).detach().numpy()
        for threads in (1, 8):
            session = so.Session(model, native=True, threads=threads)
            value: Any = session.run(x.numpy())
            assert (value != wanted).mean() < 1e-3
        assert 0.02 < wanted.mean() < 0.5
        assert so.verify(network, model, x, native=True).ok


@pytest.mark.parametrize("name", ["w", "b", "scale", "mean"])
def test_what_a_caller_may_replace_is_no_constant(name: str) -> None:
    model = model_of(f"{FOLD} c = Conv(r, w, b) {NORM} y = Relu(n)")
    assert kinds(model) == ["Reshape", "ConvAndBias", "Relu"]
    model.graph.input.append(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(SIZES[name]))
    )
    kept = ["Reshape", "ConvAndBias", "BatchNormalization", "Relu"]
    assert kinds(model) == (None if name in "wb" else kept)
