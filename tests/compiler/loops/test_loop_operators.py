"""Operators that a loop over time meets: recurrent ones, .data, writes ahead, views behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class Recurrent(nn.Module):
    """A recurrent layer of torch, and spikes in a loop behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for y in self.out(self.layer(x)[0]):
            v = 0.9 * v + y
            spikes.append((v > 0).float())
        return torch.stack(spikes)


class Cumulative(nn.Module):
    """No loop in its code, and a value of all earlier steps."""

    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.linear(x, torch.eye(6)).cumsum(0) > 0).float()


class Data(Recurrent):
    """The state begins as ``x.data``."""

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros_like(x[0].data)
        values = []
        for x_t in x:
            v = 0.5 * v + x_t
            values.append(v)
        return torch.stack(values)


class Ahead(Recurrent):
    """Adds feedback to the input of the next step, in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        spikes = []
        for t in range(len(x)):
            spikes.append((x[t] > 0.5).float())
            if t < len(x) - 1:
                x[t + 1] = x[t + 1] - 0.25 * spikes[-1]
        return torch.stack(spikes)


class Left(Recurrent):
    """Weights each step by how many are left."""

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        total: Any = 0
        for t in range(len(x)):
            v = 0.5 * v + x[t]
            total = total + (v > 0.5).float() * (len(x) - t)
        return total


class Flattened(Recurrent):
    """Folds time into the batch and unfolds it again, behind the loop."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.out = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for x_t in x:
            v = 0.5 * v + x_t
            spikes.append((v > 0.5).float())
        y = torch.stack(spikes)
        return self.out(y.flatten(0, 1).flatten(1).unflatten(0, y.shape[:2]))


def _data(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda kind=kind, more=more: Recurrent(kind(6, 8, **more))
            for kind, more in [
                (nn.RNN, {}),
                (nn.RNN, {"nonlinearity": "relu"}),
                (nn.LSTM, {"num_layers": 2}),
            ]
        ),
        Cumulative,
        lambda: Data(nn.Identity()),
        lambda: Ahead(nn.Identity()),
        lambda: Left(nn.Identity()),
    ],
    ids=["RNN", "RNN relu", "two LSTM", "cumulative", "data", "ahead", "left"],
)
def test_time_and_batch_are_open(make: Callable[[], nn.Module]) -> None:
    network = _data(make).eval()
    x = torch.randn(9, 3, 6)
    model = so.export(network, x)
    session = so.Session(model)
    for steps, batch in [(1, 2), (4, 1), (23, 5)]:
        y = torch.randn(steps, batch, 6)
        expected = network(y).detach().numpy()
        # a value of a recurrent layer goes through some products, each rounded to 2**-24
        np.testing.assert_allclose(session.run(y.numpy()), expected, rtol=0, atol=2e-5)
        assert steps < 4 or np.ptp(expected) > 0
    assert so.verify(network, model, x).ok


def test_folded_time_behind_a_loop() -> None:
    network = _data(Flattened)
    x = torch.randn(7, 3, 3, 4, 4)
    model = so.export(network, x)
    for steps, batch in [(1, 1), (5, 2)]:
        y = torch.randn(steps, batch, 3, 4, 4)
        found = so.Session(model).run(y.numpy())
        np.testing.assert_allclose(found, network(y).detach(), rtol=0, atol=1e-6)


def test_a_user_class_whose_deepcopy_fails_is_copied_by_its_attributes() -> None:
    class Stubborn(Data):
        def __deepcopy__(self, memo: Any = None) -> Any:
            raise AttributeError("another constructor")

    network = Stubborn(nn.Identity())
    x = torch.randn(5, 2, 6)
    found = so.Session(so.export(network, x)).run(x.numpy())
    np.testing.assert_array_equal(found, network(x))
