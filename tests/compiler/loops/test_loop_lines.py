"""Streams of networks that put steps before a sequence: pads along time, causal convolutions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

Change = Callable[[Tensor], Tensor]

#: weights of a kernel over three steps, and of one for each of 5 channels
KERNEL = torch.tensor([0.5, -1.0, 2.0])


def _pad_and_cut(x: Tensor) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, 3, -3))


def _pad_with_a_number(x: Tensor) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, 1, -1), value=0.5)


def _pad_and_slice(x: Tensor) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, 4, 0))[: x.shape[0]]


def _zeros_before(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:2]), x])[: x.shape[0]]


def _one_step_late(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


def _late_in_the_last_axis(x: Tensor) -> Tensor:
    zeros = torch.zeros(x.shape[1], 5, 1)
    return torch.cat([zeros, x.permute(1, 2, 0)[..., : len(x) - 1]], -1).permute(2, 0, 1)


def _depthwise(x: Tensor) -> Tensor:
    padded = functional.pad(x.permute(1, 2, 0), (2, 0))
    return functional.conv1d(padded, KERNEL.expand(5, 1, 3), groups=5).permute(2, 0, 1)


def _each_value(x: Tensor) -> Tensor:
    """Every channel of every sample is a sequence of its own, as in SpikingJelly's sliding PSN."""
    padded = functional.pad(x.flatten(1).t().unsqueeze(1), (2, 0))
    return functional.conv1d(padded, KERNEL.view(1, 1, 3)).squeeze(1).t().reshape(x.shape)


def _twice(x: Tensor) -> Tensor:
    return _depthwise(_pad_and_cut(x)) + _zeros_before(x)


CAUSAL = [
    _pad_and_cut, _pad_with_a_number, _pad_and_slice, _zeros_before, _depthwise, _each_value,
    _one_step_late, _late_in_the_last_axis, _twice,
]  # fmt: skip


class Network(nn.Module):
    """A change of the sequence, and a leaky sum in a loop if asked for."""

    def __init__(self, change: Change, *, loops: bool) -> None:
        super().__init__()
        self.change, self.loops = change, loops

    def forward(self, x: Tensor) -> Tensor:
        x = self.change(x)
        if not self.loops:
            return x
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = 0.5 * v + x_t
            out.append(v)
        return torch.stack(out)


def _input(steps: int, batch: int) -> Tensor:
    return torch.randint(-4, 5, (steps, batch, 5)) / 4


def _streamed(network: nn.Module, x: Tensor, cuts: list[int]) -> np.ndarray:
    model = so.export(network, x, axes="TNC", streaming=True)
    stream = so.Session(model).stream(batch=x.shape[1])
    return np.concatenate([stream.run(chunk) for chunk in np.split(x.numpy(), cuts)])


@pytest.mark.parametrize("loops", [True, False], ids=["loop", "no loop"])
@pytest.mark.parametrize("change", CAUSAL, ids=lambda change: change.__name__[1:])
def test_any_chunks_give_the_whole(change: Change, loops: bool) -> None:
    network, x = Network(change, loops=loops), _input(12, 2)
    np.testing.assert_array_equal(_streamed(network, x, [1, 2, 3, 8]), network(x).numpy())


@pytest.mark.parametrize("change", [_depthwise, _each_value], ids=lambda c: c.__name__[1:])
def test_one_sample_starts_afresh(change: Change) -> None:
    network, x = Network(change, loops=True), _input(10, 3)
    model = so.export(network, x, axes="TNC", streaming=True)
    stream = so.Session(model).stream(batch=3)
    stream.run(x[:6].numpy())
    stream.reset(1)
    found = stream.run(x[6:].numpy())
    np.testing.assert_array_equal(found[:, [0, 2]], network(x)[6:, [0, 2]].numpy())
    np.testing.assert_array_equal(found[:, 1], network(x[6:])[:, 1].numpy())


def test_the_states_are_named_and_verify_streams_them() -> None:
    network, x = Network(_twice, loops=True), _input(12, 2)
    model = so.export(network, x, axes="TNC", streaming=True)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert shapes["loop.line.0"] == ["N", 1, 5, 3]
    assert shapes["loop.line.1"] == ["N", 1, 5, 2]
    assert so.verify(network, model, x).verdict == "equal"


def test_a_whole_sequence_is_padded_as_before() -> None:
    model = so.export(Network(_depthwise, loops=True), _input(6, 2), axes="TNC")
    assert [node.op_type for node in model.graph.node].count("Pad") == 1


def _sees_later_steps(x: Tensor) -> Tensor:
    padded = functional.pad(x.permute(1, 2, 0), (1, 1))
    return functional.conv1d(padded, KERNEL.expand(5, 1, 3), groups=5).permute(2, 0, 1)


def _channels_first(x: Tensor) -> Tensor:
    """The first axis is (C * N): a line for it could not start one sample afresh."""
    padded = functional.pad(x.permute(2, 1, 0).reshape(-1, 1, len(x)), (2, 0))
    y = functional.conv1d(padded, KERNEL.view(1, 1, 3))
    return y.reshape(5, x.shape[1], len(x)).permute(2, 1, 0)


def _every_second_window(x: Tensor) -> Tensor:
    padded = functional.pad(x.permute(1, 2, 0), (2, 0))
    kernel = KERNEL.expand(5, 1, 3)
    return functional.conv1d(padded, kernel, groups=5, stride=2).permute(2, 0, 1)


def _counted(x: Tensor) -> Tensor:
    return x * (torch.arange(len(x)) % 4 == 0).float().reshape(-1, 1, 1)


def _every_second_is_zero(x: Tensor) -> Tensor:
    y = x.clone()
    y[1::2] = 0
    return y


@pytest.mark.parametrize("loops", [True, False], ids=["loop", "no loop"])
@pytest.mark.parametrize(
    "change", [_every_second_window, _counted, _every_second_is_zero], ids=lambda c: c.__name__[1:]
)
@pytest.mark.parametrize("steps", [8, 64])
def test_what_counts_steps_from_the_start_of_a_chunk_is_refused(
    change: Change, steps: int, loops: bool
) -> None:
    """Its period divides the half of the example, where one of the chunks begins."""
    takes_all = loops and change is _every_second_window  # the loop does not take so many steps
    sentence = "is not the number of steps" if takes_all else "streaming: in chunks"
    with pytest.raises(so.ExportError, match=sentence):
        so.export(Network(change, loops=loops), _input(steps, 2), axes="TNC", streaming=True)


@pytest.mark.parametrize("change", [_sees_later_steps, _channels_first])
def test_what_no_line_can_keep_is_refused(change: Change) -> None:
    network = Network(change, loops=True)
    with pytest.raises(so.ExportError, match="streaming: in chunks, output 0 is not that"):
        so.export(network, _input(8, 2), axes="TNC", streaming=True)
    so.export(network, _input(8, 2), axes="TNC")


def test_a_pad_of_channels_is_no_line() -> None:
    def change(x: Tensor) -> Tensor:
        return functional.pad(x, (1, -1))

    network, x = Network(change, loops=True), _input(5, 2)  # as many channels as steps
    model = so.export(network, x, axes="TNC", streaming=True)
    assert not [value.name for value in model.graph.input if "line" in value.name]
    np.testing.assert_array_equal(_streamed(network, x, [1, 3]), network(x).numpy())
