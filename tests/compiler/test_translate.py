"""What is left out of torch's exporter changes nothing in the file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from networks import NEURON
from torch import Tensor, nn
from torch.onnx._internal.exporter import _fx_passes

import synapse_onnx as so
from synapse_onnx.compiler import _translate


class Core(nn.Module):
    """Operators of torch's core, a result that nothing reads, an input that is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = so.block.cuba.Dense(NEURON, 6, 4)
        self.unread = so.block.cuba.Dense(NEURON, 6, 2)
        self.register_buffer("gain", torch.tensor([0.5, 1.0, 2.0, 4.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        spikes = self.layer(x)
        self.unread(x)
        gain = self.gain.unsqueeze(0).unsqueeze(-1)
        y = torch.relu(spikes * gain - 0.25) / 2 + spikes.mean(dim=1, keepdim=True)
        y = torch.cat([y, torch.sqrt(y.clamp(min=0)), torch.exp(-y)], dim=1)
        y = torch.where(y > 0.5, torch.maximum(y, gain.sum(dim=1, keepdim=True)), y.abs())
        z = y.permute(0, 2, 1).flip(2).permute(0, 2, 1)[:, 1:-1].round()
        return z, y.select(1, 2).unsqueeze(1), x


class Mixed(nn.Module):
    """Operators of torch's core that take numbers of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = so.block.cuba.Dense(NEURON, 6, 4)
        self.register_buffer("counts", torch.arange(4).unsqueeze(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.counts


class Floats(nn.Module):
    """Operators whose operands all have one type, and some that no type holds for."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x * 0.5, torch.sigmoid(x) / 1.5], dim=1).clamp(min=0.25)
        y = torch.where((y > 0.5).logical_and(x.sum(1, keepdim=True) > 1.0), y, y * 0.125)
        return y.pow(2.0) + torch.maximum(y, x.mean(1, keepdim=True))


class Composite(nn.Module):
    """Operators that torch takes apart before it translates them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = so.block.cuba.Dense(NEURON, 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.kind == "parts":
            one, other = y.split(2, dim=1)
            return one + other
        return (y + 1).clamp_(0, 1)


class Functions(nn.Module):
    """Operators that torchlib translates as they are, and moves and casts that are rewritten."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(6, 5), nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.softplus(self.norm(self.fc(x.movedim(-1, 1))))
        y = (y.moveaxis((1, 2), (2, 1)) > 0.5).float().to(torch.float32) + y.permute(0, 2, 1)
        return y * (2 * y.shape[-1] - y.shape[-1])


def _image_network() -> nn.Module:
    layers, neuron = so.block.sigma_delta, {"threshold": 0.1, "activation": torch.relu}
    return nn.Sequential(
        layers.Conv(neuron, 6, 2, 3, padding=1), layers.Flatten(), layers.Dense(neuron, 32, 3)
    )


VECTOR, IMAGE = (2, 6, 9), (2, 6, 4, 4, 9)
NETWORKS: Mapping[str, Any] = {
    "core": (Core, VECTOR),
    "mixed": (Mixed, VECTOR),
    "functions": (Functions, VECTOR),
    "floats": (Floats, VECTOR),
    "kwta": (lambda: so.block.cuba.KWTA(NEURON, 6, 4, num_winners=2), VECTOR),
    "images": (_image_network, IMAGE),
    "merged channels": (lambda: so.synapse.Unpool(2, merge_channels=True), IMAGE),
}
COMPOSITE = ("parts", "in place")


def _export(network: nn.Module, x: Tensor, **options: Any) -> bytes:
    return so.export(network, x, **options).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("name", "streaming"),
    [
        ("core", False), ("core", True), ("mixed", False), ("functions", False), ("floats", False),
        *((name, name != "images") for name in [*NETWORKS][4:]),
    ],
)  # fmt: skip
def test_what_is_left_out_would_change_nothing(
    name: str, streaming: bool, judged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = make(), torch.ones(shape)
    converted = _count(monkeypatch, "insert_type_promotion_nodes")
    once = _export(network, x, streaming=streaming)
    assert judged == [True]
    assert len(converted) == (name in ("core", "mixed", "functions"))
    monkeypatch.setattr(_translate, "_is_decomposed", lambda program, table: False)
    assert _export(network, x, streaming=streaming) == once


def _count(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Return a list to which each call of a step of torch's exporter adds what it was given."""
    calls: list[Any] = []
    step = getattr(_fx_passes, name)

    def counted(given: Any, *args: Any) -> Any:
        calls.append(given)
        return step(given, *args)

    monkeypatch.setattr(_fx_passes, name, counted)
    return calls


def test_steps_are_left_out_for_one_program_and_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    step = "decompose_with_registry"
    calls = _count(monkeypatch, step)
    so.export(nn.ReLU(), torch.ones(VECTOR))
    assert not calls
    before, program = _fx_passes.decompose_with_registry, object()

    def fail_within() -> None:
        with _translate._left_out(step, program):
            assert _fx_passes.decompose_with_registry(program, None) is program
            so.export(Composite("parts"), torch.ones(VECTOR))
            raise ValueError("of a user")

    with pytest.raises(ValueError, match="of a user"):
        fail_within()
    assert len(calls) == 1
    assert _fx_passes.decompose_with_registry is before


def test_a_torch_without_such_a_step_has_none_to_leave_out() -> None:
    with _translate._left_out("no_such_step", object()):
        assert not hasattr(_fx_passes, "no_such_step")


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("kind", COMPOSITE)
def test_composite_operators_are_taken_apart(kind: str, judged: list[bool]) -> None:
    network, x = Composite(kind), torch.ones(VECTOR)
    assert so.verify(network, so.export(network, x), x).ok
    assert set(judged) == {False}


def test_the_documented_way_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = Core(), torch.ones(VECTOR)
    table_once = _export(network, x)
    monkeypatch.setattr(_translate, "_export_with_table", lambda: None)
    assert _export(network, x) == table_once


def test_an_operator_of_torchlib_is_read_once_an_opset(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, str | None]] = []
    torchlib = _translate._torchlib.__wrapped__

    def counted(opset: int, name: str | None = None) -> Any:
        read.append((opset, name))
        return torchlib(opset, name)

    monkeypatch.setattr(_translate, "_torchlib", functools.cache(counted))
    _translate._own_table.cache_clear()
    for opset in (21, 21, 23, 21):
        so.export(nn.ReLU(), torch.ones(VECTOR), opset=opset)
    assert (21, "relu") in read
    assert (23, "relu") in read
    assert len(read) == len(set(read))


@pytest.mark.parametrize("opset", [21, 23])
def test_translations_that_are_read_one_by_one_are_those_of_the_whole_table(opset: int) -> None:
    whole = _translate._torchlib(opset).functions
    names = {str(op).partition("::")[2].partition(".")[0] for op in whole if isinstance(op, str)}
    some = sorted(names)[::10]
    for name in some:
        table = _translate._torchlib(opset, name).functions
        for op in (o for o in whole if str(o).partition("::")[2].partition(".")[0] == name):
            read, expected = (
                [(m.onnx_function, m.is_complex, m.signature) for m in functions[op]]
                for functions in (table, whole)
            )
            assert read == expected
    assert len(_translate._torchlib(opset, "relu").functions) < len(whole) / 10


def test_a_table_is_not_changed_by_an_export() -> None:
    so.export(Core(), torch.ones(VECTOR))
    own = so.ops.get_op("Cuba").torch_op
    for names in (None, ""):
        assert own.name() not in _translate._torchlib(21, names).functions


def test_another_torch_has_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter import _core

    monkeypatch.setattr(_core, "export", lambda program, table: None)
    assert _translate._export_with_table.__wrapped__() is None
