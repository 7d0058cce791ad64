"""Bodies: what is computed for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import cuba, spikes
from torch import nn

import synapse_onnx as so
from synapse_onnx.ops.equation import _op


def test_what_a_body_leaves_out_is_computed_once_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    node_omits = _op.node_omits

    def counted(op: Any, *args: Any) -> frozenset[str]:
        computed.append(op.name)
        return node_omits(op, *args)

    monkeypatch.setattr(_op, "node_omits", counted)
    torch.manual_seed(0)
    layers = (so.synapse.Dense(6, 5), cuba(), so.synapse.Dense(5, 4), cuba())
    so.export(nn.Sequential(*layers).eval(), spikes(2, 6, 9))
    assert computed == ["Cuba", "Cuba"]
