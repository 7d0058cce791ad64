"""The kernels of a run, and their part of the time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.errors import ShapeError
from synapse_onnx.report.kernels import Kernel, profile_kernels

MODELS = Path(__file__).parents[2] / "models"


def exported(module: nn.Module, x: Tensor) -> onnx.ModelProto:
    return so.export(module.eval(), x)


def test_kernels_of_bodies() -> None:
    """A node in a loop is one node and runs once a step."""
    steps = 7
    x = spikes(2, 1, 8, 8, steps).numpy()
    kernels = profile_kernels(onnx.load(MODELS / "digits_q8.onnx"), [x], native=False)
    assert not any(kernel.native for kernel in kernels)
    assert {kernel.provider for kernel in kernels} == {"CPUExecutionProvider"}
    (conv,) = [kernel for kernel in kernels if kernel.op == "Conv"]
    assert (conv.numbers, conv.nodes, conv.calls) == ("float", 3, 3)
    scans = [kernel for kernel in kernels if kernel.op == "Scan"]
    assert sum(kernel.nodes for kernel in scans) == 4
    assert any(kernel.calls == kernel.nodes * steps for kernel in kernels if kernel.nodes > 1)
    assert sum(kernel.share for kernel in kernels) == pytest.approx(1.0)
    assert [kernel.share for kernel in kernels] == sorted((k.share for k in kernels), reverse=True)


def test_a_product_of_bytes_is_one_of_integers() -> None:
    torch.manual_seed(0)
    dense = so.synapse.Dense(16, 160, pre_hook_fx=so.quantize.q8)
    x = spikes(2, 16, 5)
    model = exported(dense, x)
    kernels = {k.op: k for k in profile_kernels(model, [x.numpy()], native=False)}
    assert kernels["MatMulInteger"].numbers == "integer"
    assert "MatMul" not in kernels
    halves = {k.op: k for k in profile_kernels(model, [x.numpy() / 2], native=False)}
    assert halves["MatMul"].numbers == "float"
    assert "MatMulInteger" not in halves


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("float", "float16"), "float"),
        (("double",), "float"),
        (("int8", "bool"), "integer"),
        (("float", "int64"), "mixed"),
        ((), ""),
    ],
)
def test_numbers(types: tuple[str, ...], expected: str) -> None:
    assert Kernel("Op", False, "CPU", types, 1, 1, 1.0).numbers == expected


def test_the_profile_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = exported(so.synapse.Dense(4, 3), spikes(1, 4, 5))  # torch keeps files there as well
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert profile_kernels(model, [np.ones((1, 4, 5))])
    with pytest.raises(ShapeError):
        profile_kernels(model, [np.ones((1, 5, 5))])
    assert list(tmp_path.iterdir()) == []
