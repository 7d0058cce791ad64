"""Torch's exporter with a table that is read once gives what it gives as documented."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler import _translate


@pytest.fixture(scope="module")
def network() -> nn.Module:
    neuron = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.05}
    return nn.Sequential(so.block.cuba.Dense(neuron, 6, 5), nn.Softplus(), nn.Unflatten(1, (5, 1)))


def test_both_ways_give_the_same_bytes(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 6, 9)
    table_once = so.export(network, x)
    monkeypatch.setattr(_translate, "_export_with_table", lambda: None)
    assert so.export(network, x).SerializeToString() == table_once.SerializeToString()


def test_torchlib_is_read_once_an_opset(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    from_torchlib = _translate._torchlib.__wrapped__

    def counted(opset: int) -> Any:
        read.append(opset)
        return from_torchlib(opset)

    monkeypatch.setattr(_translate, "_torchlib", functools.cache(counted))
    for opset in (21, 21, 23, 21):
        so.export(network, torch.ones(2, 6, 9), opset=opset)
    assert read == [21, 23]


def test_a_table_is_not_changed_by_an_export(network: nn.Module) -> None:
    so.export(network, torch.ones(2, 6, 9))
    own = so.ops.get_op("Cuba").torch_op
    assert own not in _translate._torchlib(21).functions


def test_another_torch_has_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter import _core

    monkeypatch.setattr(_core, "export", lambda program, table: None)
    assert _translate._export_with_table.__wrapped__() is None
