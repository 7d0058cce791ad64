"""Streams of networks that loop over time in torch code: any chunks give the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from looping import NETWORKS, example, exported, reference

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
