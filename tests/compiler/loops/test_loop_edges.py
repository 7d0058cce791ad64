"""Loops with numbers of steps, buffers and values at an edge: right, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from looping import Looping, example
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

#: what a step computes of its current and its number
STEPS: dict[str, tuple[Callable[[Tensor, int], Tensor], str]] = {
    "a power": (lambda x, t: x.abs() ** (t + 1), r"pow\.Tensor_Scalar takes a number that changes"),
    "a roll": (lambda x, t: x.roll(t, 1), r"roll\.default takes a number that changes"),
}


def _written(net: Looping, x: Tensor) -> Tensor:
    """Buffers that hold the start, and then what every step computes."""
    buffer = torch.zeros(len(x) + 1, x.shape[1], 11)
    for t in range(len(x)):
        buffer[t + 1] = 0.5 * buffer[t] + net.fc(x[t])
    return buffer


def test_a_buffer_is_read_behind_its_start() -> None:
    net, (x,) = Looping(lambda net, x: _written(net, x)[1:]).eval(), example("plain")
    session = so.Session(so.export(net, x))
    for steps in (1, 4, 13):
        (x,) = example("plain", steps, 3)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(session.run(x.numpy())), net(x))


def test_a_buffer_with_its_start_is_refused() -> None:
    with pytest.raises(so.ExportError, match=r"select_scatter\.default takes a number that chang"):
        so.export(Looping(_written).eval(), example("plain")[0])


@pytest.mark.parametrize("name", STEPS)
def test_operators_that_take_no_tensor_are_named(name: str) -> None:
    step, reason = STEPS[name]

    def run(net: Looping, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 11), []
        for t in range(len(x)):
            v = 0.5 * v + step(net.fc(x[t]), t)
            out.append(v)
        return torch.stack(out)

    with pytest.raises(so.ExportError, match=rf"aten\.{reason}"):
        so.export(Looping(run).eval(), example("plain")[0])


def test_an_operator_that_takes_no_number_of_steps_is_refused() -> None:
    def run(net: Looping, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 11), []
        for x_t in x:
            v = 0.5 * v + nn.functional.elu(v + net.fc(x_t), 0.5 * len(x))
            out.append(v)
        return torch.stack(out)

    with pytest.raises(so.ExportError, match="does not take what changes with the step or the num"):
        so.export(Looping(run).eval(), example("plain")[0])


class _Late(nn.Module):
    """A state that is a number until a late step, which the longest trace alone has: 8 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        kept: Any = 0.0
        v: Any = 0.0
        out = []
        for t in range(len(x)):
            v = 0.9 * v + self.fc(x[t])
            kept = v if t > 5 else kept
            out.append(v + kept)
        return torch.stack(out)


def test_a_state_that_is_a_number_until_a_late_step_is_refused() -> None:
    with pytest.raises(so.ExportError, match="is a number at one step and a tensor at another"):
        so.export(_Late().eval(), torch.rand(5, 2, 4))


class _Static(nn.Module):
    """A product over the steps of a static image, which overflows in longer loops."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 6

    def forward(self, x: Tensor) -> Tensor:
        y = torch.ones_like(x)
        for _ in range(self.steps):
            y = y * (1 + x * 1000) * (1 - x * 1000)
            y = y - y.abs() * 0.5
        return y


def test_values_that_overflow_in_longer_loops_are_no_error() -> None:
    net, x = _Static(), torch.rand(2, 4)
    assert so.verify(net, so.export(net, x), x).ok


@pytest.mark.parametrize("reset", [0.0, -0.25])
def test_a_neuron_that_keeps_nothing(reset: float) -> None:
    def run(net: Looping, x: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, voltages = torch.zeros(x.shape[1], 11), [], []
        for x_t in x:
            v = 0.0 * v + net.fc(x_t)
            k = (v >= 0.1).float()
            v = torch.where(k > 0, torch.full_like(v, reset), v)
            spikes.append(k)
            voltages.append(v)
        return torch.stack(spikes), torch.stack(voltages)

    net, (x,) = Looping(run).eval(), example("plain")
    model = so.export(net, x)
    assert any(node.op_type.startswith("Lif") for node in model.graph.node)
    assert so.verify(net, model, x).ok


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_cells_of_torch_run_step_by_step(kind: Any) -> None:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = kind(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.cells(x)[0]

    net, x = Cells().eval(), torch.rand(5, 2, 4)
    session = so.Session(so.export(net, x))
    for steps in (1, 9):
        x = torch.rand(steps, 3, 4)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(session.run(x.numpy())), net(x))
