"""Loops that leave steps out or read ahead, and outputs that are a part of all steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from looping import Looping, example
from looping_steps import Run, differences, looped
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.compiler.loops.order import Order

pytestmark = pytest.mark.usefixtures("compiled_once")


def _sliced(part: slice, *, first: bool) -> Run:
    """Loop over a part of the input, or of what a layer makes of it."""

    def run(net: Looping, x: Tensor) -> Any:
        if first:
            return looped(range, lambda _, y, t: y[t])(net, net.fc(x[part]))
        return looped(range)(net, x[part])

    return run


def _output(part: slice) -> Run:
    return lambda net, x: looped(range)(net, x)[part]


def _listed(part: slice) -> Run:
    return looped(range, end=lambda spikes, _: torch.stack(spikes[part]))


def _two_rates(net: Looping, x: Tensor) -> Tensor:
    """A second loop over every second spike of the first one."""
    v, rows = torch.zeros(x.shape[1], 4), []
    for k in looped(range)(net, x)[::2]:
        v = 0.5 * v + net.fo(k)
        rows.append(v)
    return torch.stack(rows)


def _clamped(ahead: int, *, alone: bool = False) -> Run:
    def current(net: Looping, x: Tensor, t: int) -> Tensor:
        later = x[min(t + ahead, len(x) - 1)]
        return net.fc(later) if alone else net.fc(x[t] + 2 * later)

    return looped(range, current)


#: name -> the network, and whether its neuron is recognised
RIGHT: dict[str, tuple[Run, bool]] = {
    "every second step": (looped(lambda n: range(0, n, 2)), True),
    "every third from 1 on": (looped(lambda n: range(1, n, 3)), True),
    "every fifth": (looped(lambda n: range(0, n, 5)), True),
    "every third but the last step": (looped(lambda n: range(0, n - 1, 3)), True),
    "x[::2]": (_sliced(slice(None, None, 2), first=False), True),
    "x[1::3]": (_sliced(slice(1, None, 3), first=False), True),
    "a layer on x[::2]": (_sliced(slice(None, None, 2), first=True), True),
    "a layer on x[1:]": (_sliced(slice(1, None), first=True), True),
    "x[1:]": (_sliced(slice(1, None), first=False), True),
    "x[:-1]": (_sliced(slice(None, -1), first=False), True),
    "without the first step": (looped(lambda n: range(1, n)), True),
    "without the last step": (looped(lambda n: range(n - 1)), True),
    "x[t + 1]": (looped(lambda n: range(n - 1), lambda net, x, t: net.fc(x[t + 1])), True),
    "x[t + 1] - x[t]": (
        looped(lambda n: range(n - 1), lambda net, x, t: net.fc(x[t + 1] - x[t])),
        False,
    ),
    "two at a time": (
        looped(lambda n: range(0, n - 1, 2), lambda net, x, t: net.fc(x[t] + 2 * x[t + 1])),
        False,
    ),
    "spikes[1:]": (_listed(slice(1, None)), True),
    "spikes[2:-1]": (_listed(slice(2, -1)), True),
    "spikes[::2]": (_listed(slice(None, None, 2)), True),
    "spikes[1::3]": (_listed(slice(1, None, 3)), True),
    "spikes[::5]": (_listed(slice(None, None, 5)), True),
    "output[1:]": (_output(slice(1, None)), True),
    "output[::2]": (_output(slice(None, None, 2)), True),
    "output[:-1]": (_output(slice(None, -1)), True),
    "x[::2] at half the rate": (
        looped(range, lambda net, x, t: net.fc(x[t] + x[::2][t // 2])),
        True,
    ),
    "two rates": (_two_rates, True),
    "last value of every second step": (
        looped(lambda n: range(0, n, 2), end=lambda _, voltages: voltages[-1]),
        True,
    ),
    "one step ahead": (_clamped(1), True),
    "one step ahead alone": (_clamped(1, alone=True), True),
    "two steps ahead": (_clamped(2), True),
    "a number of each step": (
        looped(lambda n: range(0, n, 2), lambda net, x, t: net.fc(x[t]) * t),
        True,
    ),
}


def _neurons(model: onnx.ModelProto) -> int:
    return sum(node.op_type.startswith("Lif") for node in model.graph.node)


@pytest.mark.parametrize("name", RIGHT)
def test_every_length_gives_what_the_network_gives(name: str) -> None:
    run, recognised = RIGHT[name]
    net, (x,) = Looping(run).eval(), example("plain")
    model = so.export(net, x)
    assert differences(net, model) == []
    assert _neurons(model) == recognised
    assert so.verify(net, model, x).verdict == "equal"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_short_example_will_do(steps: int) -> None:
    net = Looping(RIGHT["every second step"][0]).eval()
    assert differences(net, so.export(net, example("plain", steps)[0], axes="TNC")) == []


@pytest.mark.parametrize("axes", ["NTC", "NCT"])
def test_time_may_be_another_axis(axes: str) -> None:
    moved = {"NTC": (1, 0, 2), "NCT": (2, 0, 1)}[axes]

    def run(net: Looping, x: Tensor) -> Tensor:
        y = looped(lambda n: range(0, n, 4))(net, x.permute(moved))
        return y.movedim((0, 1, 2), moved)

    net, (x,) = Looping(run).eval(), example("plain", 9, 2)
    x = x.movedim((0, 1, 2), moved)
    session = so.Session(so.export(net, x))
    for steps in (1, 4, 5, 13):
        (y,) = example("plain", steps, 3)
        y = y.movedim((0, 1, 2), moved)
        with torch.no_grad():
            assert (torch.from_numpy(session.run(y.numpy())) == net(y)).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("every second step", "it leaves steps out, which give no output"),
        ("without the first step", "it leaves steps out, which give no output"),
        ("spikes[1:]", "it leaves steps out, which give no output"),
        ("spikes[::2]", "it leaves steps out, which give no output"),
        ("x[t + 1] - x[t]", "it leaves steps out, which give no output"),
        ("output[1:]", "in chunks, output 0 is not that of the whole sequence"),
        ("one step ahead", "a step reads inputs of later steps"),
        ("one step ahead alone", "a step reads inputs of later steps"),
    ],
)
def test_what_leaves_steps_out_or_reads_ahead_cannot_stream(name: str, reason: str) -> None:
    with pytest.raises(so.ExportError, match=f"streaming: {reason}"):
        so.export(Looping(RIGHT[name][0]).eval(), example("plain")[0], streaming=True)


def _special(step: int) -> Run:
    """A loop of every second step that is special at one of them."""
    return looped(
        lambda n: range(0, n, 2), lambda net, x, t: net.fc(x[t]) * (0 if t == step else 1)
    )


#: near misses, and why each is refused
REFUSED: dict[str, tuple[Run, str]] = {
    "a step that is special": (_special(8), "a number is 1, 0, which neither"),
    "a late step that is special": (_special(20), "with 24 steps of 6 samples it computes"),
    "half of the steps": (
        looped(lambda n: range(n // 2)),
        "the number of values that are stacked is not the number of steps",
    ),
    "the step before, and at first the last one": (
        looped(range, lambda net, x, t: net.fc(x[t] + 2 * x[t - 1])),
        "is computed in another way than the later ones",
    ),
    "steps that are further and further apart": (
        looped(lambda n: [t * t for t in range(n) if t * t < n]),
        "with 24 steps of 6 samples it computes",
    ),
    "a square of T": (
        looped(lambda n: range(0, n, 2), lambda net, x, t: net.fc(x[t]) / len(x) ** 2),
        "which neither a \\+ b T",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_stride_is_refused(name: str) -> None:
    run, reason = REFUSED[name]
    with pytest.raises(so.ExportError, match=f"its steps have no common form.*{reason}"):
        so.export(Looping(run).eval(), example("plain")[0])


def test_a_delay_leaves_nothing_out() -> None:
    """The last value reads no later input than x[T - 3], and yet there is one for one step."""

    def run(net: Looping, x: Tensor) -> Tensor:
        waiting = [torch.zeros(x.shape[1], 7) for _ in range(2)]
        v = torch.zeros(x.shape[1], 11)
        for x_t in x:
            waiting.append(x_t)
            v = 0.5 * v + net.fc(waiting.pop(0))
        return v

    net = Looping(run).eval()
    session = so.Session(so.export(net, example("plain", 12, 3)[0]))
    for steps in (1, 2, 3, 4, 7, 20):
        (x,) = example("plain", steps)
        np.testing.assert_array_equal(session.run(x.numpy()), net(x).detach().numpy())


def test_a_sequence_without_a_step_for_the_loop_is_an_error() -> None:
    net = Looping(looped(lambda n: range(1, n), end=lambda _, v: v[-1] if v else torch.zeros(1)))
    session = so.Session(so.export(net.eval(), example("plain")[0]))
    with pytest.raises(so.SynapseError):
        session.run(example("plain", 1)[0].numpy())


@pytest.mark.parametrize(
    "order", [Order(), Order(start=1), Order(stride=3), Order(start=2, stride=4, left_out=1)]
)
def test_an_order_takes_the_steps_of_a_slice(order: Order) -> None:
    for length in range(1, 30):
        start, end, stride = order.part
        taken = list(range(length))[start:end:stride]
        assert order.count(length) == len(taken)
        found = {index: order.taken(index, length) for index in range(length)}
        assert {i: step for i, step in found.items() if step is not None} == {
            index: step for step, index in enumerate(taken)
        }
    for count in range(1, 6):
        lengths = {order.length(count, residue) for residue in range(order.stride)}
        assert lengths == {n for n in range(60) if order.count(n) == count}


def test_a_number_that_is_divided_by_0_at_one_step_is_refused() -> None:
    """The network divides by 1 there, which its traces of more steps do not show."""
    run = looped(range, lambda net, x, t: net.fc(x[t]) * (t / max(len(x) - 1, 1)))
    with pytest.raises(so.ExportError, match="with 1 steps a number of a step is divided by 0"):
        so.export(Looping(run).eval(), example("plain")[0])


def test_a_delay_before_a_loop_that_leaves_steps_out() -> None:
    """A longer trace says what a step reads that a shorter one does not have."""

    def run(net: Looping, x: Tensor) -> Tensor:
        y = torch.nn.functional.pad(net.fc(x), (0, 0, 0, 0, 4, 0))[: len(x)]
        v, out = torch.zeros(x.shape[1], 11), []
        for t in range(1, len(x), 2):
            if t % 3 == 2:
                v = v * 0.5
            v = v + y[t]
            out.append(v)
        return torch.stack(out)

    net = Looping(run).eval()
    session = so.Session(so.export(net, example("plain", 4, 3)[0]))
    for steps in (2, 3, 4, 5, 6, 7, 11, 12, 13, 24, 37):
        (x,) = example("plain", steps)
        np.testing.assert_array_equal(session.run(x.numpy()), net(x).detach().numpy())
