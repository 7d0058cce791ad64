"""part_scales: which scales are parted from the product after them, and the same values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graphs import assert_same_values, kinds, parsed
from networks import NEURON
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.passes import part_scales

#: s and m enter a product; the ends of a graph whose first nodes differ
HEADER = """
g (float[N, T, 2] x) => (float[A, B, C] y, float[A, B, C] z)
  <float tenth = {0.1}, float half = {0.5}, float[2] each = {0.5, 0.25},
   float[2, 2] w = {1, 2, 3, 4}>
"""
TWO_PRODUCTS = "y = MatMul(s, w) m = Mul(s, half) z = MatMul(m, w)"


def _run(body: str) -> tuple[int, ir.Model]:
    proto = parsed(f"{HEADER} {{ {body} }}")
    model = ir.from_proto(proto)
    changes = part_scales.run(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    assert_same_values(proto, model, x)
    return changes, model


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (f"s = Mul(x, tenth) {TWO_PRODUCTS}", 1),
        (f"s = Mul(tenth, x) {TWO_PRODUCTS}", 1),
        (f"s = Div(x, tenth) {TWO_PRODUCTS}", 1),
        ("s = Mul(x, tenth) y = MatMul(s, w) m = Div(s, half) z = MatMul(m, w)", 1),
        (
            "s = Mul(x, tenth) y = MatMul(s, w) t = Transpose<perm = [1, 0, 2]>(s) m = Mul(t, half)"
            " u = Transpose<perm = [1, 0, 2]>(m) z = MatMul(u, w)",
            1,
        ),
        (
            "s = Mul(x, tenth) y = MatMul(s, w) m = Mul(s, half) q = Mul(m, half) z = MatMul(q, w)",
            2,
        ),
        (f"s = Neg(x) {TWO_PRODUCTS}", 0),  # the first is no scale
        (f"s = Mul(x, each) {TWO_PRODUCTS}", 0),  # nor is one a column
        ("s = Mul(x, tenth) y = MatMul(s, w) m = Mul(s, each) z = MatMul(m, w)", 0),
        ("s = Mul(x, tenth) y = Neg(s) m = Mul(s, half) z = MatMul(m, w)", 0),  # one product
        ("s = Mul(x, tenth) y = MatMul(s, w) m = Mul(s, half) z = Neg(m)", 0),
        ("s = Mul(x, tenth) y = MatMul(s, w) z = Div(half, s)", 0),
    ],
)
def test_a_scale_of_a_scaled_value_is_parted(body: str, changes: int) -> None:
    found, model = _run(body)
    assert found == changes
    assert kinds(model).count("Squeeze") == kinds(model).count("Unsqueeze") == changes
    if changes:  # the product no longer reads the scale itself
        assert not any(
            node.op_type == "MatMul" and node.inputs[0].producer().op_type in ("Mul", "Div")
            for node in model.graph
            if node.outputs[0].name == "z"
        )


class _Scaled(nn.Module):
    """A value and half of it, each through a linear layer (N, C, T)."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.one, self.two = layers

    def forward(self, x: Tensor) -> Tensor:
        y = x * 0.1
        return self.one(y) + self.two(y * 0.5)


class _OverChannels(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Encoded(nn.Module):
    """What an encoder sends, and half of it, each through a synapse."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = so.axon.Delta(threshold=0.25)
        self.one, self.two = (so.synapse.Dense(6, 4, pre_hook_fx=None) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        return self.one(y) + self.two(y * 0.5)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize(
    "network",
    [
        _Scaled([_OverChannels(6, 4), _OverChannels(6, 4)]),
        _Scaled([so.block.cuba.Dense(NEURON, 6, 4, pre_hook_fx=None) for _ in range(2)]),
        _Encoded(),
    ],
    ids=["linear", "blocks", "encoder"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_onnx_runtime_takes_the_file(network: nn.Module, streaming: bool) -> None:
    x = torch.rand(2, 6, 9)
    model = so.export(network.eval(), x, streaming=streaming)
    assert sum(node.op_type == "Unsqueeze" for node in model.graph.node) >= 1
    assert so.verify(network, model, x).ok


def test_a_parameter_keeps_its_name() -> None:
    class Named(_Scaled):
        def __init__(self) -> None:
            super().__init__([_OverChannels(6, 4), _OverChannels(6, 4)])
            self.axis_0 = nn.Parameter(torch.full((1,), 0.75))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.axis_0

    network, x = Named().eval(), torch.rand(2, 6, 9)
    model = so.export(network, x)
    assert "axis_0" in [tensor.name for tensor in model.graph.initializer]
    assert so.verify(network, model, x).ok
