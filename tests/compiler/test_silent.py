"""What torch's exporter would write without a word: random operators, and batch statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from remembering import Stubborn
from torch import Tensor, nn
from torch.nn import functional

import synapse_onnx as so


class Rarely(nn.Module):
    """Noise that changes a spike in one of a billion calls."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1e-12 * self.draw(x) > 0.5).float()


@pytest.mark.parametrize(
    ("draw", "operator"),
    [
        (torch.rand_like, "RandomUniformLike"),
        (torch.randn_like, "RandomNormalLike"),
        (torch.bernoulli, "Bernoulli"),
    ],
)
def test_noise_that_no_run_shows(draw, operator: str) -> None:
    x = torch.tensor([[[0.25, 0.75]]]).repeat(2, 3, 2)
    message = rf"draws random numbers in module '0\.1' \(operator {operator}\); draw none"
    with pytest.raises(so.ExportError, match=message):
        so.export(nn.Sequential(nn.Sequential(nn.ReLU(), Rarely(draw))), x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.mean, self.var, training=True)


@pytest.mark.parametrize(
    ("module", "where"),
    [(Stubborn(norm=nn.BatchNorm1d(3)), "module 'norm'"), (Functional(), "the module")],
    ids=["module", "function"],
)
def test_batch_statistics_beside_running_ones_are_refused(module: nn.Module, where: str) -> None:
    with pytest.raises(so.ExportError, match=f"{where} normalises by the statistics of the batch"):
        so.export(module, torch.rand(4, 3, 6))


@pytest.mark.parametrize("tracks", [True, False])
def test_a_batch_norm_in_evaluation_mode_is_what_torch_computes(tracks: bool) -> None:
    module, x = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=tracks)), torch.rand(4, 3, 6)
    module(x)
    found = so.Session(so.export(module, x)).run(x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(found, module.eval()(x).numpy(), rtol=1e-5, atol=1e-5)
