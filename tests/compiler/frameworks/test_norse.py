"""Norse: what its networks return and take besides tensors."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class Stateful(nn.Module):
    """As SequentialState: (output, [None, state]), a state that may be given, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.leak, self.linear = torch.tensor(0.0), nn.Linear(6, 8)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, list[Tensor | None]]:
        x = self.linear(x)
        v = torch.full(x.shape[1:], self.leak.to("cpu", torch.float32).detach())
        out = []
        for x_t in x:
            v = 0.9 * v + x_t
            out.append((v >= 0.5).float())
        return torch.stack(out), [None, v]


def _is_right(network: nn.Module) -> None:
    x = torch.rand(7, 3, 6)
    model = so.export(network.eval(), x)
    report = so.verify(network, model, x)
    assert report.ok, str(report)


def test_none_among_the_outputs() -> None:
    torch.manual_seed(0)
    _is_right(Stateful())


@pytest.mark.slow
def test_a_sequential_state_as_it_is() -> None:
    with warnings.catch_warnings(action="ignore"):
        norse = pytest.importorskip("norse.torch", reason="norse is not installed: see peers.txt")
    torch.manual_seed(0)
    _is_right(norse.SequentialState(nn.Linear(6, 12), norse.LIF(), nn.Linear(12, 4), norse.LI()))


class Ragged(nn.Module):
    """Returns the samples that spike most, beside a loop over time."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x[0])
        for x_t in x:
            total = 0.9 * total + x_t
        return total[total.sum(1) > 3]


def test_a_size_that_depends_on_values_is_refused_in_a_sentence() -> None:
    with pytest.raises(so.ExportError, match="branch or size depends on the values of a tensor"):
        so.export(Ragged(), torch.rand(7, 3, 6))


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = (0.9 * v + x_t).clamp(0, 4.0)
            out.append(v)
        return torch.stack(out)


def test_a_clamp_with_a_whole_and_a_broken_bound() -> None:
    _is_right(Clamped())
