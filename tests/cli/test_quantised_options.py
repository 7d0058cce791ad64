"""--bits, --keep and --calibration of export and verify."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from calls_of_commands import bad, good, invoke, spikes
from quantized_networks import stored

NET = """
import torch
from torch import nn

import synapse_onnx as so


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(12, 40), nn.Linear(40, 5)
        self.norm = nn.BatchNorm1d(40)

    def forward(self, x):  # (T, N, 12)
        v, out = torch.zeros(x.shape[1], 40), []
        for x_t in x:
            v = 0.9 * v + self.norm(self.a(x_t))
            s = (v > 0.3).float()
            v = v - 0.3 * s
            out.append(self.b(s))
        return torch.stack(out)


def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = so.synapse.Dense(4, 3)

        def forward(self, x, y):
            return self.a(x) + self.a(y)

    return Pair()
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("quant_net.py").write_text(NET)
    np.save("x.npy", spikes(3, 12, 6))
    return tmp_path


def kinds() -> dict[str, str]:
    return {name: kind for name, (kind, _) in stored(onnx.load("q.onnx")).items()}


def test_export_and_verify_with_the_same_options(net: Path) -> None:
    options = ("--bits", "4", "--calibration", "x.npy", "--keep", "b")
    text = good(
        "export", "quant_net.py:Net", "--shape", "12", "--axes", "TNC", "-o", "q.onnx", *options
    )
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [["a", "int4"], ["b", "float"]]
    assert "norm: folded into a" in text
    assert f"q.onnx {' '.join(('--bits', '4', '--keep', 'b', '--calibration', 'x.npy'))}" in text
    found = kinds()
    assert found["a.synapse.weight"] == "INT4"
    assert "FLOAT" in found.values()
    assert "equal" in good("verify", "quant_net.py:Net", "q.onnx", *options).splitlines()[-1]
    assert invoke("verify", "quant_net.py:Net", "q.onnx").exit_code == 1
    assert invoke("verify", "quant_net.py:Net", "q.onnx", "--bits", "8").exit_code == 1


def test_what_does_not_fit_is_refused(net: Path) -> None:
    export = ("export", "quant_net.py:Net", "--shape", "12", "--axes", "TNC", "-o", "q.onnx")
    assert "belong to --bits" in bad(*export, "--keep", "a")
    good(*export)
    assert "belong to --bits" in bad("verify", "quant_net.py:Net", "q.onnx", "--keep", "a")
    Path("q.onnx").unlink()
    assert "which is none of a, b" in bad(*export, "--bits", "8", "--keep", "c")
    np.save("wrong.npy", spikes(3, 7, 6))
    text = bad(*export, "--bits", "8", "--calibration", "wrong.npy")
    assert "does not run on batch 0 of calibration" in text
    text = bad(
        "export", "quant_net.py:pair", "--shape", "4", "--shape", "4", "-o", "q.onnx",
        "--bits", "8", "--calibration", "x.npy",
    )  # fmt: skip
    assert "the network takes x, y and --calibration gives 1 arrays" in text
    assert not Path("q.onnx").exists()
