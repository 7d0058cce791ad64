"""Streams: any way to cut a sequence into chunks gives the outputs of the whole sequence."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import spikes
from streamed import CUBA, KINDS, NETWORKS, network, whole
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.gpu


@cache
def streaming(name: str) -> onnx.ModelProto:
    _, shape = NETWORKS[name]
    return so.export(network(name), spikes(2, *shape, 16), streaming=True)


@cache
def session(name: str) -> so.Session:
    return so.Session(streaming(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_not_silent(name: str) -> None:
    _, shape = NETWORKS[name]
    assert np.abs(whole(name, spikes(2, *shape, 40, rate=0.4))).sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_chunks_give_the_whole(name: str, data: st.DataObject) -> None:
    _, shape = NETWORKS[name]
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=7), "lengths of chunks")
    batch = data.draw(st.integers(1, 3), "batch")
    x = spikes(batch, *shape, sum(lengths), seed=data.draw(st.integers(0, 99), "seed"), rate=0.4)
    expected = whole(name, x)
    stream = session(name).stream(batch)
    parts = [stream.run(chunk.numpy()) for chunk in x.split(lengths, dim=-1)]
    assert stream.steps == sum(lengths)
    parts.append(stream.flush())
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), expected)
    # the graph itself, from fresh states
    np.testing.assert_array_equal(session(name).run(x.numpy()), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.matrix
def test_steps_equal_the_whole(kind: str) -> None:
    x = spikes(2, 12, 30, rate=0.4)
    stream = session(kind).stream(2)
    found = np.stack([stream.step(x[..., t].numpy()) for t in range(30)], axis=-1)
    np.testing.assert_array_equal(found, whole(kind, x))
    assert found.shape == (2, 4, 30)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_of_one_sequence_leaves_the_others(kind: str) -> None:
    x = spikes(3, 12, 20, rate=0.4)
    stream = session(kind).stream(3)
    stream.run(x.numpy())
    stream.reset(1)
    found = stream.run(x.numpy())
    fresh = whole(kind, x)
    twice = whole(kind, torch.cat([x, x], dim=-1))[..., 20:]
    np.testing.assert_array_equal(found[1], fresh[1])
    np.testing.assert_array_equal(found[[0, 2]], twice[[0, 2]])
    stream.reset([0, 2])
    stream.reset()
    np.testing.assert_array_equal(stream.run(x.numpy()), fresh)


@pytest.mark.parametrize("name", ["cuba", "images", "decimated", "adrf", "sigma_delta"])
@pytest.mark.matrix
def test_a_stream_goes_on_from_a_file(name: str, tmp_path: Path) -> None:
    _, shape = NETWORKS[name]
    x = spikes(2, *shape, 21, rate=0.4)
    stream = session(name).stream(2)
    parts = [stream.run(x[..., :10].numpy())]
    stream.save(tmp_path / "state.npz")
    stream.run(spikes(2, *shape, 5, seed=9).numpy())
    other = session(name).stream(2)
    other.restore(tmp_path / "state.npz")
    assert other.steps == 10
    parts += [other.run(x[..., 10:].numpy()), other.flush()]
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole(name, x))


def test_bins_of_time_come_when_they_are_full() -> None:
    x = spikes(1, 12, 19, rate=0.5)
    stream = session("decimated").stream()
    found = [stream.step(x[..., t].numpy()) for t in range(19)]
    assert [t for t, y in enumerate(found) if y is not None] == [7, 15]
    assert stream.run(x[..., :1].numpy()).shape == (1, 3, 0)
    assert stream.flush().shape == (1, 3, 1)
    assert stream.flush().shape == (1, 3, 0)
    metadata = Metadata.read(streaming("decimated"))
    assert metadata.chunk == 8


def test_a_stream_needs_nothing_but_onnx_runtime() -> None:
    """The contract in the metadata, followed by hand."""
    import onnxruntime

    x = spikes(2, 12, 20, rate=0.4)
    model = streaming("cuba")
    raw = onnxruntime.InferenceSession(model.SerializeToString())
    described = Metadata.read(model).states
    states = {
        s["input"]: np.full((2, *s["shape"][1:]), s["start"], dtype=s["dtype"]) for s in described
    }
    parts = []
    for chunk in x.split([3, 17], dim=-1):
        names = ["output", *(s["output"] for s in described)]
        y, *after = raw.run(names, {"input": chunk.numpy(), **states})
        states = dict(zip(states, after, strict=True))
        parts.append(y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole("cuba", x))


@pytest.mark.parametrize("how", ["whole", "item", "restore", "another length", "copy"])
def test_steps_go_on_whatever_comes_between(how: str, tmp_path: Path) -> None:
    """Steps of one shape run in buffers of their own, which follow what else changes states."""
    x = spikes(2, 12, 16, rate=0.5)
    stream, other = (so.Session(streaming("cuba")).stream(batch=2) for _ in range(2))
    frames = [np.ascontiguousarray(x[..., t].numpy()) for t in range(x.shape[-1])]
    kept = [stream.step(frame) for frame in frames[:7]]
    before = [y.copy() for y in kept]
    if how == "whole":
        stream.reset()
    elif how == "item":
        stream.reset(items=1)
        other.run(x[..., :7].numpy())
        other.reset(items=1)
    elif how == "restore":
        stream.save(tmp_path / "state.npz")
        stream.step(frames[3])
        stream.restore(tmp_path / "state.npz")
        other.run(x[..., :7].numpy())
    elif how == "another length":
        stream.run(x[..., 2:5].numpy())
        other.run(torch.cat([x[..., :7], x[..., 2:5]], -1).numpy())
    else:
        other.run(x[..., :7].numpy())
    found = np.stack([stream.step(frame) for frame in frames[7:]], -1)
    np.testing.assert_array_equal(found, other.run(x[..., 7:].numpy()))
    assert found.any()
    np.testing.assert_array_equal(kept, before)  # what was given stays as it was


def test_streams_refuse_what_does_not_fit(tmp_path: Path) -> None:
    x = spikes(2, 12, 8).numpy()
    stream = session("cuba").stream(2)
    with pytest.raises(so.ShapeError, match=r"batch of 2 and got a batch of 3; open another"):
        stream.run(spikes(3, 12, 8).numpy())
    with pytest.raises(so.ShapeError, match=r"a step has 2 axes .* run\(\) takes a chunk"):
        stream.step(x)
    with pytest.raises(so.ShapeError, match="expected shape"):
        stream.run(spikes(2, 11, 8).numpy())
    with pytest.raises(so.InputError, match=r"takes 1 input \(input\), got 2"):
        stream.run(x, x)
    with pytest.raises(so.InputError, match="no item 2 in a batch of 2"):
        stream.reset(2)
    with pytest.raises(so.InputError, match="batch must be a positive integer, got 0"):
        session("cuba").stream(0)
    # whatever was refused has changed nothing
    np.testing.assert_array_equal(stream.run(x), whole("cuba", torch.from_numpy(x)))
    stream.save(tmp_path / "two.npz")
    with pytest.raises(so.InputError, match=r"state 0.neuron.current is int64 of shape \(2, 10\)"):
        session("cuba").stream(3).restore(tmp_path / "two.npz")
    with pytest.raises(so.InputError, match="not the saved state of a stream of this network"):
        session("alif").stream(2).restore(tmp_path / "two.npz")
    with pytest.raises(so.InputError, match="cannot be read: no such file"):
        stream.restore(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(so.InputError, match="is not the saved state of a stream"):
        stream.restore(tmp_path / "text.npz")
    with pytest.raises(so.InputError, match="cannot be written"):
        stream.save(tmp_path / "folder" / "state.npz")
    binned = session("decimated").stream(2)
    binned.run(x[..., :3])
    with pytest.raises(so.InputError, match="within a bin of 8 time steps; reset all of it"):
        binned.reset(0)
    binned.save(tmp_path / "binned.npz")
    saved = dict(np.load(tmp_path / "binned.npz"))
    assert saved["held:input"].shape == (2, 12, 3)
    for key, value, sentence in (
        ("held:input", x[:, :7, :3], r"input input: expected shape .*, got \(2, 7, 3\)"),
        ("held:input", x[:1, :, :3], "keeps states for a batch of 2 and got a batch of 1"),
        ("held:input", np.array(["spikes"]), "expected numbers"),
        ("steps", np.zeros(2), "is not the saved state of a stream of this network"),
        ("steps", np.array("three"), "is not the saved state of a stream of this network"),
    ):
        np.savez(tmp_path / "broken.npz", **{**saved, key: value})
        with pytest.raises(so.SynapseError, match=sentence):
            binned.restore(tmp_path / "broken.npz")
    binned.restore(tmp_path / "binned.npz")
    rest = binned.run(x[..., 3:])
    np.testing.assert_array_equal(rest, whole("decimated", torch.from_numpy(x)))


def test_only_streaming_models_stream() -> None:
    x = spikes(2, 12, 8)
    with pytest.raises(so.InputError, match="not exported for streaming; use export"):
        so.Session(so.export(network("cuba"), x)).stream()
    fixed = so.Session(so.export(network("cuba"), x, streaming=True, dynamic=False))
    with pytest.raises(so.InputError, match="fixed batch of 2, got batch=1"):
        fixed.stream()
    np.testing.assert_array_equal(fixed.stream(2).run(x.numpy()), whole("cuba", x))


class TwoInputs(nn.Module):
    """Two sequences and a number a channel that has no time."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, left: Tensor, right: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        y = self.neuron(left + gain.unsqueeze(-1) * right)
        return y, y + right


def test_inputs_of_a_step_and_of_a_chunk() -> None:
    left, right = spikes(2, 3, 9), spikes(2, 3, 9, seed=1)
    gain = torch.tensor([[0.5, 1.0, 2.0], [1.0, 0.25, 0.75]])
    model = so.export(TwoInputs(), (left, right, gain), streaming=True)
    session = so.Session(model)
    given = [value.numpy() for value in (left, right, gain)]
    whole = session.run(*given)
    assert len(whole) == 2
    assert whole[0].any()
    stream = session.stream(2)
    for t in range(4):
        found = stream.step(given[0][..., t], given[1][..., t], given[2])
        for y, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(y, expected[..., t])
    found = stream.run(given[0][..., 4:], given[1][..., 4:], given[2])
    for y, expected in zip(found, whole, strict=True):
        np.testing.assert_array_equal(y, expected[..., 4:])
    assert stream.steps == 9
    with pytest.raises(so.ShapeError, match="different numbers of time steps: 4, 5"):
        stream.run(given[0][..., :4], given[1][..., :5], given[2])
    with pytest.raises(so.ShapeError, match="keeps states for a batch of 2 and got a batch of 1"):
        stream.run(given[0][..., :4], given[1][..., :4], given[2][:1])
    with pytest.raises(so.InputError, match=r"takes 3 inputs \(left, right, gain\), got 2"):
        stream.step(given[0][..., 0], given[1][..., 0])
    with pytest.raises(so.ShapeError, match=r"input gain: expected 2 axes"):
        stream.step(given[0][..., 0], given[1][..., 0], gain.numpy()[..., None])
    assert stream.steps == 9
    assert repr(stream) == "Stream(batch=2, steps=9, 2 states)"


def test_a_network_without_states_streams_too() -> None:
    synapse = so.synapse.Dense(12, 3, pre_hook_fx=so.quantize.q8).eval()
    x = spikes(2, 12, 8)
    stream = so.Session(so.export(synapse, x, streaming=True)).stream(2)
    assert stream.step(x[..., 0].numpy()).shape == (2, 3)
    assert stream.states == {}


class Frames(nn.Module):
    """Inputs without time: an image (N, C, W) whose columns are the steps, or a single step."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block, self.single = so.block.cuba.Dense(CUBA, 3, 4, weight_scale=4), single

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.unsqueeze(-1) if self.single else x.flatten(1, 2))


def test_a_call_of_a_model_without_time_is_a_chunk() -> None:
    model = so.export(Frames(False), spikes(2, 3, 1, 5), streaming=True)
    stream = so.Session(model).stream(2)
    chunks = [spikes(2, 3, 1, 5, seed=seed, rate=0.6) for seed in (0, 1)]
    found = [stream.run(chunk.numpy()) for chunk in chunks]
    expected = Frames(False).block(torch.cat(chunks, -1).flatten(1, 2))
    np.testing.assert_array_equal(np.concatenate(found, -1), expected.detach())
    assert expected.any()
    assert stream.steps == 10
    with pytest.raises(so.InputError, match="step: no input of the model has time, and a call"):
        stream.step(chunks[0].numpy())
    assert stream.steps == 10


def test_a_step_of_a_model_without_time() -> None:
    x = spikes(2, 3, 6, rate=0.6)
    stream = so.Session(so.export(Frames(True), x[..., 0], streaming=True)).stream(2)
    found = np.stack([stream.step(x[..., t].numpy()) for t in range(6)], -1)
    np.testing.assert_array_equal(found, Frames(True).block(x).detach())
    assert stream.steps == 6


class Scaled(Frames):
    """A number, and one gain a channel, beside the spikes."""

    def forward(self, number: Tensor, gain: Tensor, x: Tensor) -> Tensor:
        return self.block(x * gain[:, None] * number)


def test_inputs_without_a_batch() -> None:
    given = torch.tensor(0.5), torch.tensor([1.0, 2.0, 4.0]), spikes(2, 3, 6, rate=0.6)
    model = so.export(Scaled(True), given, streaming=True, dynamic=False)
    session = so.Session(model)
    arrays = [value.numpy() for value in given]
    expected = Scaled(True)(*given).detach()
    np.testing.assert_array_equal(session.run(*arrays), expected)
    np.testing.assert_array_equal(session.stream(2).run(*arrays), expected)
    with pytest.raises(so.InputError, match="exported with a fixed batch of 2, got batch=3"):
        session.stream(3)


def test_halves_are_returned() -> None:
    class Half(Frames):
        def forward(self, x: Tensor) -> Tensor:
            return self.block(x).half()

    x = spikes(2, 3, 6, rate=0.6)
    stream = so.Session(so.export(Half(True), x, streaming=True)).stream(2)
    parts = [stream.run(x.numpy()), stream.flush()]
    assert [part.dtype for part in parts] == [np.float16, np.float16]
    assert [part.shape[-1] for part in parts] == [6, 0]


def _states(model: onnx.ModelProto) -> onnx.StringStringEntryProto:
    return next(prop for prop in model.metadata_props if prop.key == "synapse_onnx.states")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda m: m.graph.output.append(m.graph.output[0]),
            "2 outputs are called 'output', and a stream needs one",
        ),
        (
            lambda m: setattr(
                next(p for p in m.metadata_props if p.key == "synapse_onnx.states"),
                "value",
                _states(m).value.replace('"output": "', '"output": "no '),
            ),
            "no outputs are called 'no ",
        ),
    ],
    ids=["twice", "unknown"],
)
def test_a_state_has_one_output(change, sentence: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(streaming("cuba"))
    change(model)
    with pytest.raises(so.ModelError, match=sentence) as caught:
        so.Session(model)
    assert "\n" not in str(caught.value)
