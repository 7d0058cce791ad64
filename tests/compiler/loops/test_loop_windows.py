"""Products with a matrix of T x T whose rows are windows of weights: SpikingJelly's SlidingPSN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class Sliding(nn.Module):
    """Sums of the last k inputs, and spikes of them; (T, N, 6) -> (T, N, 8)."""

    def __init__(self, k: int, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.k, self.product = k, product
        self.fc = nn.Linear(6, 8)
        self.weight = nn.Parameter(torch.linspace(-0.5, 1.0, k))
        self.bias = nn.Parameter(torch.tensor(-0.25))

    def matrix(self, steps: int) -> Tensor:
        m = torch.zeros(steps, steps)
        for t in range(steps):
            first = max(0, t + 1 - self.k)
            m[t][first : t + 1] = self.weight[self.k - (t + 1 - first) :]
        return m

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(x)
        h = self.product(self.matrix(len(x)), y, self.bias)
        return h, (h > 0).float()


def _addmm(m: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, m, y.flatten(1)).view(y.shape)


def _matmul(m: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    return (m @ y.flatten(1)).view(y.shape) + bias


def _mm(m: Tensor, y: Tensor, _: Tensor) -> Tensor:
    return m.mm(y.reshape(len(y), -1) * 2).reshape(y.shape)


X = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(0)) - 0.5


def _check(network: nn.Module) -> None:
    network.eval()
    model = so.export(network, X)
    assert so.verify(network, model, X).ok
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims[:2]] == ["T", "N"]
    session = so.Session(model)
    for steps, batch in ((1, 1), (2, 5), (40, 2)):
        x = torch.rand(steps, batch, 6, generator=torch.Generator().manual_seed(steps)) - 0.5
        with torch.no_grad():
            expected = network(x)[0].numpy()
        np.testing.assert_allclose(session.run(x.numpy())[0], expected, atol=1e-6)


@pytest.mark.parametrize(("k", "product"), [(1, _addmm), (3, _matmul), (7, _mm), (7, _addmm)])
def test_it_is_a_sum_over_the_last_steps(
    k: int, product: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    _check(Sliding(k, product))


def test_it_streams() -> None:
    torch.manual_seed(0)
    network = Sliding(3, _addmm).eval()
    model = so.export(network, X, streaming=True)
    assert so.verify(network, model, X).ok


class _Late(Sliding):
    """A window that ends two steps before its own."""

    def matrix(self, steps: int) -> Tensor:
        m = torch.zeros(steps, steps)
        for t in range(2, steps):
            first = max(0, t - 1 - self.k)
            m[t, first : t - 1] = self.weight[self.k - (t - 1 - first) :]
        return m


class _Future(Sliding):
    """A window that ends a step after its own."""

    def matrix(self, steps: int) -> Tensor:
        return super().matrix(steps).T


class _Other(Sliding):
    """Step 6 has other weights."""

    def matrix(self, steps: int) -> Tensor:
        m = super().matrix(steps)
        if steps > 6:
            m[6, 4:7] = self.weight.flip(0)
        return m


class _Growing(Sliding):
    """All steps so far."""

    def matrix(self, steps: int) -> Tensor:
        m = torch.zeros(steps, steps)
        for t in range(steps):
            m[t, : t + 1] = 1 / self.weight.abs().sum()
        return m


class _Above(Sliding):
    """Nothing is zero around the windows."""

    def matrix(self, steps: int) -> Tensor:
        m = torch.ones(steps, steps)
        for t in range(steps):
            first = max(0, t + 1 - self.k)
            m[t, first : t + 1] = self.weight[self.k - (t + 1 - first) :]
        return m


@pytest.mark.parametrize("kind", [_Late, _Future, _Other, _Growing, _Above])
def test_other_matrices_are_refused(kind: type[Sliding]) -> None:
    torch.manual_seed(0)
    with pytest.raises(so.ExportError, match="no common form"):
        so.export(kind(3, _addmm).eval(), X)


def test_a_product_for_each_sample_is_another_one() -> None:
    """(T, T) @ (T, N, 8) takes the samples for steps, so it runs where N is T alone."""

    def product(m: Tensor, y: Tensor, bias: Tensor) -> Tensor:
        return torch.matmul(m, y.expand(len(y), len(y), 8)) + bias

    torch.manual_seed(0)
    with pytest.raises(so.ExportError):
        so.export(Sliding(3, product).eval(), X[:, :1])


def test_a_bias_for_each_step_is_no_window() -> None:
    def product(m: Tensor, y: Tensor, bias: Tensor) -> Tensor:
        steps = torch.arange(len(y)).float()[:, None]
        return torch.addmm(bias * steps, m, y.flatten(1)).view(y.shape)

    torch.manual_seed(0)
    with pytest.raises(so.ExportError, match="no common form"):
        so.export(Sliding(3, product).eval(), X)
