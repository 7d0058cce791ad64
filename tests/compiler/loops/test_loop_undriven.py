"""States that no input drives, and outputs that lag behind the last step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from looping import Looping, example
from torch import Tensor

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

Run = Callable[[Looping, Tensor], Any]

(X,) = example("plain")


def _threshold(net: Looping, x: Tensor) -> Tensor:
    """A threshold that decays by itself, and starts as another number than it decays to."""
    v, theta, out = torch.zeros(x.shape[1], 11), torch.full((x.shape[1], 11), 2.0), []
    for x_t in x:
        theta = 0.5 * theta + net.beta + 0.25
        v = 0.5 * v + net.fc(x_t)
        k = (v > theta).float()
        v = v - k
        out.append(k)
    return torch.stack(out)


def _read_late(net: Looping, x: Tensor) -> Tensor:
    """A state that is read before it changes."""
    v, theta, out = torch.zeros(x.shape[1], 11), torch.ones(x.shape[1], 11), []
    for x_t in x:
        v = 0.5 * v + theta * net.fc(x_t)
        theta = theta * 0.5
        out.append(v)
    return torch.stack(out)


def _of_no_input(net: Looping, x: Tensor) -> tuple[Tensor, Tensor]:
    """An oscillator, which takes the sizes of its input alone."""
    a, b, out = torch.zeros(x.shape[1], 11), torch.ones(x.shape[1], 11), []
    for _ in x:
        a, b = 0.75 * a + 0.5 * b + net.beta, 0.75 * b - 0.5 * a
        out.append((a > 0.25).float())
    return torch.stack(out), b


@pytest.mark.parametrize("run", [_threshold, _read_late, _of_no_input])
def test_a_state_that_no_input_drives_is_one(run: Run) -> None:
    network = Looping(run).eval()
    for streaming in (False, True):
        model = so.export(network, X, streaming=streaming)
        assert so.verify(network, model, X).ok
        assert [n.op_type for n in model.graph.node].count("Scan") > 0
        dims = model.graph.input[0].type.tensor_type.shape.dim
        assert [d.dim_param for d in dims[:2]] == ["T", "N"]


def _late(net: Looping, x: Tensor) -> tuple[Tensor, Tensor]:
    """An adaptation that takes spikes of a voltage from before the input, as Norse's LSNN."""
    v, i = torch.zeros(x.shape[1], 11), torch.zeros(x.shape[1], 11)
    b, out = torch.full((x.shape[1], 11), 0.5), []
    for x_t in x:
        v = 0.5 * v + i
        k = (v > b).float()
        v, b = v - k, 0.5 * b + k + 0.25
        i = 0.5 * i + net.fc(x_t)
        out.append(k)
    return torch.stack(out), b


def _two_late(net: Looping, x: Tensor) -> tuple[Tensor, Tensor]:
    v, i, j = (torch.zeros(x.shape[1], 11) for _ in range(3))
    out = []
    for x_t in x:
        v = 0.5 * v + j + 1
        j = i
        i = net.fc(x_t)
        out.append(j)
    return torch.stack(out), v


@pytest.mark.parametrize("run", [_late, _two_late])
def test_an_output_that_lags_behind_is_what_short_sequences_give(run: Run) -> None:
    network = Looping(run).eval()
    for streaming in (False, True):
        model = so.export(network, X, streaming=streaming)
        assert so.verify(network, model, X).ok
    session = so.Session(so.export(network, X))
    for steps in (1, 2, 3, 40):
        (x,) = example("plain", steps, 3)
        with torch.no_grad():
            expected = network(x)
        for y, other in zip(session.run(x.numpy()), expected, strict=True):
            assert torch.equal(torch.from_numpy(y), other), steps


def _special(net: Looping, x: Tensor, special: int = 7) -> Tensor:
    """The state that no input drives changes in another way at one step."""
    v, theta, out = torch.zeros(x.shape[1], 11), torch.full((11,), 2.0), []
    for t, x_t in enumerate(x):
        theta = theta + 1 if t == special else 0.5 * theta
        v = 0.5 * v + net.fc(x_t) + theta
        out.append(v)
    return torch.stack(out)


def _special_late(net: Looping, x: Tensor) -> Tensor:
    return _special(net, x, 20)


def _of_the_length(net: Looping, x: Tensor) -> Tensor:
    """The state starts from another number where T is another."""
    theta, out = torch.full((11,), float(2 ** -len(x))), []
    for x_t in x:
        theta = theta * 2
        out.append(net.fc(x_t) + theta)
    return torch.stack(out)


def _of_each_step(net: Looping, x: Tensor) -> Tensor:
    """A parameter of each step is no state."""
    rows, out = net.rec.weight.repeat(10, 1), []
    for t, x_t in enumerate(x):
        out.append(net.fc(x_t) + rows[t])
    return torch.stack(out)


@pytest.mark.parametrize("run", [_special, _special_late, _of_the_length, _of_each_step])
def test_other_changes_are_refused(run: Run) -> None:
    with pytest.raises(so.ExportError, match=r"no common form at line \d+ of|no common form: with"):
        so.export(Looping(run).eval(), X)
