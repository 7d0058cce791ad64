"""export: the graph that is written, the values that it gives, and the file."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from graphs import own_nodes
from networks import NEURON, Complex, Convolutional, Mixed, built, spikes
from torch import nn

import synapse_onnx as so
from synapse_onnx.model.options import OPSETS


def test_every_layer_is_one_node_with_its_body_in_the_file() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    assert own_nodes(model) == [
        "QuantizedConv", "Cuba", "QuantizedPool", "Cuba", "QuantizedDense", "Cuba",
    ]  # fmt: skip
    assert {function.name for function in model.functions} == set(own_nodes(model))
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 21,
        "ai.synapse": 1,
    }
    named = {node.name for node in model.graph.node}
    assert {"conv", "conv_neuron", "pool", "pool_neuron", "dense", "dense_neuron"} <= named


def test_node_count_does_not_grow_with_time_and_batch_and_time_stay_open() -> None:
    short = so.export(built(), spikes(1, 2, 8, 8, 1))
    long = so.export(built(), spikes(3, 2, 8, 8, 300))
    assert len(short.graph.node) == len(long.graph.node)
    dims = short.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 2, 8, 8, "T"]
    out = short.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in out] == ["N", 5, "T"]


def test_an_example_may_be_a_view_of_another() -> None:
    whole = spikes(2, 2, 8, 8, 10)
    assert so.export(built(), whole[..., 2:7]) == so.export(built(), whole[..., 2:7].contiguous())


def test_no_transposes_between_layers() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    transposes = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert len(transposes) == 2, "one at either border"


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [Convolutional, Complex])
@pytest.mark.gpu
def test_one_file_serves_every_batch_and_length(kind: type, batch: int, steps: int) -> None:
    module = built(kind)
    session = so.Session(so.export(module, spikes(2, 2, 8, 8, 5)))
    x = spikes(batch, 2, 8, 8, steps, seed=steps)
    with torch.no_grad():
        expected = module(x)
    found = session.run(x.numpy())
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    assert len(expected) == len(found)
    for y, z in zip(expected, found, strict=True):
        np.testing.assert_array_equal(y.numpy(), z)
        assert z.dtype == np.float32


def test_static_export_keeps_its_sizes() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5), dynamic=False)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [2, 2, 8, 8, 5]
    with pytest.raises(so.ShapeError, match=r"expected shape \(2, 2, 8, 8, 5\)"):
        so.Session(model).run(np.zeros((1, 2, 8, 8, 5), np.float32))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.gpu
@pytest.mark.matrix
def test_every_opset_gives_the_same_spikes(opset: int) -> None:
    module, x = built(), spikes(2, 2, 8, 8, 12)
    model = so.export(module, x, opset=opset)
    assert model.opset_import[0].version == opset
    with torch.no_grad():
        np.testing.assert_array_equal(so.Session(model).run(x.numpy()), module(x).numpy())


def test_the_module_is_not_touched() -> None:
    module = built().train()
    before = copy.deepcopy(module.state_dict())
    so.export(module, spikes(2, 2, 8, 8, 5))
    assert module.training
    assert all(child.training for child in module.modules())
    assert list(before) == list(module.state_dict())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.conv.pre_hook_fx is so.quantize.q8
    assert module.dense.weight_norm_enabled
    assert all(p.requires_grad for n, p in module.named_parameters() if "dense.weight" in n)


_PROGRAM = """
import hashlib, sys
sys.path.insert(0, {tests!r})
import torch
from networks import Convolutional
import synapse_onnx as so
torch.manual_seed(0)
model = so.export(Convolutional().eval(), torch.zeros(2, 2, 8, 8, 5))
print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())
"""


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_in_every_process() -> None:
    program = _PROGRAM.format(tests=str(Path(__file__).parents[1]))
    sums = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(sums) == 1


def test_no_trace_of_the_exporting_machine_is_in_the_file() -> None:
    data = so.export(built(), spikes(2, 2, 8, 8, 5)).SerializeToString()
    for trace in (b".py", os.getcwd().encode(), b"pkg.torch"):
        assert trace not in data


@pytest.mark.gpu
def test_a_network_mixed_with_torch_code_is_equal() -> None:
    module = built(Mixed)
    model = so.export(module, spikes(2, 6, 5))
    report = so.verify(module, model, spikes(4, 6, 40))
    assert report.ok, str(report)
    assert [row.exact for row in report.layers] == [True] * 4
    # the readout is a float product, the grid of spikes is exact
    assert [row.exact for row in report.outputs] == [False, True]


def test_the_same_layer_called_twice_is_compared_call_by_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = so.synapse.Dense(4, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
            self.neuron = so.neuron.cuba.Neuron(0.5, 0.5, 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.neuron(self.synapse(self.neuron(self.synapse(x))))

    torch.manual_seed(0)
    module = Twice().eval()
    report = so.verify(module, so.export(module, spikes(2, 4, 9)), spikes(3, 4, 30))
    assert report.ok, str(report)
    assert [row.name for row in report.layers] == [
        "synapse (call 1)", "neuron (call 1)", "synapse (call 2)", "neuron (call 2)",
    ]  # fmt: skip


def test_composed_neurons_export_too() -> None:
    """A scale that is no power of two runs as two integrators and a spike function."""
    torch.manual_seed(0)
    module = nn.Sequential(
        so.synapse.Dense(6, 8, weight_scale=4, pre_hook_fx=so.quantize.q8),
        so.neuron.cuba.Neuron(0.5, 0.25, 0.05, scale=100),
    ).eval()
    model = so.export(module, spikes(2, 6, 9))
    assert own_nodes(model) == ["QuantizedDense", "LeakyIntegrator", "LeakyIntegrator", "Spike"]
    report = so.verify(module, model, spikes(4, 6, 60))
    assert report.ok, str(report)
    assert report.layers[-1].exact
    assert report.layers[-1].values > 0


def test_the_file_holds_what_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = so.export(built(), spikes(2, 2, 8, 8, 5), path)
    assert path.read_bytes() == model.SerializeToString(deterministic=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    onnx.checker.check_model(str(path), full_check=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(so.InputError, match=r"net\.onnx cannot be written: No space left"):
        so.export(built(), spikes(2, 2, 8, 8, 5), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(so.InputError, match=r"nowhere/net\.onnx cannot be written: No such file"):
        so.export(built(), spikes(2, 2, 8, 8, 5), tmp_path / "nowhere" / "net.onnx")


class _Optional(nn.Module):
    """Buffers of the outermost module, one of which is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", None)
        self.register_buffer("gain", torch.tensor([0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = x * self.gain
        return scaled if self.offset is None else scaled + self.offset


def test_a_buffer_that_is_none() -> None:
    network, x = _Optional(), torch.rand(2, 3, 7)
    model = so.export(network, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), network(x).numpy())
    assert "offset" in network._buffers  # a copy is traced


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_a_batch_as_large_as_a_layer_stays_open(n: int) -> None:
    """To ask whether N is 3 tells torch that it is, if the example's is."""
    network = nn.Sequential(
        so.block.cuba.Dense(NEURON, 6, 4), so.block.cuba.Recurrent(NEURON, 4, 3)
    )
    model = so.export(network, spikes(n, 6, n))
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 6, "T"]
