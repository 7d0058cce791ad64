"""Native kernels take the nodes that they compute out of tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler import _tiles
from synapse_onnx.model.tiles import is_in_tiles
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(native.problem() is not None, reason=str(native.problem()))


def test_kernels_compute_nodes_that_were_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", 0)
    torch.manual_seed(0)
    neuron = {"threshold": 0.1, "current_decay": 0.5, "voltage_decay": 0.25}
    block = so.block.cuba
    network = nn.Sequential(
        block.Conv(neuron, 2, 4, 3, pre_hook_fx=so.quantize.q8), block.Pool(neuron, 2)
    )
    x = (torch.rand(3, 2, 10, 10, 6) < 0.4).float()
    model = so.export(network.eval(), x)
    assert sum(map(is_in_tiles, model.graph.node)) == 2
    session = so.Session(model, native=True)
    assert {"QuantizedConv", "QuantizedPool"} <= set(session.kernels)
    assert {"0.synapse", "1.synapse"} <= set(session.native_nodes)
    expected = so.Session(model, native=False).run(x.numpy())
    assert expected.any()
    np.testing.assert_array_equal(session.run(x.numpy()), expected)
