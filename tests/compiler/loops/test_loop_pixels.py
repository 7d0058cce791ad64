"""Neurons of values that are no (N, C) or (N, C, H, W), such as the tokens of a transformer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.loops.found import parameter
from synapse_onnx.compiler.loops.pixels import as_before, as_neurons, shape_of_neurons

SHAPES = [(), (5,), (5, 4), (5, 3, 2), (5, 3, 2, 4), (2, 3, 2, 2, 3)]


class Tokens(nn.Module):
    """A neuron over (T, N, ...), between an input and an output (T, N, C)."""

    def __init__(self, shape: tuple[int, ...], decays: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("decay", torch.randint(1, 8, decays) / 8)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        values = x.reshape(*x.shape[:2], *self.shape)
        v, spikes = torch.zeros_like(values[0]), []
        for x_t in values:
            v = self.decay * v + x_t
            s = (v >= 1.0).float()
            v = v - s
            spikes.append(s)
        return torch.stack(spikes).reshape(x.shape)


def _input(steps: int, *shape: int) -> Tensor:
    return torch.randint(-4, 9, (steps, *shape)) / 8


def _flat(steps: int, batch: int, shape: tuple[int, ...]) -> Tensor:
    """An input (T, N, C), as files have them."""
    return _input(steps, batch, math.prod(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_neuron_of_any_shape_is_recognised_and_right(shape: tuple[int, ...]) -> None:
    network = Tokens(shape, ())
    model = so.export(network, _flat(6, 2, shape), axes="TNC")
    assert [node.op_type for node in model.graph.node].count("LifSubtractFloat") == 1
    for steps, batch in ((1, 1), (9, 3)):
        x = _flat(steps, batch, shape)
        found = so.Session(model).run(x.numpy())
        np.testing.assert_array_equal(found, network(x).numpy())
        assert steps == 1 or 0 < found.mean() < 1


@pytest.mark.parametrize("decays", [(5, 1), (4,), (5, 4)], ids=str)
def test_parameters_of_tokens(decays: tuple[int, ...]) -> None:
    """Of each channel, of each token, of each of both."""
    network = Tokens((5, 4), decays)
    model = so.export(network, _flat(6, 2, (5, 4)), axes="TNC")
    assert [node.op_type for node in model.graph.node].count("LifSubtractFloat") == 1
    x = _flat(9, 3, (5, 4))
    found = so.Session(model).run(x.numpy())
    np.testing.assert_array_equal(found, network(x).numpy())
    assert so.verify(network, model, x).verdict == "equal"


def test_a_stream_of_tokens_gives_the_whole() -> None:
    network, x = Tokens((5, 4), (5, 1)), _flat(9, 2, (5, 4))
    model = so.export(network, x, axes="TNC", streaming=True)
    assert [node.op_type for node in model.graph.node].count("LifSubtractFloat") == 1
    stream = so.Session(model).stream(batch=2)
    found = np.concatenate([stream.run(chunk) for chunk in np.split(x.numpy(), [1, 2, 6])])
    np.testing.assert_array_equal(found, network(x).numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_come_back_in_their_shape(shape: tuple[int, ...]) -> None:
    x = _input(3, 2, *shape)
    neurons = as_neurons(x)
    assert tuple(neurons.shape[2:]) == shape_of_neurons(shape)
    assert torch.equal(as_before(neurons, x), x)


@pytest.mark.parametrize(
    ("array", "shape", "expected"),
    [
        ([0.5], (5, 4), ()),
        ([[1.0], [2.0]], (2, 4), (2,)),
        ([1.0, 2.0], (3, 2), (3, 2, 1)),
        ([[[[1.0]]], [[[2.0]]]], (2, 3, 4, 5), (2,)),
        ([1.0, 2.0], (3, 4, 5, 2), (3, 4, 10)),
    ],
)
def test_a_coefficient_becomes_a_parameter(
    array: object, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert np.shape(parameter(array, shape)) == expected
