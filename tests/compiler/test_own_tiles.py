"""Convolutions and pools of this package in tiles: the same values, and the same nodes without."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
import pytest
import torch
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler import _tiles, exporter
from synapse_onnx.model.graph import taken_by
from synapse_onnx.model.metadata import Metadata, entries_of
from synapse_onnx.model.tiles import body_of, is_in_tiles, without_tiles
from synapse_onnx.ops import all_ops
from synapse_onnx.report.activity import count_activity
from synapse_onnx.runtime import native

NEURON = {"threshold": 0.1, "current_decay": 0.5, "voltage_decay": 0.25}


def _network(**more: object) -> nn.Module:
    torch.manual_seed(0)
    block = so.block.cuba
    network = nn.Sequential(
        block.Conv(NEURON, 2, 4, 3, padding=1, **more),
        block.Pool(NEURON, 2, **more),
        block.Conv(NEURON, 4, 3, 3, stride=2, **more),
        block.Flatten(),
        block.Dense(NEURON, 12, 5, **more),
    )
    return network.eval()


def _q8() -> nn.Module:
    return _network(pre_hook_fx=so.quantize.q8)


def _floats() -> nn.Module:
    return _network(pre_hook_fx=None)


def _x(samples: int = 3, steps: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(samples, 2, 10, 10, steps, generator=generator) < 0.4).float()


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put small images in tiles, as those here are, of a few at a time."""
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", 0)
    monkeypatch.setattr(_tiles, "BYTES_AT_ONCE", 5000)


def _untiled(network: nn.Module, x: torch.Tensor, **options: object) -> onnx.ModelProto:
    with mock.patch.object(exporter, "put_in_tiles", return_value=0):
        return so.export(network, x, **options)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def _tiled_ops(model: onnx.ModelProto) -> list[str]:
    tiles = filter(is_in_tiles, model.graph.node)
    return [node.op_type for scan in tiles for node in body_of(scan).node]


@pytest.mark.parametrize("layout", ["NCT", "TNC"])
@pytest.mark.parametrize("input_type", ["float32", "uint8"])
@pytest.mark.parametrize("make", [_floats, _q8])
def test_spikes_are_the_same_at_every_size(
    make: Callable[[], nn.Module], input_type: str, layout: str
) -> None:
    options = {"layout": layout, "input_type": input_type}
    tiled, whole = so.export(make(), _x(), **options), _untiled(make(), _x(), **options)
    conv = "QuantizedConv" if make is _q8 else "Conv"
    assert _tiled_ops(tiled) == [conv, "QuantizedPool", conv]  # the pool's weights are ones
    for samples, steps in ((3, 6), (1, 1), (7, 1), (1, 13), (5, 11)):
        x = _x(samples, steps).numpy().astype(input_type)
        x = np.moveaxis(x, -1, 0) if layout == "TNC" else x
        found, expected = _run(tiled, x), _run(whole, x)
        np.testing.assert_array_equal(found, expected)
        assert expected.any() or samples * steps < 10


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Pool", "Unpool"])
def test_every_synapse_over_images(kind: str, quantized: bool) -> None:
    torch.manual_seed(2)
    hook = so.quantize.q8 if quantized else None
    channels = () if "ool" in kind else (2, 3)
    synapse = getattr(so.synapse, kind)(*channels, 2, stride=2, pre_hook_fx=hook).eval()
    if "ool" in kind:
        synapse.weight.data.fill_(1.0 if quantized else 1 / 3)
    tiled, whole = so.export(synapse, _x()), _untiled(synapse, _x())
    assert _tiled_ops(tiled) == [f"{'Quantized' if quantized else ''}{kind}"]
    for samples, steps in ((3, 6), (5, 7), (3, 0)):
        x = _x(samples, steps).numpy()
        np.testing.assert_array_equal(_run(tiled, x), _run(whole, x))


class _Live(nn.Module):
    """Convolutions with biases and leaky neurons: (T, N, 2, 10, 10) -> (T, N, 3, 20, 20)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two, spikes = 0, 0, []
        for frame in x:
            one = 0.5 * one + self.conv(frame)
            s = (one > 0.2).float()
            one = one - 0.2 * s
            two = 0.5 * two + self.up(s)
            s = (two > 0.2).float()
            two = two - 0.2 * s
            spikes.append(s)
        return torch.stack(spikes)


def test_convolutions_with_biases_of_a_live_network() -> None:
    network, x = so.quantize.apply(_Live().eval(), bits=8), _x().movedim(-1, 0)
    tiled, whole = so.export(network, x, axes="TNC"), _untiled(network, x, axes="TNC")
    assert _tiled_ops(tiled) == ["QuantizedBiasedConv", "QuantizedBiasedConvTranspose"]
    for size in ((3, 6), (5, 11), (1, 1)):
        steps = _x(*size).movedim(-1, 0).numpy()
        expected = _run(whole, steps)
        assert expected.any()
        np.testing.assert_array_equal(_run(tiled, steps), expected)
    assert so.verify(network, tiled, x).verdict == "equal"


def test_all_ops_over_images_with_one_result_are_there() -> None:
    images = {op.name for op in all_ops().values() if {"strides", "pads"} <= set(op.attributes)}
    assert {name for name in images if "Complex" not in name} == _tiles._OF_SEQUENCES
    assert any("Complex" in name for name in images)


def test_without_tiles_it_is_the_graph_that_was_there() -> None:
    tiled, expected = so.export(_q8(), _x()), _untiled(_q8(), _x())
    found = without_tiles(tiled)
    assert list(found.graph.node) == list(expected.graph.node)
    assert list(found.graph.output) == list(expected.graph.output)
    assert entries_of(found) == entries_of(expected)
    assert list(found.functions) == list(expected.functions)
    read = {name for node in found.graph.node for name in taken_by(node)}
    stored, wanted = (
        {t.name: t.SerializeToString() for t in model.graph.initializer if t.name in read}
        for model in (found, expected)
    )
    assert stored == wanted
    weights = {tensor.name for tensor in expected.graph.initializer}
    types, wanted_types = (
        {v.name: v.SerializeToString() for v in model.graph.value_info if v.name not in weights}
        for model in (tiled, expected)
    )
    assert wanted_types.items() <= types.items()


def test_a_file_says_of_its_layers_what_it_said() -> None:
    tiled, expected = so.export(_q8(), _x()), _untiled(_q8(), _x())
    assert Metadata.read(tiled) == Metadata.read(expected)
    assert Metadata.read(tiled).exact == ("output",)


def test_a_weight_that_two_layers_share_stays() -> None:
    torch.manual_seed(0)
    conv = so.synapse.Conv(2, 2, 3, padding=1)
    model = so.export(nn.Sequential(conv, so.block.cuba.Pool(NEURON, 2), conv).eval(), _x())
    assert _tiled_ops(model) == ["QuantizedPool"]


def test_complex_convolutions_stay() -> None:
    torch.manual_seed(0)
    block = so.block.rf.Conv({"threshold": 0.3, "period": 8.0, "decay": 0.05}, 2, 3, 3).eval()
    assert _tiled_ops(so.export(block, _x())) == []


@pytest.mark.parametrize(("samples", "steps", "count"), [(1, 1, 0), (3, 6, 3)])
def test_fixed_sizes_that_fit_in_one_tile_stay(samples: int, steps: int, count: int) -> None:
    model = so.export(_q8(), _x(samples, steps), dynamic=False)
    assert len(_tiled_ops(model)) == count


def test_smaller_images_go_in_tiles_where_larger_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # their largest values: 4 x 10 x 10, 4 x 10 x 10 and 4 x 5 x 5 numbers
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", 1600)
    monkeypatch.setattr(_tiles, "BYTES_BESIDE", 400)
    assert len(_tiled_ops(so.export(_q8(), _x()))) == 3
    monkeypatch.setattr(_tiles, "BYTES_BESIDE", 401)
    assert len(_tiled_ops(so.export(_q8(), _x()))) == 2
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", 1601)
    monkeypatch.setattr(_tiles, "BYTES_BESIDE", 400)
    assert _tiled_ops(so.export(_q8(), _x())) == []


# -- who reads a file -----------------------------------------------------------------------------


def test_a_file_with_tiles_is_proved_layer_by_layer() -> None:
    network = _q8()
    model = so.export(network, _x())
    report = so.verify(network, model, _x())
    assert report.verdict == "equal", str(report)
    assert {"0.synapse", "1.synapse", "2.synapse"} <= {row.name for row in report.layers}
    assert "run alone" not in str(report)


def _steps(model: onnx.ModelProto) -> str:
    scan = next(filter(is_in_tiles, model.graph.node))
    next(a for a in body_of(scan).node[0].attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]
    return "pads of node 0.synapse is [0, 0, 2, 2] in the file"


def _weight(model: onnx.ModelProto) -> str:
    scan = next(filter(is_in_tiles, model.graph.node))
    tensor = next(t for t in body_of(scan).initializer if t.name == "0.synapse.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return "0.synapse.weight: 1 of 72 values differ"


def _size(model: onnx.ModelProto) -> str:
    node = next(n for n in model.graph.node if n.name.endswith("/tiles/ReduceMax"))
    node.op_type = "ReduceMin"
    return "the operator of node 0.synapse/tiles/ReduceMax is ReduceMin in the file"


@pytest.mark.parametrize("fault", [_steps, _weight, _size])
def test_a_fault_in_a_tile_is_named(fault: Callable[[onnx.ModelProto], str]) -> None:
    network = _q8()
    model = so.export(network, _x())
    sentence = fault(model)
    report = so.verify(network, model, _x())
    assert not report.ok
    assert sentence in str(report)


def test_tiles_are_known_whatever_a_tool_calls_their_nodes() -> None:
    model = so.export(_q8(), _x())
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    assert len(_tiled_ops(model)) == 3
    assert _tiled_ops(without_tiles(model)) == []


def test_native_kernels_take_their_nodes_out_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    model = so.export(_q8(), _x())
    assert without_tiles(model, of=()) is model
    assert _tiled_ops(without_tiles(model, of=["QuantizedPool"])) == ["QuantizedConv"] * 2
    monkeypatch.setattr(native, "kernels", lambda provider=native.CPU: ("QuantizedConv",))
    assert native.used_by(model) == ("QuantizedConv",)


def test_synaptic_operations_are_counted_as_without_tiles() -> None:
    tiled, whole = so.export(_q8(), _x()), _untiled(_q8(), _x())
    assert str(count_activity(tiled, [_x().numpy()])) == str(count_activity(whole, [_x().numpy()]))
