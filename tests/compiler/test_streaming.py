"""Streams: any way to cut a sequence into chunks gives the outputs of the whole sequence."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler._chunks import check_chunks
from synapse_onnx.compiler._dynamic import steps_per_bin
from synapse_onnx.compiler._streaming import Streamed
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.gpu

KINDS = sorted(so.neuron.kinds())
CUBA = so.neuron.cuba.Neuron.example


def _layers(kind: str) -> nn.Module:
    """Every block of a neuron that keeps a state of its own: (N, 12, T) -> (N, 4, T)."""
    blocks, arguments = getattr(so.block, kind), so.neuron.kinds()[kind].Neuron.example
    layers = [blocks.Dense(arguments, 12, 10, weight_scale=2, delay=True, delay_shift=True)]
    if hasattr(blocks, "Recurrent"):
        layers.append(blocks.Recurrent(arguments, 10, 10, weight_scale=2, delay=True))
    if hasattr(blocks, "KWTA"):
        layers.append(blocks.KWTA(arguments, 10, 10, 4, weight_scale=2))
    layers.append(blocks.Dense(arguments, 10, 4, weight_scale=2))
    return nn.Sequential(*layers)


def _graded(kind: str) -> nn.Module:
    """One layer: a second would sum graded spikes beyond float32's integers, in either order."""
    arguments = {**so.neuron.kinds()[kind].Neuron.example, "graded_spike": True}
    return nn.Sequential(getattr(so.block, kind).Dense(arguments, 12, 4, delay=True))


def _images() -> nn.Module:
    """Convolutions with delays, pooled and unpooled: (N, 2, 6, 6, T) -> (N, 3, T)."""
    b = so.block.cuba
    return nn.Sequential(
        b.Input(CUBA, weight=1.5, bias=0.1),
        b.Conv(CUBA, 2, 4, 3, padding=1, weight_scale=3, delay=True),
        b.Pool(CUBA, 2),
        b.Unpool(CUBA, 2, delay=True),
        b.ConvT(CUBA, 4, 2, 3, padding=1, weight_scale=3),
        b.Flatten(),
        b.Affine(CUBA, 72, 6),
        b.Average(3),
    )


def _decimated() -> nn.Module:
    """Two decimations with neurons between and behind them: (N, 12, T) -> (N, 3, ceil(T / 8))."""
    b = so.block.cuba
    return nn.Sequential(
        b.Dense(CUBA, 12, 8, weight_scale=3),
        b.TimeDecimation(2),
        b.Dense(CUBA, 8, 6, weight_scale=3),
        b.TimeDecimation(4),
        b.Recurrent(CUBA, 6, 3, weight_scale=4),
    )


def _readout(kind: str) -> nn.Module:
    blocks = getattr(so.block, kind)
    return nn.Sequential(
        blocks.Affine(so.neuron.kinds()[kind].Neuron.example, 12, 5, weight_scale=2)
    )


def _encoders() -> nn.Module:
    return nn.Sequential(so.axon.Delta(0.5, cum_error=True), so.dendrite.Sigma())


def _output() -> nn.Module:
    b, arguments = so.block.sigma_delta, so.neuron.sigma_delta.Neuron.example
    return nn.Sequential(b.Input(arguments), b.Dense(arguments, 12, 8), b.Output(arguments, 8, 3))


#: name -> (network, shape of one sample without time)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{kind: (lambda kind=kind: _layers(kind), (12,)) for kind in KINDS},
    **{
        f"{kind} graded": (lambda kind=kind: _graded(kind), (12,))
        for kind, module in so.neuron.kinds().items()
        if module.Neuron.grades
    },
    **{
        f"{kind} readout": (lambda kind=kind: _readout(kind), (12,))
        for kind in KINDS
        if kind != "sigma_delta"
    },
    "images": (_images, (2, 6, 6)),
    "decimated": (_decimated, (12,)),
    "encoders": (_encoders, (12,)),
    "sigma_delta output": (_output, (12,)),
}


@cache
def network(name: str) -> nn.Module:
    make, shape = NETWORKS[name]
    torch.manual_seed(5)
    module = make()
    module(spikes(1, *shape, 3))  # draws the delays
    for layer in module.modules():
        if isinstance(layer, so.axon.Delay):
            layer.delay.data = 7 * torch.rand_like(layer.delay)
    return module.eval()


@cache
def session(name: str) -> so.Session:
    _, shape = NETWORKS[name]
    return so.Session(so.export(network(name), spikes(2, *shape, 16), streaming=True))


def _whole(name: str, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return network(name)(x).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_not_silent(name: str) -> None:
    _, shape = NETWORKS[name]
    assert np.abs(_whole(name, spikes(2, *shape, 40, rate=0.4))).sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_chunks_give_the_whole(name: str, data: st.DataObject) -> None:
    _, shape = NETWORKS[name]
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=7), "lengths of chunks")
    batch = data.draw(st.integers(1, 3), "batch")
    x = spikes(batch, *shape, sum(lengths), seed=data.draw(st.integers(0, 99), "seed"), rate=0.4)
    expected = _whole(name, x)
    stream = session(name).stream(batch)
    parts = [stream.run(chunk.numpy()) for chunk in x.split(lengths, dim=-1)]
    assert stream.steps == sum(lengths)
    parts.append(stream.flush())
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), expected)
    # the graph itself, from fresh states
    np.testing.assert_array_equal(session(name).run(x.numpy()), expected)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "decimated"])
def test_torch_in_chunks_gives_the_whole(name: str) -> None:
    """The same states, kept by the layers themselves."""
    _, shape = NETWORKS[name]
    x = spikes(2, *shape, 23, rate=0.4)
    module = copy.deepcopy(network(name))
    for layer in module.modules():
        if hasattr(layer, "persistent_state"):
            layer.persistent_state = True
    with torch.no_grad():
        parts = [module(chunk).numpy() for chunk in x.split([1, 9, 2, 11], dim=-1)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), _whole(name, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.matrix
def test_steps_equal_the_whole(kind: str) -> None:
    x = spikes(2, 12, 30, rate=0.4)
    stream = session(kind).stream(2)
    found = np.stack([stream.step(x[..., t].numpy()) for t in range(30)], axis=-1)
    np.testing.assert_array_equal(found, _whole(kind, x))
    assert found.shape == (2, 4, 30)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_of_one_sequence_leaves_the_others(kind: str) -> None:
    x = spikes(3, 12, 20, rate=0.4)
    stream = session(kind).stream(3)
    stream.run(x.numpy())
    stream.reset(1)
    found = stream.run(x.numpy())
    fresh = _whole(kind, x)
    twice = _whole(kind, torch.cat([x, x], dim=-1))[..., 20:]
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
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), _whole(name, x))


def test_bins_of_time_come_when_they_are_full() -> None:
    x = spikes(1, 12, 19, rate=0.5)
    stream = session("decimated").stream()
    found = [stream.step(x[..., t].numpy()) for t in range(19)]
    assert [t for t, y in enumerate(found) if y is not None] == [7, 15]
    assert stream.run(x[..., :1].numpy()).shape == (1, 3, 0)
    assert stream.flush().shape == (1, 3, 1)
    assert stream.flush().shape == (1, 3, 0)
    metadata = Metadata.read(so.export(network("decimated"), x, streaming=True))
    assert metadata.chunk == 8


# -- the graph -------------------------------------------------------------------------------


def test_states_are_named_inputs_and_outputs() -> None:
    model = so.export(network("alif"), spikes(2, 12, 9), streaming=True)
    metadata = Metadata.read(model)
    assert metadata.streaming
    names = [state["input"] for state in metadata.states]
    assert names[:6] == [
        "0.neuron.current", "0.neuron.voltage", "0.neuron.threshold", "0.neuron.refractory",
        "0.step.line", "0.delay.line",
    ]  # fmt: skip
    assert "1.neuron.spikes" in names
    assert metadata.exact == ("output",)  # states are no outputs
    assert metadata.chunk == 1
    current, line = metadata.states[0], metadata.states[4]
    assert (current["dtype"], current["shape"]) == ("int64", [None, 10])
    assert (line["dtype"], line["shape"]) == ("float32", [None, 10, 1])
    assert [value.name for value in model.graph.input] == ["input", *names]
    assert [value.name for value in model.graph.output] == [
        "output", *(f"{name}.next" for name in names)
    ]  # fmt: skip
    starts = {state["input"]: state["start"] for state in metadata.states}
    threshold = so.neuron.alif.Neuron(**so.neuron.alif.Neuron.example).threshold
    assert starts["0.neuron.threshold"] == threshold * 4096
    assert starts["0.neuron.current"] == 0
    shapes = {v.name: v.type.tensor_type.shape for v in model.graph.input}
    assert [d.dim_param or d.dim_value for d in shapes["0.neuron.current"].dim] == ["N", 10]
    assert [d.dim_param or d.dim_value for d in shapes["input"].dim] == ["N", 12, "T"]


def test_a_stream_needs_nothing_but_onnx_runtime() -> None:
    """The contract in the metadata, followed by hand."""
    import onnxruntime

    x = spikes(2, 12, 20, rate=0.4)
    model = so.export(network("cuba"), x, streaming=True)
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
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), _whole("cuba", x))


def test_the_streaming_graph_does_not_grow_with_time_either() -> None:
    sizes = {
        len(so.export(network("cuba"), spikes(1, 12, t), streaming=True).SerializeToString())
        for t in (3, 200)
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("name", ["cuba", "rf", "sigma_delta", "decimated", "images"])
@pytest.mark.matrix
def test_verify_runs_the_stream_in_chunks(name: str) -> None:
    _, shape = NETWORKS[name]
    x = spikes(2, *shape, 20, rate=0.4)
    model = so.export(network(name), x, streaming=True)
    report = so.verify(network(name), model, x)
    assert report.ok, str(report)
    assert [row.name for row in report.outputs] == ["output", "output (in chunks)"]
    assert all(row.exact for row in report.outputs)


def test_verify_finds_a_state_that_is_lost() -> None:
    x = spikes(2, 12, 20, rate=0.4)
    model = so.export(network("cuba"), x, streaming=True)
    voltage = next(v for v in model.graph.output if v.name == "1.neuron.voltage.next")
    voltage.name = "lost"
    for node in model.graph.node:
        node.output[:] = ["lost" if n == "1.neuron.voltage.next" else n for n in node.output]
    # the state starts afresh with every chunk
    model.graph.node.append(
        onnx.helper.make_node("Sub", ["lost", "lost"], ["1.neuron.voltage.next"])
    )
    voltage.name = "1.neuron.voltage.next"
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("lost", onnx.TensorProto.INT64, ["N", 10])
    )
    report = so.verify(network("cuba"), model, x)
    assert not report.ok
    assert [row.ok for row in report.outputs] == [True, False]


@pytest.mark.parametrize("how", ["whole", "item", "restore", "another length", "copy"])
def test_steps_go_on_whatever_comes_between(how: str, tmp_path: Path) -> None:
    """Steps of one shape run in buffers of their own, which follow what else changes states."""
    x = spikes(2, 12, 16, rate=0.5)
    stream = so.Session(so.export(network("cuba"), x, streaming=True)).stream(batch=2)
    other = so.Session(so.export(network("cuba"), x, streaming=True)).stream(batch=2)
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


class Watching(nn.Module):
    """Code that keeps the longest sequence that it was run on."""

    longest = 0

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            Watching.longest = max(Watching.longest, x.shape[-1])
        return self.neuron(x)


def test_a_long_example_costs_no_more_than_a_short_one() -> None:
    Watching.longest = 0
    long = so.export(Watching(), spikes(1, 3, 2000), streaming=True)
    assert Watching.longest == 64
    assert long == so.export(Watching(), spikes(1, 3, 20), streaming=True)


class Hundred(nn.Module):
    """Code that is for a hundred steps alone."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x.reshape(-1, 12, 100))


def test_a_network_of_one_length_is_looked_at_as_a_whole() -> None:
    x = spikes(2, 12, 100)
    with pytest.raises(so.ExportError, match="in two chunks, the input of neuron is not that"):
        so.export(Hundred(), x, streaming=True)


# -- errors ------------------------------------------------------------------------------------


class Called(nn.Module):
    """One neuron that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.neuron(x))


class Backwards(nn.Module):
    """Code that looks into the future."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x).flip(-1)


class Summed(Backwards):
    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x).sum(-1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Called(), "forward.. calls neuron 2 times, and it keeps one state"),
        (Backwards(), "in two chunks, output 0 is not that of the whole sequence; code between"),
        (Summed(), r"output 0 of shape \(2, 12\) has no time axis"),
    ],
)
@pytest.mark.parametrize("steps", [20, 200])
def test_networks_that_cannot_stream(module: nn.Module, message: str, steps: int) -> None:
    x = spikes(2, 12, steps, rate=0.6)
    so.export(module, x)
    with pytest.raises(so.ExportError, match=message):
        so.export(module, x, streaming=True)


@pytest.mark.parametrize("steps", [2, 3])
def test_two_steps_are_enough_to_see_that_a_network_cannot_stream(steps: int) -> None:
    x = torch.zeros(1, 12, steps)
    x[..., -1] = 5.0
    with pytest.raises(so.ExportError, match="in two chunks, output 0 is not that of the whole"):
        so.export(Backwards(), x, streaming=True)
    so.export(Backwards(), x[..., :1], streaming=True)  # of one step there is no half


class Added(nn.Module):
    """Code that looks at all steps, in front of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x + 0.01 * x.sum(-1, keepdim=True))


class Repeated(nn.Module):
    """Code that gives the first step once more."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x], -1)


class Longer(nn.Module):
    """Code that gives a short sequence more steps than a long one."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[-1] < 8 else x.repeat(1, 1, 2)


class Total(so.synapse.Dense):
    """A layer with a state that it does not declare."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumsum(-1)


class Rounded(so.synapse.Dense):
    """A layer whose sums depend, in their last bits, on how many steps there are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x.shape[-1] - 8) * 2.0**-23


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Added(), "in two chunks, the input of neuron is not that of .*; code between the layers"),
        (Repeated(), "in two chunks, output 0 is not that of the whole sequence"),
        (Longer(), "in two chunks, output 0 is not that of the whole sequence"),
        (nn.Sequential(Total(12, 3)), "in two chunks, the output of 0 is not .*; the layer looks"),
    ],
    ids=["input", "more", "fewer", "layer"],
)
def test_where_two_chunks_are_not_the_whole(module: nn.Module, message: str) -> None:
    x = spikes(1, 12, 8)
    with pytest.raises(so.ExportError, match=message):
        check_chunks(Streamed(module, [x]), [x])


def test_a_sum_rounded_otherwise_in_a_chunk_is_no_reason_to_refuse() -> None:
    x = torch.ones(1, 1, 8)
    module = nn.Sequential(Rounded(1, 1), so.neuron.lif.Neuron(beta=0.0, threshold=1.0 - 2.0**-24))
    module[0].weight.data.fill_(1.0)
    whole, first = module(x), module(x[..., :4])
    assert not torch.equal(whole[..., :4], first)  # spikes flip
    check_chunks(Streamed(module, [x]), [x])


def test_the_states_of_a_network_and_what_a_look_at_them_leaves() -> None:
    module = so.freeze(network("alif"))
    streamed = Streamed(module, [spikes(2, 12, 9)])
    assert streamed.chunk == 1
    layers = [layer for layer in module.modules() if getattr(layer, "state_starts", None)]
    assert len({id(state.layer) for state in streamed.states}) == len(layers)
    for layer in layers:
        assert not layer.persistent_state
        assert not layer._forward_pre_hooks
        assert layer.carried is None
    for state in streamed.states:
        assert state.output == f"{state.name}.next"
        assert state.example.shape[0] == 2
        assert (state.example == state.start).all()
        assert getattr(state.layer, f"{state.key}_state").dim() == 1, "nothing is kept"
    threshold = next(state for state in streamed.states if state.key == "threshold")
    assert threshold.start > 0
    assert steps_per_bin(so.freeze(network("decimated"))) == 8


def test_a_network_with_its_states_as_arguments() -> None:
    module, x = so.freeze(network("cuba")), spikes(2, 12, 20, rate=0.4)
    streamed = Streamed(module, [x])
    whole = module(x)
    states = [state.example for state in streamed.states]
    parts = []
    with streamed.traced():
        names = list(inspect.signature(module.forward).parameters)
        assert names == ["input", *(f"carried_state_{i}" for i in range(len(states)))]
        for chunk in x.split([7, 13], dim=-1):
            y, *states = module(chunk, *states)
            parts.append(y)
    assert torch.equal(torch.cat(parts, -1), whole)
    assert torch.equal(module(x), whole)


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
    np.testing.assert_array_equal(stream.run(x), _whole("cuba", torch.from_numpy(x)))
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
    np.testing.assert_array_equal(rest, _whole("decimated", torch.from_numpy(x)))


def test_only_streaming_models_stream() -> None:
    x = spikes(2, 12, 8)
    with pytest.raises(so.InputError, match="not exported for streaming; use export"):
        so.Session(so.export(network("cuba"), x)).stream()
    fixed = so.Session(so.export(network("cuba"), x, streaming=True, dynamic=False))
    with pytest.raises(so.InputError, match="fixed batch of 2, got batch=1"):
        fixed.stream()
    np.testing.assert_array_equal(fixed.stream(2).run(x.numpy()), _whole("cuba", x))


def test_a_stream_of_fixed_chunks_has_whole_bins() -> None:
    binned = so.block.cuba.TimeDecimation(4)
    with pytest.raises(so.ShapeError, match=r"chunks of 9 steps.*no multiple of 4.*dynamic=True"):
        so.export(binned, spikes(2, 12, 9), streaming=True, dynamic=False)
    so.export(binned, spikes(2, 12, 9), dynamic=False)
    x = spikes(2, 12, 8)
    stream = so.Session(so.export(binned, x, streaming=True, dynamic=False)).stream(2)
    np.testing.assert_array_equal(stream.run(x.numpy()), binned(x).numpy())


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
