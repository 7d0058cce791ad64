"""Files with convolutions in tiles, and the same without: what looks at single operators."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from graphs import parsed
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler import _tiles
from synapse_onnx.model.tiles import is_in_tiles, without_tiles
from synapse_onnx.report._diagram import Diagram
from synapse_onnx.report.activity import count_activity
from synapse_onnx.runtime.providers import for_cuda


class _Network(nn.Module):
    """A convolution, a norm, a pool and leaky neurons: (T, N, 1, 6, 6) -> (T, N, 3, 3, 3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        voltage, spikes = 0, []
        for frame in x:
            voltage = 0.5 * voltage + torch.max_pool2d(self.norm(self.conv(frame)), 2)
            spike = (voltage > 0.25).float()
            voltage = voltage - 0.25 * spike
            spikes.append(spike)
        return torch.stack(spikes)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tiles, "BYTES_OF_IMAGE", 0)
        return so.export(_Network().eval(), torch.rand(5, 2, 1, 6, 6), axes="TNC")


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_operators_are_in_the_graph_again(model: onnx.ModelProto) -> None:
    assert sum(map(is_in_tiles, model.graph.node)) == 1
    before = model.SerializeToString()
    whole = without_tiles(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(whole, full_check=True)
    assert not any(map(is_in_tiles, whole.graph.node))
    assert {"Conv", "BatchNormalization", "MaxPool"} <= set(_kinds(whole))
    assert not {"Mod", "Where", "ReduceMax"} & set(_kinds(whole))  # the size of a tile
    stored = {tensor.name for tensor in whole.graph.initializer}
    assert {"conv.weight", "conv.bias", "norm.weight", "norm.running_var"} <= stored
    x = np.random.default_rng(0).random((7, 3, 1, 6, 6)).astype(np.float32)
    assert _run(model, x).any()
    np.testing.assert_array_equal(_run(whole, x), _run(model, x))


def test_a_model_without_tiles_is_given_back() -> None:
    model = parsed("""
    g (float[T, N] x) => (float[T, N] y) {
      y = Scan<num_scan_inputs = 1, body = step (float[N] a) => (float[N] b) { b = Neg(a) }>(x)
    }""")
    assert without_tiles(model) is model


@pytest.mark.parametrize("damage", ["body", "input", "output"])
def test_a_scan_that_is_no_tile_stays(model: onnx.ModelProto, damage: str) -> None:
    damaged = onnx.ModelProto()
    damaged.CopyFrom(model)
    (scan,) = filter(is_in_tiles, damaged.graph.node)
    if damage == "body":
        kept = [attribute for attribute in scan.attribute if attribute.name != "body"]
        del scan.attribute[:]
        scan.attribute.extend(kept)
    elif damage == "input":
        scan.input.append(scan.input[0])
    else:
        scan.output.append("another")
    assert without_tiles(damaged) is damaged


def test_a_gpu_takes_all_images_at_once(model: onnx.ModelProto) -> None:
    assert "Conv" in _kinds(for_cuda(model))
    assert not any(map(is_in_tiles, for_cuda(model).graph.node))


def test_products_in_tiles_are_told(model: onnx.ModelProto) -> None:
    x = np.ones((5, 2, 1, 6, 6), np.float32)
    assert [op for _, op in count_activity(model, [x]).products] == ["Conv"]


def test_a_diagram_shows_the_operators(model: onnx.ModelProto) -> None:
    names = [box.name for box in Diagram(model, None).boxes.values()]
    assert any("Conv" in name for name in names)
    assert not any("tiles" in name for name in names)
