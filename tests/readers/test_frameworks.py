"""Frameworks whose live layers are converted: each is one file, found by itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lava_standins import standing_in
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers import frameworks
from synapse_onnx.readers.frameworks import all_frameworks

TOY = '''
"""A framework with a leaky neuron and a loss."""

from torch import nn

from synapse_onnx import neuron
from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks import Conversion, Framework


def _convert(conversion: Conversion, path: str, old: nn.Module) -> nn.Module | None:
    if type(old).__name__ == "Loss":
        return None
    if old.reset != "subtract":
        raise InputError(f"its reset is {old.reset}, which has no counterpart here")
    return neuron.lif.Neuron(old.threshold, beta=old.beta, reset="subtract")


FRAMEWORK = Framework(name="toy", package="toy", layers="toy.neurons.*", convert=_convert)
'''


class Leaky(nn.Module):
    """A neuron that belongs to the framework by the path of its class."""

    def __init__(self, reset: str = "subtract") -> None:
        super().__init__()
        self.threshold, self.beta, self.reset = 1.0, 0.75, reset

    def forward(self, x: Tensor) -> Tensor:
        v, steps = torch.zeros_like(x[..., 0]), []
        for t in range(x.shape[-1]):
            v = self.beta * v + x[..., t]
            steps.append((v > self.threshold).float())
            v = v - steps[-1] * self.threshold
        return torch.stack(steps, -1)


class Loss(nn.Module):
    """A module of the framework that is no layer."""


for kind in (Leaky, Loss):
    kind.__module__ = "toy.neurons"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The framework as one new file, as if it lay in the folder of the others."""
    (tmp_path / "toy_framework.py").write_text(TOY)
    monkeypatch.setattr(frameworks, "__path__", [*frameworks.__path__, str(tmp_path)])
    yield
    sys.modules.pop(f"{frameworks.__name__}.toy_framework", None)
    vars(frameworks).pop("toy_framework", None)


def test_frameworks_are_found_by_themselves(request: pytest.FixtureRequest) -> None:
    before = [framework.name for framework in all_frameworks()]
    assert "lava-dl" in before
    assert "toy" not in before
    with pytest.raises(so.InputError, match=r"no layer of lava-dl, .* in this Leaky"):
        so.convert(Leaky())
    request.getfixturevalue("toy")
    assert sorted(f.name for f in all_frameworks()) == sorted([*before, "toy"])
    with pytest.raises(so.InputError, match=r"lava-dl, .* or toy in this Linear; .*, toy\.neurons"):
        so.convert(nn.Linear(2, 2))


@pytest.mark.usefixtures("toy")
def test_layers_of_a_new_framework_become_ours() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"synapse": so.synapse.Dense(4, 3), "neuron": Leaky(), "loss": Loss()})
    net["synapse"].weight.data *= 8
    hooked: list[Any] = []
    net["neuron"].register_forward_hook(lambda module, args, output: hooked.append(module))
    converted: Any = so.convert(net.eval())
    assert isinstance(converted["neuron"], so.neuron.lif.Neuron)
    assert not converted["neuron"].training
    assert isinstance(converted["loss"], Loss)
    assert isinstance(net["neuron"], Leaky)
    x = spikes(2, 4, 30, rate=0.4)
    with torch.no_grad():
        expected = net["neuron"](net["synapse"](x))
        assert torch.equal(converted["neuron"](converted["synapse"](x)), expected)
    assert 0.05 < float(expected.mean()) < 0.95
    assert hooked == [net["neuron"], converted["neuron"]]


@pytest.mark.usefixtures("toy")
def test_what_a_framework_refuses_is_said_with_the_path() -> None:
    net = nn.Sequential(Leaky(), nn.Sequential(Leaky("zero")))
    with pytest.raises(
        so.InputError, match=r"^convert: 1\.0 cannot be converted: its reset is zero"
    ):
        so.convert(net)


@pytest.mark.usefixtures("toy")
def test_a_class_of_the_users_belongs_to_the_framework_of_its_base() -> None:
    class Named(Leaky):
        label = "named"

    assert Named.__module__ == __name__
    assert isinstance(so.convert(Named()), so.neuron.lif.Neuron)


@pytest.mark.usefixtures("toy")
def test_layers_of_two_frameworks_in_one_module() -> None:
    with standing_in() as lava:
        dense = lava["synapse.layer"].Dense(4, 3)
        converted: Any = so.convert(nn.Sequential(dense, Leaky()))
        assert isinstance(converted[0], so.synapse.Dense)
        assert isinstance(converted[1], so.neuron.lif.Neuron)


@pytest.mark.usefixtures("toy")
def test_a_part_of_a_block_that_is_of_no_framework() -> None:
    with standing_in() as lava:
        neuron = lava["neuron.cuba"].Neuron(1.0, current_decay=0.25, voltage_decay=0.05)
        synapse = lava["synapse.layer"].Dense(4, 3)
        for parts, sentence in (
            ((nn.ReLU(), synapse), "0 cannot be converted: its neuron is a ReLU, which is none of"),
            (
                (neuron, nn.Linear(4, 3)),
                r"0\.synapse is a .*Linear, which is no layer of lava-dl or",
            ),
        ):
            with pytest.raises(so.InputError, match=f"^convert: {sentence}"):
                so.convert(nn.Sequential(lava["block.cuba"].Dense(*parts)))


def test_no_framework_is_imported() -> None:
    (folder,) = frameworks.__path__
    imported = {"synapse_onnx"}
    for path in Path(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert "torch" in imported
    assert not imported & {framework.package.partition(".")[0] for framework in all_frameworks()}
