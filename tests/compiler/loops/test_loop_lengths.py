"""Networks that hold their number of steps, or take one alone: one step in the file, N open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.counting import count_operators
from synapse_onnx.compiler.lengths import held_lengths

pytestmark = pytest.mark.usefixtures("compiled_once")

num_steps = 9


class Rates(nn.Module):
    """Shows a static image as often as an attribute says."""

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 11), nn.Linear(11, 4)
        self.steps, self.width = steps, 11

    def step(self, x: Tensor, v: Any) -> tuple[Tensor, Tensor]:
        v = 0.75 * v + self.fc(x)
        spikes = (v > 1).float()
        return spikes, v - spikes

    def forward(self, x: Tensor) -> Any:
        v: Any = torch.zeros(x.shape[0], self.width)
        total: Any = 0
        spikes = []
        for _ in range(self.steps):
            s, v = self.step(x, v)
            total = total + self.out(s)
            spikes.append(s)
        return torch.stack(spikes), total / self.steps


class Global(Rates):
    """The steps are a global name."""

    def forward(self, x: Tensor) -> Tensor:
        v: Any = None
        spikes = []
        for _ in range(num_steps):
            s, v = self.step(x, 0 if v is None else v)
            spikes.append(s)
        return torch.stack(spikes, dim=1)


class Default(Rates):
    """The steps are a default of forward()."""

    def forward(self, x: Tensor, steps: int = 7) -> Tensor:
        v: Any = 0
        total: Any = 0
        for _ in range(steps):
            s, v = self.step(x, v)
            total = total + s
        return total


class Repeated(Rates):
    """Makes a sequence of the image, and loops over that."""

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for x_t in x.unsqueeze(0).repeat(self.steps, 1, 1):
            s, v = self.step(x_t, v)
            spikes.append(s)
        return torch.stack(spikes).mean(0)


class Within(nn.Module):
    """The steps are an attribute of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Unfolded(), Unfolded()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class Unfolded(Rates):
    """Takes (N T, C), as layers do whose constructor gets the number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for x_t in x.reshape(-1, self.steps, 6).unbind(1):
            s, v = self.step(x_t, v)
            spikes.append(s)
        return torch.stack(spikes, 1).flatten(0, 1)


class Layers(Rates):
    """Not a loop over time: layers, all of them alike."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        for _ in range(self.steps):
            y = torch.tanh(y)
        return self.out(y)


def _image(batch: int) -> Tensor:
    torch.manual_seed(batch)
    return 4 * torch.rand(batch, 6)


def _made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


def _shapes(model: onnx.ModelProto) -> list[list[str | int]]:
    return [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    ]


@pytest.mark.parametrize("kind", [Rates, Global, Default, Repeated, Layers])
def test_a_static_image_is_shown_in_a_loop(kind: type[nn.Module]) -> None:
    network = _made(kind)
    model = so.export(network, _image(3))
    assert any(node.op_type in ("Scan", "LifSubtractFloat") for node in model.graph.node)
    session = so.Session(model)
    for batch in (1, 2, 5):
        found, expected = session.run(_image(batch).numpy()), network(_image(batch))
        found = found if isinstance(found, tuple) else (found,)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(found, expected, strict=True):
            # sums over layers and steps, in another order: some roundings of 2**-24
            np.testing.assert_allclose(one, other.detach().numpy(), rtol=0, atol=1e-6)
            assert np.ptp(one) > 0
    assert so.verify(network, model, _image(3)).ok


def test_nodes_do_not_grow_with_steps() -> None:
    few, many = (so.export(_made(lambda n=n: Rates(n)), _image(3)) for n in (8, 60))
    assert len(few.graph.node) == len(many.graph.node) < 40
    assert _shapes(many) == [[60, "N", 11], ["N", 4]]


def test_an_image_has_no_stream() -> None:
    with pytest.raises(so.errors.ExportError, match="the network holds the number of steps"):
        so.export(_made(Rates), _image(2), streaming=True)


def test_steps_that_parts_hold_alike_are_one_number() -> None:
    network = _made(Within)
    x = 4 * torch.rand(3, 8, 6)
    model = so.export(network, x)
    assert _shapes(model) == [["N", 8, 6]]
    assert so.model.metadata.Metadata.read(model).axes == "NTC"
    assert so.verify(network, model, x).ok
    np.testing.assert_array_equal(so.Session(model).run(x[:1].numpy()), network(x[:1]).detach())


def test_candidates_are_what_lets_operators_grow() -> None:
    network = _made(Rates)
    lengths = held_lengths(network, lambda _: [_image(2)])
    assert [(each.paths, each.name, each.value) for each in lengths] == [(("",), "steps", 8)]
    (length,) = lengths
    counts = [count_operators(length.given(network, n), [_image(2)]) or 0 for n in (2, 3, 4)]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    assert network.steps == 8  # the copy has another number


class PerStep(nn.Module):
    """A matrix of T x T mixes the steps, and a threshold belongs to each."""

    def __init__(self, steps: int = 9) -> None:
        super().__init__()
        self.fc, self.mix = nn.Linear(6, 8), nn.Linear(steps, steps, bias=False)
        self.threshold = nn.Parameter(torch.rand(steps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.fc(x).movedim(0, -1)).movedim(-1, 0)
        return (mixed > self.threshold - 0.5).float()


class Rows(Rates):
    """A loop whose threshold has a value for every step."""

    def __init__(self) -> None:
        super().__init__(9)
        self.threshold = nn.Parameter(torch.rand(9))

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for t, x_t in enumerate(x):
            v = 0.75 * v + self.fc(x_t)
            s = (v > self.threshold[t]).float()
            v = v - s
            spikes.append(s)
        return torch.stack(spikes)


@pytest.mark.parametrize("kind", [PerStep, Rows])
def test_parameters_of_every_step_fix_time_alone(kind: type[nn.Module]) -> None:
    network = _made(kind)
    x = 2 * torch.randn(9, 3, 6)
    model = so.export(network, x)
    assert _shapes(model)[0][:2] == [9, "N"]
    notes = so.model.metadata.Metadata.read(model).notes
    assert "forward() takes one number of time steps alone, so T is fixed in the file" in notes
    for batch in (1, 4):
        y = 2 * torch.randn(9, batch, 6)
        np.testing.assert_array_equal(so.Session(model).run(y.numpy()), network(y).detach())
    assert so.verify(network, model, x).ok
