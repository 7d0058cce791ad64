"""Streams of networks that loop over time in torch code: any chunks give the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from looping import NETWORKS, example, exported, network, reference
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.usefixtures("compiled_once")

#: name -> paths of its states, and their shapes without the batch
STATES: dict[str, dict[str, tuple[int, ...]]] = {
    "plain": {"neuron.current": (11,), "neuron.voltage": (11,)},
    "none_state": {"loop.state.0": (11,), "loop.step.0": ()},
    "lists": {"neuron.current": (11,), "neuron.voltage": (11,)},
    "delay_of_3": {f"loop.state.{i}": (11,) for i in range(4)},
    "feedback": {"loop.state.0": (4,), "loop.state.1": (11,), "loop.state.2": (4,)},
    "affine": {"neuron.current": (11,), "neuron.voltage": (11,), "loop.step.0": ()},
    "two_before": {"loop.delayed.0": (7, 2), "loop.step.0": ()},
    "two_inputs": {"neuron.current": (11,), "neuron.voltage": (11,)},
    "growing_threshold": {"loop.state.0": (11,), "loop.step.0": ()},
}


def _in_chunks(model: onnx.ModelProto, inputs: Any, lengths: list[int]) -> list[np.ndarray]:
    stream, rows, start = so.Session(model).stream(batch=inputs[0].shape[1]), [], 0
    for length in lengths:
        chunk = stream.run(*(x[start : start + length].numpy() for x in inputs))
        rows.append(chunk if isinstance(chunk, tuple) else (chunk,))
        start += length
    assert start == len(inputs[0])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", STATES)
def test_any_chunks_give_the_whole(name: str) -> None:
    model, inputs = exported(name, streaming=True), example(name, 23, 3)
    assert NETWORKS[name].exact
    expected = reference(name, inputs)
    for lengths in ([1] * 23, [23], [2, 1, 5, 1, 1, 13], [11, 12]):
        found = _in_chunks(model, inputs, lengths)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", STATES)
def test_states_have_names_and_shapes(name: str) -> None:
    states = Metadata.read(exported(name, streaming=True)).states
    assert {s["input"]: tuple(s["shape"][1:]) for s in states} == STATES[name]
    assert all(state["shape"][0] is None and state["start"] == 0 for state in states)


def test_two_streams_do_not_mix() -> None:
    """Each stream has states of its own."""
    model, (x,) = exported("plain", streaming=True), example("plain", 12, 2)
    session = so.Session(model)
    streams = [session.stream(batch=2) for _ in range(2)]
    found: list[list[np.ndarray]] = [[], []]
    for t in range(12):
        for i, (stream, sign) in enumerate(zip(streams, (1, -1), strict=True)):
            found[i].append(stream.run((sign * x[t : t + 1]).numpy()))
    for rows, sign in zip(found, (1, -1), strict=True):
        np.testing.assert_array_equal(np.concatenate(rows), reference("plain", [sign * x])[0])


class _Starts(nn.Module):
    """A synapse with a bias, whose currents arrive steps later: the first ones are the bias."""

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.delay, self.fc = delay, nn.Linear(7, 11)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(-6, 9, parameter.shape, generator=draw) / 8)

    def forward(self, x: Tensor) -> Tensor:
        waiting = [torch.zeros(x.shape[1], 7) for _ in range(self.delay)]
        voltage, rows = self.fc(waiting[0]), []
        for x_t in x:
            waiting.append(x_t)
            voltage = 0.5 * voltage + self.fc(waiting.pop(0))
            spike = (voltage > 1).float()
            voltage = voltage - 0.75 * spike
            rows.append(voltage)
        return torch.stack(rows)


@pytest.mark.parametrize("delay", [1, 3])
def test_a_state_may_start_from_a_number_for_each_neuron(delay: int) -> None:
    network, (x,) = _Starts(delay).eval(), example("plain", 23, 3)
    model = so.export(network, x[:5, :2], streaming=True)
    with torch.no_grad():
        expected = network(x).numpy()
    for lengths in ([1] * 23, [23], [2, 1, 5, 1, 1, 13]):
        np.testing.assert_array_equal(_in_chunks(model, (x,), lengths)[0], expected)
    assert so.verify(network, model, x).verdict == "equal"


def test_a_sample_that_is_reset_starts_from_these_numbers_again() -> None:
    network, (x,) = _Starts(3).eval(), example("plain", 12, 3)
    stream = so.Session(so.export(network, x[:5, :2], streaming=True)).stream(batch=3)
    whole = stream.run(x.numpy())
    stream.reset(1)
    again = stream.run(x.numpy())
    np.testing.assert_array_equal(again[:, 1], whole[:, 1])
    assert not np.array_equal(again[:, 0], whole[:, 0])


def test_a_whole_sequence_has_no_count_of_steps() -> None:
    network, (x,) = _Starts(3).eval(), example("plain", 12, 3)
    model = so.export(network, x)
    assert "Where" not in {node.op_type for node in model.graph.node}


class _FromTheWhole(_Starts):
    """Starts from the mean of the whole sequence, which a stream does not have."""

    def forward(self, x: Tensor) -> Tensor:
        voltage, rows = self.fc(x.mean(0)), []
        for x_t in x:
            voltage = 0.5 * voltage + self.fc(x_t)
            rows.append(voltage)
        return torch.stack(rows)


def test_a_start_of_the_whole_sequence_is_refused() -> None:
    network, (x,) = _FromTheWhole(1).eval(), example("plain", 12, 3)
    assert so.verify(network, so.export(network, x), x).ok
    with pytest.raises(so.ExportError, match="starts from is computed of the whole sequence"):
        so.export(network, x, streaming=True)


class _Share(nn.Module):
    """Weighs each step, by its number or by its share of all steps."""

    def __init__(self, weight: Callable[[int, int], float], *, late: bool) -> None:
        super().__init__()
        self.weight, self.late = weight, late

    def forward(self, x: Tensor) -> Tensor:
        voltage, rows = torch.zeros_like(x[0]), []
        for t in range(x.shape[0]):
            weight = self.weight(t, x.shape[0])
            voltage = 0.5 * voltage + (x[t] if self.late else x[t] * weight)
            rows.append(voltage * weight if self.late else voltage)
        return torch.stack(rows)


@pytest.mark.parametrize("late", [False, True])
def test_a_stream_knows_the_number_of_a_step_and_not_of_all(late: bool) -> None:
    (x,) = example("plain", 12, 3)
    network = _Share(lambda t, _: 1.0 * t, late=late)
    assert so.verify(network, so.export(network, x, streaming=True), x).ok
    for weight in (lambda t, steps: t / steps, lambda _, steps: 1 / steps):
        network = _Share(weight, late=late)
        assert so.verify(network, so.export(network, x), x).ok
        with pytest.raises(so.ExportError, match="a step depends on the number of steps"):
            so.export(network, x, streaming=True)


class _LastValues(nn.Module):
    """Returns voltages, the last one, and what a readout makes of that one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = _Starts(1).fc

    def forward(self, x: Tensor) -> Any:
        voltage, rows = torch.zeros(x.shape[1], 11), []
        for x_t in x:
            voltage = 0.5 * voltage + self.fc(x_t)
            voltage = voltage - 0.75 * (voltage > 1).float()
            rows.append(voltage)
        return torch.stack(rows), voltage, voltage @ self.fc.weight


def test_a_last_value_is_that_after_each_chunk() -> None:
    network, (x,) = _LastValues().eval(), example("plain", 12, 3)
    model = so.export(network, x[:5, :2], streaming=True)
    stream = so.Session(model).stream(batch=3)
    for end in (1, 4, 12):
        with torch.no_grad():
            _, last, readout = network(x[:end])
        found = stream.run(x[stream.steps : end].numpy())
        np.testing.assert_array_equal(found[1], last.numpy())
        np.testing.assert_allclose(found[2], readout.numpy(), rtol=1e-6)
    assert [y.shape for y in stream.step(x[0].numpy())] == [(3, 11), (3, 11), (3, 7)]
    assert [y.shape for y in stream.flush()] == [(0, 3, 11), (0, 11), (0, 7)]
    assert so.verify(network, model, x).verdict == "equal"


def test_a_last_value_that_is_wrong_is_seen_in_chunks() -> None:
    """The file gives the voltage before the last step's spike in its place."""
    network, (x,) = _LastValues().eval(), example("plain", 12, 3)
    model = so.export(network, x[:5, :2], streaming=True)
    node = next(node for node in model.graph.node if model.graph.output[1].name in node.output)
    node.output[0] = "given"
    model.graph.node.add(op_type="Abs", input=["given"], output=[model.graph.output[1].name])
    report = so.verify(network, model, x)
    assert {row.name for row in report.outputs if not row.ok} >= {"output_1 (in chunks)"}


class _LastOfDelayed(_Starts):
    """Returns the last voltage, too, which with fewer steps than the delay is a start."""

    def forward(self, x: Tensor) -> Any:
        voltages = super().forward(x)
        return voltages, voltages[-1]


class _OneStepLate(nn.Module):
    """Adapts to the spike of the step before, and returns the adaptation after the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = _Starts(1).fc

    def forward(self, x: Tensor) -> Any:
        voltage, threshold, rows = torch.zeros(x.shape[1], 11), torch.ones(x.shape[1], 11), []
        spike = torch.zeros_like(voltage)
        for x_t in x:
            threshold = 0.5 * threshold + 0.25 + 0.5 * spike
            voltage = 0.5 * voltage + self.fc(x_t)
            spike = (voltage > threshold).float()
            voltage = voltage - 0.75 * spike
            rows.append(spike)
        return torch.stack(rows), threshold


@pytest.mark.parametrize("network", [_LastOfDelayed(2), _LastOfDelayed(1), _OneStepLate()])
def test_a_last_value_may_follow_from_earlier_steps(network: nn.Module) -> None:
    (x,) = example("plain", 12, 3)
    session = so.Session(so.export(network.eval(), x[:5, :2]))
    stream = so.Session(so.export(network, x[:5, :2], streaming=True)).stream(batch=3)
    for end in (1, 2, 3, 12):
        with torch.no_grad():
            expected = [y.numpy() for y in network(x[:end])]
        for one, other in zip(session.run(x[:end].numpy()), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        _, last = stream.run(x[stream.steps : end].numpy())
        np.testing.assert_array_equal(last, expected[1])


class _Alone(_Starts):
    """A late last value, which no step reads so late: traces of few steps tell what it is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[-1]


class _ReadOut(_Alone):
    """What a readout makes of one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2 + 1


def test_a_late_last_value_alone_is_what_short_sequences_give() -> None:
    (x,) = example("plain", 12, 3)
    network = _Alone(2).eval()
    session = so.Session(so.export(network, x[:5, :2]))
    for end in (1, 2, 3, 12):
        with torch.no_grad():
            expected = network(x[:end]).numpy()
        np.testing.assert_array_equal(session.run(x[:end].numpy()), expected)
    with pytest.raises(so.ExportError, match="a value of 2 steps before the last one"):
        so.export(_ReadOut(2).eval(), x)


def test_a_count_of_steps_that_is_wrong_is_seen_in_chunks() -> None:
    """No output shows it: the count is compared with 0 alone."""
    net, (x,) = network("none_state"), example("none_state", 12, 3)
    model = exported("none_state", streaming=True)
    count = next(o.name for o in model.graph.output if "step" in o.name)
    node = next(node for node in model.graph.node if count in node.output)
    node.output[list(node.output).index(count)] = "right"
    model.graph.node.append(onnx.helper.make_node("Add", ["right", "right"], [count]))
    assert "loop.step.0 (in chunks): the state" in str(so.verify(net, model, x))


class _Rates(nn.Module):
    """A head that reads the rate of all steps, as a mean of them or as one that is added up."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.fc, self.head = how, nn.Linear(7, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(x.shape[1], 6), []
        count, steps = torch.zeros(x.shape[1], 6), torch.zeros(x.shape[1], 1)
        for x_t in x:
            v = 0.75 * v + self.fc(x_t)
            spike = (v > 0.25).float()
            v = v - spike
            spikes.append(spike)
            count, steps = count + spike, steps + 1
        rate = torch.stack(spikes).mean(0) if self.how == "mean" else count / steps
        boxes = self.head(rate).sigmoid().view(-1, 2, 4)
        return boxes if self.how == "boxes" else boxes.flatten(1)


def test_a_head_on_the_rate_until_now_streams() -> None:
    net, (x,) = _Rates("running").eval(), example("plain", 12, 3)
    model = so.export(net, x, streaming=True)
    stream = so.Session(model).stream(batch=3)
    for end in (1, 3, 4, 12):
        found = stream.run(x[stream.steps : end].numpy())
        with torch.no_grad():
            np.testing.assert_allclose(found, net(x[:end]).numpy(), rtol=1e-5)
    assert so.verify(net, model, x).ok


def test_heads_that_cannot_stream_are_told_what_to_write() -> None:
    (x,) = example("plain", 12, 3)
    said = r"or what follows from a sum that the loop adds up$"
    with pytest.raises(so.ExportError, match=said):
        so.export(_Rates("mean").eval(), x, streaming=True)
    said = (
        r"output 0 of shape \(2, 4, 3\) is a value after the last step, and .*y\.flatten\(1\) has$"
    )
    with pytest.raises(so.ExportError, match=said):
        so.export(_Rates("boxes").eval(), x, streaming=True)
