"""``verify`` and the command line copy a network as ``export`` does: without autograd's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.cli import main

X = spikes(2, 6, 5)


class Computed(nn.Module):
    """Holds a tensor that autograd computed, as a forward pass leaves one behind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = so.synapse.Dense(6, 4)
        self.gain = self.dense.weight.sum() * 0 + 2
        assert not self.gain.is_leaf

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x) * self.gain.detach()


class Counting(nn.Module):
    """A reference that holds such a tensor, and a state that only a fresh copy forgets."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner: Any = [network]
        self.calls = 0
        self.kept = nn.Parameter(torch.ones(1)) * 2

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner[0](x) * self.calls


def test_verify_of_a_network_with_a_computed_tensor() -> None:
    net = Computed()
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def test_a_reference_with_a_computed_tensor_runs_on_fresh_copies() -> None:
    net = Computed()
    model = so.export(net, X)
    plain = nn.Linear(4, 4)
    reference = Counting(plain)
    reference.inner[0] = net.forward  # a bound method: no layer that verify would look into
    report = so.verify(reference, model, X)
    assert report.ok, str(report)
    assert reference.calls == 0


@pytest.mark.parametrize("command", ["export", "verify"])
def test_the_command_line_takes_such_a_network(command: str, tmp_path: Path) -> None:
    source = tmp_path / "computed_net.py"
    source.write_text(
        "import synapse_onnx as so\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.dense = so.synapse.Dense(6, 4)\n"
        "        self.dense.weight.data.fill_(0.5)\n"
        "        self.gain = self.dense.weight.sum() * 0 + 2\n"
        "    def forward(self, x):\n"
        "        return self.dense(x) * self.gain.detach()\n"
    )
    target = str(tmp_path / "net.onnx")
    result = CliRunner().invoke(
        main, ["export", f"{source}:Net", "--shape", "6", "-o", target], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    if command == "verify":
        result = CliRunner().invoke(main, ["verify", f"{source}:Net", target])
        assert result.exit_code == 0, result.output
