"""Networks with a loop in each direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from looping import Looping, example, spike
from torch import Tensor

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

Run = Callable[[Looping, Tensor], Any]

(X,) = example("plain")


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], 11)


def _flipped(net: Looping, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As SpikingJelly has it; the last state of each loop is read, too."""
    v, w, forth, back = _zeros(x), _zeros(x), [], []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]))
        s, w = spike(w, net.fc(x[len(x) - 1 - t]), 0.25)  # the same synapse
        forth.append(k)
        back.append(s)
    return torch.cat((torch.stack(forth), torch.stack(back).flip(0)), -1), v, w


def _two_loops(net: Looping, x: Tensor) -> Tensor:
    """A list that grows at its start."""
    v, forth = _zeros(x), []
    for x_t in x:
        _, v = spike(v, net.fc(x_t))
        forth.append(v)
    w, back = _zeros(x), []
    for t in reversed(range(len(x))):
        w = 0.5 * w + net.fc(x[t])
        back.insert(0, w)
    return torch.stack(forth) - torch.stack(back)


def _written(net: Looping, x: Tensor) -> Tensor:
    """Both write into one buffer for each."""
    out, back = torch.zeros(len(x), x.shape[1], 11), torch.zeros(len(x), x.shape[1], 11)
    v, w = _zeros(x), _zeros(x)
    for t in range(len(x)):
        v = 0.5 * v + net.fc(x[t])
        out[t] = v
        w = 0.25 * w + net.fc(x[-1 - t])
        back[-1 - t] = w
    return out * back


def _two_layers(net: Looping, x: Tensor) -> Tensor:
    """The second layer reads both directions of the first, in both directions."""
    y = net.fc(x)
    for decay in (0.5, 0.25):
        v, w, forth, back = _zeros(x), _zeros(x), [], []
        for t in range(len(y)):
            _, v = spike(v, y[t], decay)
            _, w = spike(w, y[len(y) - 1 - t], decay)
            forth.append(v)
            back.append(w)
        y = torch.stack(forth) + torch.stack(back[::-1])
    return y


def _delayed(net: Looping, x: Tensor) -> Tensor:
    """The backward loop reads its spike of the step before."""
    v, w, k, forth, back = _zeros(x), _zeros(x), _zeros(x), [], []
    for t in range(len(x)):
        v = 0.5 * v + net.fc(x[t])
        w = 0.5 * w + net.fc(x[len(x) - 1 - t]) - k
        k = (w > 1).float()
        forth.append(v)
        back.append(k)
    return torch.stack(forth) + torch.stack(back).flip(0)


RIGHT = [_flipped, _two_loops, _written, _two_layers, _delayed]


@pytest.mark.parametrize("run", RIGHT)
def test_each_loop_has_its_order(run: Run) -> None:
    network = Looping(run).eval()
    model = so.export(network, X)
    assert so.verify(network, model, X).ok
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims[:2]] == ["T", "N"]
    session = so.Session(model)
    for steps, batch in ((1, 1), (2, 3), (30, 2)):
        (x,) = example("plain", steps, batch)
        with torch.no_grad():
            expected = network(x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(x.numpy())
        for one, other in zip(found if len(expected) > 1 else (found,), expected, strict=True):
            assert torch.equal(torch.from_numpy(one), other)
    with pytest.raises(so.ExportError, match="streaming"):
        so.export(network, X, streaming=True)


def _special(net: Looping, x: Tensor) -> Tensor:
    """Step 7 of the backward loop is another one."""
    v, w, forth, back = _zeros(x), _zeros(x), [], []
    for t in range(len(x)):
        v = 0.5 * v + net.fc(x[t])
        w = (0.25 if t == 7 else 0.5) * w + net.fc(x[len(x) - 1 - t])
        forth.append(v)
        back.append(w)
    return torch.stack(forth) + torch.stack(back).flip(0)


def _crossed(net: Looping, x: Tensor) -> Tensor:
    """Each step reads the same step of both directions, so there is no order."""
    v, w, out = _zeros(x), _zeros(x), []
    for t in range(len(x)):
        v, w = 0.5 * v + net.fc(x[t]) + w, 0.5 * w + net.fc(x[len(x) - 1 - t]) + v
        out.append(v)
    return torch.stack(out)


def _from_the_middle(net: Looping, x: Tensor) -> Tensor:
    v, w, forth, back = _zeros(x), _zeros(x), [], []
    for t in range(len(x)):
        v = 0.5 * v + net.fc(x[t])
        w = 0.5 * w + net.fc(x[(len(x) // 2 - t) % len(x)])
        forth.append(v)
        back.append(w)
    return torch.stack(forth) + torch.stack(back).flip(0)


@pytest.mark.parametrize("run", [_special, _crossed, _from_the_middle])
def test_other_orders_are_refused(run: Run) -> None:
    with pytest.raises(so.ExportError, match="no common form"):
        so.export(Looping(run).eval(), X)
