"""Time first at the border, and bytes: the same network with other inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
import torch
from graphs import all_nodes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.model import layout
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.ops import DOMAIN

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("compiled_once")]

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "convolutional": (networks.Convolutional(), (2, 2, 8, 8, 12)),
    "mixed": (networks.Mixed(), (2, 6, 12)),
    "dense": (so.synapse.Dense(6, 140, pre_hook_fx=so.quantize.q8), (2, 6, 12)),
    "complex": (so.synapse.complex.Dense(6, 5, pre_hook_fx=so.quantize.q8), (2, 6, 12)),
}


def exported(name: str, **how: Any) -> tuple[nn.Module, Tensor, onnx.ModelProto]:
    module, shape = NETWORKS[name]
    x = networks.spikes(*shape)
    return module, x, so.export(module, x, **how)


def turned(y: np.ndarray) -> np.ndarray:
    return np.moveaxis(y, 0, -1) if y.ndim in (3, 5) else y


def several(y: Any) -> tuple[np.ndarray, ...]:
    return y if isinstance(y, tuple) else (y,)


def test_axes_of_every_layout_and_rank() -> None:
    assert [rank for rank in range(7) if layout.has_time(rank)] == [3, 5]
    for name, expected in (
        ("NCT", [(0, None), (0, 2), (0, None), (0, 4)]),
        ("TNC", [(0, None), (1, 0), (0, None), (1, 0)]),
    ):
        assert [layout.axes_of(name, rank) for rank in (2, 3, 4, 5)] == expected
    for shape, first in (
        ((2, 3, 4), (4, 2, 3)), ((2, 3, 4, 5, 6), (6, 2, 3, 4, 5)), ((2, 3), (2, 3)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
    ):  # fmt: skip
        array = np.arange(np.prod(shape)).reshape(shape)
        assert layout.time_first(array, "NCT") is array
        assert layout.time_last(array, "NCT") is array
        moved = layout.time_first(array, "TNC")
        assert moved.shape == first
        np.testing.assert_array_equal(layout.time_last(moved, "TNC"), array)


@pytest.mark.parametrize("input_type", ["float32", "uint8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_time_first_gives_the_same(name: str, input_type: str) -> None:
    module, x, plain = exported(name)
    _, _, model = exported(name, layout="TNC", input_type=input_type)
    first = np.ascontiguousarray(np.moveaxis(x.numpy(), -1, 0))
    found = several(so.Session(model).run(first))
    expected = several(so.Session(plain).run(x.numpy()))
    for y, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(turned(y), reference)
    report = so.verify(module, model, x)
    assert report.ok, str(report)
    assert report.max_abs_diff == 0 or name == "mixed"
    metadata = Metadata.read(model)
    assert (metadata.layout, metadata.input_type) == ("TNC", input_type)
    kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
    wanted = onnx.TensorProto.UINT8 if input_type == "uint8" else onnx.TensorProto.FLOAT
    assert kinds == {wanted}


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_give_the_same(name: str) -> None:
    module, x, plain = exported(name)
    _, _, model = exported(name, input_type="uint8")
    found = several(so.Session(model).run(x.numpy().astype(np.uint8)))
    for y, reference in zip(found, several(so.Session(plain).run(x.numpy())), strict=True):
        np.testing.assert_array_equal(y, reference)
    report = so.verify(module, model, x)
    assert report.ok, str(report)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node if n.domain != DOMAIN]


def test_no_data_are_moved_about_where_time_is_first() -> None:
    module = nn.Sequential(
        so.synapse.Dense(6, 8, pre_hook_fx=so.quantize.q8), networks.cuba(),
        so.synapse.Dense(8, 4, pre_hook_fx=so.quantize.q8), networks.cuba(),
    )  # fmt: skip
    x = networks.spikes(2, 6, 9)
    assert kinds(so.export(module, x)).count("Transpose") == 2
    assert "Transpose" not in kinds(so.export(module, x, layout="TNC"))
    model = so.export(module, x, layout="TNC", input_type="uint8")
    assert not {"Transpose", "Cast"} & set(kinds(model))  # a dense product takes bytes
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["T", "N", 6], ["T", "N", 4]]


class Border(nn.Module):
    """Inputs that are returned, used twice, or have no time; an output twice."""

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
        y = x * gain.unsqueeze(-1)
        return x, y, y, y.mean(-1), gain


@pytest.mark.parametrize("input_type", ["float32", "uint8"])
def test_borders_of_every_kind(input_type: str) -> None:
    x, gain = networks.spikes(2, 3, 9), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    model = so.export(Border(), (x, gain), layout="TNC", input_type=input_type)
    found = so.Session(model).run(np.moveaxis(x.numpy(), -1, 0), gain.numpy())
    for y, reference in zip(found, Border()(x, gain), strict=True):
        np.testing.assert_allclose(turned(y), reference.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["convolutional", "dense"])
def test_streams_take_and_give_the_layout_of_the_file(name: str) -> None:
    _, x, model = exported(name, layout="TNC", input_type="uint8", streaming=True)
    session = so.Session(model)
    first = np.moveaxis(x.numpy(), -1, 0).astype(np.uint8)
    whole = session.run(first)
    stream = session.stream(batch=2)
    parts = [stream.run(first[:5]), stream.step(first[5])[np.newaxis], stream.run(first[6:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert stream.flush().shape == (0, *whole.shape[1:])
    with pytest.raises(so.ShapeError, match=r"a step has \d axes \(N, "):
        stream.step(first[:1])


def test_what_no_byte_holds_is_refused() -> None:
    _, x, model = exported("dense", input_type="uint8")
    session = so.Session(model)
    for value in (256.0, -1.0, 0.5, float("nan")):
        wrong = x.numpy().copy()
        wrong[0, 0, 0] = value
        with pytest.raises(so.InputError, match="do not fit uint8"):
            session.run(wrong)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layout": "CTN"}, "layout must be NCT or TNC or NTC, got 'CTN'"),
        ({"input_type": "int8"}, "input_type must be float32 or uint8, got 'int8'"),
    ],
)
def test_what_there_is_not(how: dict[str, str], message: str) -> None:
    module, shape = NETWORKS["dense"]
    with pytest.raises(so.InputError, match=message):
        so.export(module, networks.spikes(*shape), **how)


def test_the_commands_know_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch, synapse_onnx as so\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(so.synapse.Dense(6, 8, pre_hook_fx=so.quantize.q8),\n"
        "    so.neuron.cuba.Neuron(1.0, 0.25, 0.05))\n"
    )
    model, source = str(tmp_path / "net.onnx"), f"{file}:net"
    how = ["--shape", "6", "--layout", "TNC", "--input-type", "uint8", "--streaming"]

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as end:
            main([*words])
        return int(end.value.code or 0)

    assert run("export", source, "-o", model, *how) == 0
    assert run("verify", source, model) == 0
    array, out = tmp_path / "x.npy", str(tmp_path / "y.npy")
    np.save(array, np.moveaxis(networks.spikes(2, 6, 9).numpy(), -1, 0))
    assert run("verify", source, model, "--input", str(array)) == 0
    assert run("run", model, "--input", str(array), "-o", out, "--chunk", "4") == 0
    assert np.load(out).shape == (9, 2, 8)
    capsys.readouterr()
    assert run("inspect", model) == 0
    assert "TNC, time first" in capsys.readouterr().out
    assert [n for n in all_nodes(onnx.load(model).graph.node) if n.op_type == "Transpose"] == []
