"""Steps that differ by the remainder of their number, as in ``if t % 2 == 0``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from loop_forms import families_of, form_of
from looping import Looping, example, spike
from looping_steps import Run, differences, in_chunks, looped
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.loops.form import Family, Phases, Stack
from synapse_onnx.compiler.loops.phases import period_of
from synapse_onnx.compiler.loops.terms import Pool, Size, Term
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.usefixtures("compiled_once")

When = Callable[[int], bool]


def _layer(when: When, *, end: str = "all") -> Run:
    """A second layer in some of the steps; its output is kept, counted, or is the last one."""

    def run(net: Looping, x: Tensor) -> Any:
        v1, v2 = torch.zeros(x.shape[1], 11), torch.zeros(x.shape[1], 4)
        k2, count, rows = v2, v2, []
        for t in range(len(x)):
            k1, v1 = spike(v1, net.fc(x[t]))
            if when(t):
                k2, v2 = spike(v2, net.fo(k1))
                count = count + k2
            rows.append(k2)
        return count if end == "count" else torch.stack(rows)

    return run


def _reset(when: When, to: Callable[[Tensor], Any]) -> Run:
    def run(net: Looping, x: Tensor) -> Any:
        v, rows = torch.zeros(x.shape[1], 11), []
        for t in range(len(x)):
            if t and when(t):
                v = to(v)
            k, v = spike(v, net.fc(x[t]))
            rows.append(k)
        return torch.stack(rows)

    return run


def _weights(net: Looping, x: Tensor) -> Any:
    v, rows = torch.zeros(x.shape[1], 11), []
    for t in range(len(x)):
        weight = net.fc.weight if t % 2 == 0 else -net.fc.weight
        k, v = spike(v, nn.functional.linear(x[t], weight))
        rows.append(k)
    return torch.stack(rows)


def _pooled(width: int, *, all_steps: bool) -> Run:
    """A layer takes the sum of some steps; its spikes are returned, or kept until the next one."""

    def run(net: Looping, x: Tensor) -> Any:
        total, v, k, rows = torch.zeros(x.shape[1], 7), torch.zeros(x.shape[1], 11), None, []
        for t in range(len(x)):
            total = total + x[t]
            if t % width == width - 1:
                k, v = spike(v, net.fc(total))
                total = torch.zeros_like(total)
                if not all_steps:
                    rows.append(k)
            if all_steps:
                rows.append(v)
        return torch.stack(rows)

    return run


#: name -> the network, and whether chunks of a stream give the whole
RIGHT: dict[str, tuple[Run, bool]] = {
    "a layer in every second step": (_layer(lambda t: t % 2 == 0), True),
    "a layer in odd steps": (_layer(lambda t: t % 2 == 1), True),
    "a layer in every third step": (_layer(lambda t: t % 3 == 1), True),
    "a layer in every tenth step": (_layer(lambda t: t % 10 == 0), True),
    "a layer but in every third step": (_layer(lambda t: t % 3 != 0), True),
    "three steps with and three without": (_layer(lambda t: t // 3 % 2 == 0), True),
    "two periods at once": (_layer(lambda t: t % 2 == 0 or t % 3 == 0), True),
    "a count of every second step": (_layer(lambda t: t % 2 == 0, end="count"), False),
    "a count of every fifth step": (_layer(lambda t: t % 5 == 2, end="count"), False),
    "a reset every second step": (_reset(lambda t: t % 2 == 0, torch.zeros_like), True),
    "a product every fifth step": (_reset(lambda t: t % 5 == 0, lambda v: v * 0.25), True),
    "a reset every seventh step": (_reset(lambda t: t % 7 == 0, torch.zeros_like), True),
    "a reset to a number": (_reset(lambda t: t % 4 == 0, lambda _: 0.0), False),
    "numbers in turn": (
        looped(range, lambda net, x, t: net.fc(x[t]) * (1.0 if t % 2 == 0 else 0.5)),
        True,
    ),
    "four numbers in turn": (
        looped(range, lambda net, x, t: net.fc(x[t]) * (1, 0.5, 2.0, 0)[t % 4]),
        True,
    ),
    "t % 3": (looped(range, lambda net, x, t: net.fc(x[t]) * (t % 3)), True),
    "numbers in turn in every second step": (
        looped(lambda n: range(0, n, 2), lambda net, x, t: net.fc(x[t]) * (1 if t % 4 else 2)),
        False,
    ),
    "weights in turn": (_weights, False),
    "sums of two": (_pooled(2, all_steps=True), True),
    "sums of four": (_pooled(4, all_steps=True), True),
    "sums of three alone": (_pooled(3, all_steps=False), False),
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_length_gives_what_the_network_gives(name: str) -> None:
    net, (x,) = Looping(RIGHT[name][0]).eval(), example("plain")
    model = so.export(net, x)
    assert differences(net, model) == []
    assert so.verify(net, model, x).verdict == "equal"


@pytest.mark.parametrize("name", [name for name, (_, streams) in RIGHT.items() if streams])
def test_any_chunks_give_the_whole(name: str) -> None:
    net, (x,) = Looping(RIGHT[name][0]).eval(), example("plain", 23, 3)
    model = so.export(net, x[:9, :2], streaming=True)
    with torch.no_grad():
        expected = net(x).numpy()
    for lengths in ([1] * 23, [23], [2, 1, 5, 1, 1, 13]):
        np.testing.assert_array_equal(in_chunks(model, x, lengths), expected)


@pytest.mark.parametrize("period", [2, 5])
def test_a_stream_gives_the_last_count(period: int) -> None:
    net = Looping(_layer(lambda t: t % period == period // 2, end="count")).eval()
    (x,) = example("plain", 23, 3)
    stream = so.Session(so.export(net, x[:9, :2], streaming=True)).stream(batch=3)
    start = 0
    for length in (2, 1, 5, 1, 14):
        found = stream.run(x[start : start + length].numpy())
        start += length
        with torch.no_grad():
            np.testing.assert_array_equal(found, net(x[:start]).numpy())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sums of three alone", "it leaves steps out"),
        ("weights in turn", "a step depends on its number, without a batch"),
    ],
)
def test_others_are_refused_as_streams(name: str, reason: str) -> None:
    with pytest.raises(so.ExportError, match=f"streaming: {reason}"):
        so.export(Looping(RIGHT[name][0]).eval(), example("plain")[0], streaming=True)


@pytest.mark.parametrize("period", [2, 4])
def test_what_is_no_number_at_other_steps_is_not_seen(period: int) -> None:
    """The square root of a negative input, at a step that takes none."""

    def run(net: Looping, x: Tensor) -> Any:
        v, rows = torch.zeros(x.shape[1], 7), []
        for t in range(len(x)):
            if t % period == 0:
                v = 0.5 * v + torch.sqrt(x[t])
            rows.append(v)
        return torch.stack(rows)

    net, (x,) = Looping(run).eval(), example("plain", 13)
    session = so.Session(so.export(net, x))
    x[torch.arange(13) % period != 0] = -1.0
    expected = net(x).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(session.run(x.numpy()), expected, rtol=1e-6)


#: near misses
REFUSED: dict[str, Run] = {
    "every second step until the tenth": _layer(lambda t: t % 2 == 0 and t < 10),
    "every second step until the twentieth": _layer(lambda t: t % 2 == 0 and t < 20),
    "powers of two": _layer(lambda t: t & (t - 1) == 0),
    "every thirteenth step": _layer(lambda t: t % 13 == 0),
    "a late step": _reset(lambda t: t == 20, torch.zeros_like),
    "every fifth step, and one more": _reset(lambda t: t % 5 == 0 or t == 21, torch.zeros_like),
    "numbers of a square": looped(range, lambda net, x, t: net.fc(x[t]) * (t * t % 29)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_period_is_refused(name: str) -> None:
    with pytest.raises(so.ExportError, match="its steps have no common form"):
        so.export(Looping(REFUSED[name]).eval(), example("plain")[0])


def test_layers_that_read_each_other_in_turn_are_refused() -> None:
    """At even steps the first layer reads the second one, and at odd steps the other way."""

    def run(net: Looping, x: Tensor) -> Any:
        v1 = v2 = torch.zeros(x.shape[1], 11)
        rows = []
        for t in range(len(x)):
            if t % 2 == 0:
                k1, v1 = spike(v1, net.fc(x[t]))
                k2, v2 = spike(v2, net.rec(k1))
            else:
                k2, v2 = spike(v2, net.fc(x[t]))
                k1, v1 = spike(v1, net.rec(k2))
            rows.append(k1 + k2)
        return torch.stack(rows)

    with pytest.raises(so.ExportError, match="its steps have no common form"):
        so.export(Looping(run).eval(), example("plain")[0])


def _kept(period: int) -> Run:
    def run(net: Any, x: Tensor) -> Tensor:
        v, rows = torch.zeros(x.shape[1], 3), []
        for t in range(len(x)):
            if t % period == 0:
                v = v * net.decay + x[t]
            rows.append(v)
        return torch.stack(rows)

    return run


def _steps(family: Family) -> set[int]:
    return {t for _, t in family.members}


def test_steps_have_slots_in_turn() -> None:
    form, _ = form_of(_kept(2))
    (stack,) = form.outputs
    assert isinstance(stack, Stack)
    assert isinstance(stack.slot, Phases)
    first, second = stack.slot.slots
    assert first.family is second.family
    assert (first.delay, second.delay) == (0, 1)
    assert _steps(first.family) == {0, 2, 4, 6}


def test_values_of_every_second_step_are_those_of_all_steps() -> None:
    """The walk from the outputs finds the voltages of even and of odd steps apart."""

    def run(net: Any, x: Tensor) -> Tensor:
        v, rows = torch.zeros(x.shape[1], 3), []
        for x_t in x:
            v = v * net.decay + x_t
            rows.append(v)
        return torch.stack(rows[::2])

    form, _ = form_of(run)
    (stack,) = form.outputs
    assert (stack.start, stack.stride) == (0, 2)
    kinds = sorted(type(family.node).__name__ for family in families_of(form))
    assert kinds == ["Apply", "Apply", "Entry"]
    assert _steps(stack.slot.family) == set(range(7))


def test_a_period_is_seen_twice() -> None:
    pool, size = Pool(), Size(9, 2)
    values = [pool.make("a"), pool.make("b"), pool.make("c")]

    class _NoTimes:
        def of(self, _: Term) -> None:
            return None

    times: Any = {size: _NoTimes()}

    def found(order: str) -> int | None:
        return period_of({size: {t: values["abc".index(c)] for t, c in enumerate(order)}}, times, 1)

    assert found("aababab") == 2
    assert found("cababab") == 2
    assert found("cabcabcab") == 3
    assert found("aabca") is None
    assert found("aababac") is None


def test_what_is_kept_takes_one_state() -> None:
    """A voltage of ten steps before would be ten states, and the output nine."""
    net, (x,) = Looping(RIGHT["a layer in every tenth step"][0]).eval(), example("plain")
    states = Metadata.read(so.export(net, x, streaming=True)).states
    assert len([state for state in states if state["shape"][1:] == [4]]) <= 3
