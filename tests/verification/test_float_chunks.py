"""Chunks of a stream of floats: what a stream loses, swaps or delays is found, and no more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.report.result import Report
from synapse_onnx.runtime import stream as stream_module
from synapse_onnx.runtime.stream import Stream
from synapse_onnx.verification import chunks
from synapse_onnx.verification.arrays import Tolerance
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.outputs import Run
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.trace import run_session

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS = 11


def _float(kind: str, **changes: Any) -> dict[str, Any]:
    arguments = dict(so.neuron.kinds()[kind].Neuron.example)
    return arguments | ({} if kind == "sigma_delta" else {"regime": "float"}) | changes


def _layers(kind: str) -> nn.Module:
    """Delays of one and more steps, feedback, and a plain layer."""
    blocks, arguments = getattr(so.block, kind), _float(kind)
    layers = [blocks.Dense(arguments, 12, 10, weight_scale=2, delay=True, delay_shift=True)]
    if hasattr(blocks, "Recurrent"):
        layers.append(blocks.Recurrent(arguments, 10, 10, weight_scale=2, delay=True))
    last = blocks.Dense(arguments, 10, 10, weight_scale=2, delay_shift=False)
    return nn.Sequential(*layers, last)


def _bins() -> nn.Module:
    b, arguments = so.block.cuba, _float("cuba")
    return nn.Sequential(
        b.Dense(arguments, 12, 10, weight_scale=2), b.TimeDecimation(4), b.Affine(arguments, 10, 3)
    )


def _readout() -> nn.Module:
    b, arguments = so.block.cuba, _float("cuba")
    return nn.Sequential(b.Dense(arguments, 12, 10, weight_scale=2), b.Affine(arguments, 10, 3))


def _messages() -> nn.Module:
    b, arguments = so.block.sigma_delta, _float("sigma_delta", activation=torch.tanh)
    return nn.Sequential(b.Dense(arguments, 12, 8), b.Output(arguments, 8, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{kind: (lambda kind=kind: _layers(kind)) for kind in sorted(so.neuron.kinds())},
    "bins": _bins,
    "readout": _readout,
    "messages": _messages,
    "no neuron": lambda: nn.Sequential(so.axon.Delta(0.3), so.synapse.Dense(12, 4)),
}


@cache
def _network(name: str) -> tuple[nn.Module, Tensor, Any]:
    torch.manual_seed(3)
    network, x = NETWORKS[name](), spikes(2, 12, STEPS, rate=0.4)
    if name in ("sigma_delta", "messages", "no neuron"):
        x = torch.randn(2, 12, STEPS)
    network(x)  # draws the delays
    for layer in network.modules():
        if isinstance(layer, so.axon.Delay):
            layer.delay.data = 4 * torch.rand_like(layer.delay)
    network.eval()
    return network, x, so.export(network, x, streaming=True)


@cache
def _run(name: str) -> tuple[Run, list[Tensor], list[Any]]:
    """Both sides of a network in one piece: what chunks are compared with, without any proof."""
    network, x, model = _network(name)
    arguments = Arguments.of(network, x, "verify")
    subject = Subject(network, model, arguments, outputs=None, providers=None, native=None)
    with torch.no_grad():
        expected = [subject.module(x)]
    run = Run(subject, Findings(), [x], set(), Tolerance(1e-5, 0.0))
    return run, expected, run_session(subject.session, [x])


def _report(name: str) -> Report:
    run, expected, whole = _run(name)
    run.findings = Findings()
    chunks.compare_chunks(run, expected, whole)
    return run.findings.report([], {}, [], [], [])


def _states(name: str) -> list[str]:
    return [str(state["input"]) for state in _run(name)[0].subject.session.states]


Change = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], dict[str, np.ndarray]]
_call, _flush = Stream._call, Stream.flush


def _put(stream: Stream, states: dict[str, np.ndarray]) -> None:
    stream._states = {name: stream._value(array) for name, array in states.items()}


def _after(change: Change) -> Any:
    """Change the states that a call leaves; ``change(before, after)`` gets those of one step."""

    def call(stream: Stream, arrays: list[np.ndarray]) -> Any:
        last = max(arrays[0].shape[-1] - 1, 0) // stream._io.chunk * stream._io.chunk
        results = [_call(stream, [a[..., :last] for a in arrays])] if last else []
        before = stream.states
        results.append(_call(stream, [a[..., last:] for a in arrays]))
        _put(stream, change(before, stream.states))
        return [np.concatenate(parts, axis=-1) for parts in zip(*results, strict=True)]

    return mock.patch.object(Stream, "_call", call)


def _within(change: Change) -> Any:
    """Change the states that a call takes, which the stream's ``states`` do not show."""
    last: dict[int, dict[str, np.ndarray]] = {}

    def call(stream: Stream, arrays: list[np.ndarray]) -> Any:
        now = stream.states
        _put(stream, change(last.get(id(stream), now), now))
        last[id(stream)] = now
        return _call(stream, arrays)

    return mock.patch.object(Stream, "_call", call)


PLACES = {"after": _after, "within": _within}


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_of_floats_are_compared(name: str) -> None:
    network, x, model = _network(name)
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    (row,) = (row for row in report.outputs if row.kind == "stream")
    assert row.name == "output (in chunks)"
    assert not row.exact
    assert row.values >= _run(name)[1][0].numel()
    assert not any("chunks" in note for note in report.notes)
    assert _report(name).ok
    assert not any(layer.persistent_state for layer in network.modules() if _has_states(layer))


def _has_states(layer: nn.Module) -> bool:
    return hasattr(layer, "persistent_state")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_states_that_are_all_lost_are_found(name: str, place: str) -> None:
    fresh = _run(name)[0].subject.session.fresh_states(2)
    with PLACES[place](lambda _, __: fresh):
        report = _report(name)
    assert not report.ok
    assert report.first_divergence is not None


#: networks of which every state is at fault in turn; the others have states of the same kinds
FAULTY = ("alif", "rf", "bins", "messages")


def _moves(name: str) -> list[str]:
    """States that a hundredth or a late step changes by more than one step of a message."""
    # without cum_error an encoder keeps no error, and its residual is below one step
    moving = [s for s in _states(name) if not s.endswith((".error", ".residual"))]
    feedback = [s for s in moving if s.startswith("1.")]  # has a state of every kind
    return feedback if name in so.neuron.kinds() else moving


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FAULTY)
def test_one_state_that_is_off_by_a_hundredth_is_found(name: str, place: str) -> None:
    missed = []
    for state in _moves(name):
        with PLACES[place](lambda _, now, s=state: now | {s: now[s] * np.float32(1.01)}):
            missed += [state] * _report(name).ok
    assert not missed


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FAULTY)
def test_one_state_that_comes_a_step_late_is_found(name: str, place: str) -> None:
    missed = []
    for state in _moves(name):
        with PLACES[place](lambda before, now, s=state: now | {s: before[s]}):
            missed += [state] * _report(name).ok
    assert not missed


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FAULTY)
def test_two_states_that_are_swapped_are_found(name: str, place: str) -> None:
    fresh = _run(name)[0].subject.session.fresh_states(2)
    missed = []
    for shape in {fresh[name].shape for name in _moves(name)}:
        alike = [name for name in _moves(name) if fresh[name].shape == shape]
        for pair in itertools.pairwise(alike):
            swap = dict(zip(pair, pair[::-1], strict=True))
            with PLACES[place](lambda _, now, w=swap: now | {a: now[b] for a, b in w.items()}):
                missed += [pair] * _report(name).ok
    assert not missed


def _nothing(stream: Stream) -> Any:
    _flush(stream)
    return stream._returned(None)


def _without_held(stream: Stream) -> Any:
    stream._held = [np.zeros_like(array) for array in stream._held or ()]
    return _flush(stream)


def _from_fresh(stream: Stream) -> Any:
    _put(stream, stream._io.fresh_states(stream.batch))
    return _flush(stream)


def _without_reset(stream: Stream) -> Any:
    with mock.patch.object(Stream, "reset"):
        return _flush(stream)


@pytest.mark.parametrize("flush", [_nothing, _without_held, _from_fresh, _without_reset])
def test_a_wrong_end_of_a_stream_is_found(flush: Callable[[Stream], Any]) -> None:
    assert STEPS % 4
    with mock.patch.object(Stream, "flush", flush):
        assert not _report("bins").ok
    with mock.patch.object(Stream, "flush", _without_reset):
        problems = _report("cuba").problems
    assert "the state after the end differs" in problems[0]


@pytest.mark.parametrize("regime", ["float", "slayer"])
def test_prepared_bindings_that_keep_their_states_are_found(regime: str) -> None:
    """They serve a shape that comes a third time."""
    network = nn.Sequential(so.block.cuba.Dense(_float("cuba", regime=regime), 12, 10)).eval()
    network[0].synapse.pre_hook_fx = so.quantize.q8
    x = spikes(2, 12, STEPS, rate=0.4)
    model = so.export(network, x, streaming=True)
    assert so.verify(network, model, x).ok
    prepared = stream_module._Prepared
    run = prepared.run
    with mock.patch.object(prepared, "run", lambda *args: (args[2], run(*args)[1])):
        report = so.verify(network, model, x)
    assert not report.ok
    assert "in chunks" in str(report)


def _quarters() -> tuple[nn.Module, Tensor, Any]:
    """A neuron whose membrane is 0.25, 0.5, 0.75, and at the fourth step at its threshold."""
    arguments = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0, "regime": "float"}
    dense, after = so.synapse.Dense(1, 1), so.synapse.Dense(1, 2)
    dense.weight.data.fill_(0.25)
    network = nn.Sequential(dense, so.neuron.cuba.Neuron(**arguments), after).eval()
    x = torch.ones(2, 1, 12)
    return network, x, so.export(network, x, streaming=True)


@pytest.mark.parametrize(("factor", "ok"), [(1 - 3e-7, True), (0.999, False)])
def test_a_spike_that_flips_by_a_rounding_is_no_fault(factor: float, ok: bool) -> None:
    network, x, model = _quarters()
    change: Change = lambda _, now: {n: (a * factor).astype(a.dtype) for n, a in now.items()}  # noqa: E731
    with _within(change):
        report = so.verify(network, model, x)
    assert report.ok == ok, str(report)
    notes = [note for note in report.notes if "within a rounding of a threshold" in note]
    assert not ok or "1: sample 0, neuron (0,), membrane +0 from the threshold" in notes[0]


def test_a_spike_that_is_wrong_has_its_margin() -> None:
    def call(stream: Stream, arrays: list[np.ndarray]) -> Any:
        (result,) = _call(stream, arrays)
        return [1 - result]

    with mock.patch.object(Stream, "_call", call):
        first = _report("cuba").first_divergence
    assert first is not None
    assert (first.layer, first.sample, first.t) == ("output (in chunks)", 0, 0)
    assert first.margin is not None
    assert first.margin < 0


def test_chunks_that_the_network_refuses_are_not_compared() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = so.block.cuba.Dense(_float("cuba"), 12, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)

    network, x = Long().eval(), spikes(2, 12, STEPS)
    model = so.export(network, x, streaming=True)
    whole = Long.forward

    def forward(self: Long, x: Tensor) -> Tensor:
        if x.shape[-1] == 2:
            raise RuntimeError("not two steps")
        return whole(self, x)

    with mock.patch.object(Long, "forward", forward):
        run_in = so.verify(network, model, x)
    assert run_in.ok
    assert (
        "output (in chunks): not compared, because the network fails on a chunk of shape "
        "(2, 12, 2) (RuntimeError: not two steps)"
    ) in run_in.notes
