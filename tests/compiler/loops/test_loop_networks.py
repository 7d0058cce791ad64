"""Networks that loop over time in torch code: one file, T and N open, the outputs of the module."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from looping import NETWORKS, Looping, example, exported, network, reference, scan_bodies
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

#: (T, N): the shortest, one sample, another batch, and longer than any trace
SIZES = [(1, 2), (4, 1), (7, 5), (23, 3)]


def _shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def _neurons(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type.startswith("Lif")]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_module(name: str) -> None:
    session, sample = so.Session(exported(name)), NETWORKS[name]
    for steps, batch in SIZES if sample.grows else [(9, 2), (9, 1), (9, 5), (9, 7)]:
        inputs = example(name, steps, batch)
        found = session.run(*(x.numpy() for x in inputs))
        found = found if isinstance(found, tuple) else (found,)
        expected = reference(name, inputs)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            if sample.exact:
                np.testing.assert_array_equal(one, other)
            else:
                atol = 1e-5 * np.abs(other).max()
                np.testing.assert_allclose(one, other, rtol=0, atol=atol, strict=True)
            assert steps < 4 or np.ptp(other) > 0  # silence would prove nothing


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_and_batch_are_open(name: str) -> None:
    model, sample = exported(name), NETWORKS[name]
    time = "T" if sample.grows else 9
    for value, channels in zip(model.graph.input, sample.inputs, strict=True):
        assert _shape(value) == [time, "N", channels]
    for value in model.graph.output:
        shape = _shape(value)
        assert shape[:2] == [time, "N"] if len(shape) == 3 else shape[0] == "N"


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_a_loop_and_what_a_neuron(name: str) -> None:
    """A Scan holds a recurrence alone: all synapses before it are outside."""
    model, sample = exported(name), NETWORKS[name]
    assert len(scan_bodies(model)) == sample.scans
    if sample.grows:
        assert len(_neurons(model)) == sample.neurons
    products = {"MatMul", "Gemm"}
    inside = [n.op_type for body in scan_bodies(model) for n in body.node if n.op_type in products]
    recurrent = {"delay_of_3": 1, "feedback": 2, "cells": 4}.get(name, 0)
    assert len(inside) == recurrent


def test_the_file_does_not_depend_on_the_length_of_the_example() -> None:
    name = "maximum"  # its mean divides by the length
    models = [so.export(network(name), example(name, steps)) for steps in (5, 50)]
    assert models[0].SerializeToString() == models[1].SerializeToString()
    assert models[0].SerializeToString() == exported(name).SerializeToString()


def test_an_export_warns_of_nothing(compiled_anew: None) -> None:
    so.export(network("none_state"), example("none_state"))  # warnings are errors here


def test_the_module_is_left_as_it_was(compiled_anew: None) -> None:
    net = Looping(NETWORKS["norms"].run).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    kind, (x,) = type(net), example("norms")
    kept = x.clone()
    so.export(net, x)
    assert net.training
    assert type(net) is kind
    assert torch.equal(x, kept)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_static_image_is_shown_as_often_as_the_network_says() -> None:
    def run(net: Looping, x: Tensor) -> Tensor:
        v, out = 0.0, []
        for _ in range(net.steps):
            v = 0.5 * v + net.fc(x)
            k = (v > 1).float()
            v = v - k
            out.append(k)
        return torch.stack(out)

    net, images = Looping(run).eval(), torch.randint(0, 4, (3, 7)).float()
    model = so.export(net, images[:2])
    assert _shape(model.graph.input[0]) == ["N", 7]
    assert _shape(model.graph.output[0]) == [6, "N", 11]
    with torch.no_grad():
        np.testing.assert_array_equal(so.Session(model).run(images.numpy()), net(images).numpy())


class _Stepped(nn.Module):
    """A neuron within a module, which reads (N, C, T) or (N, T, C)."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.hidden = nn.ModuleDict({"first": Looping(NETWORKS["plain"].run)})

    def forward(self, x: Tensor) -> Tensor:
        first = self.hidden["first"]
        v, out = torch.zeros(x.shape[0], 11), []
        for x_t in x.unbind(self.axis):
            v = 0.5 * v + first.fc(x_t)
            k = (v > 1).float()
            v = v - k
            out.append(k)
        return torch.stack(out, self.axis)


@pytest.mark.parametrize(("axes", "axis"), [("NCT", 2), ("NTC", 1)])
def test_other_axes(axes: str, axis: int) -> None:
    net = _Stepped(axis).eval()
    x = example("plain", 8, 3)[0].movedim(0, axis)
    model = so.export(net, x)
    expected = {"NCT": ["N", 7, "T"], "NTC": ["N", "T", 7]}[axes]
    assert _shape(model.graph.input[0]) == expected
    assert so.export(net, x, axes=axes).SerializeToString() == model.SerializeToString()
    for steps, batch in [(1, 1), (15, 4)]:
        x = example("plain", steps, batch)[0].movedim(0, axis)
        with torch.no_grad():
            np.testing.assert_array_equal(so.Session(model).run(x.numpy()), net(x).numpy())


class _Neuron(nn.Module):
    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def forward(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        v = v + (x - v) / self.decay
        k = (v >= 1).float()
        return k, v * (1 - k)


class TwoNeurons(nn.Module):
    """Two layers in one loop, each with a neuron as a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(7, 11), nn.Linear(11, 4)
        self.neurons = nn.ModuleList([_Neuron(2.0), _Neuron(4.0)])
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(-6, 12, parameter.shape, generator=draw) / 8)

    def forward(self, x: Tensor) -> Tensor:
        v, w, out = _zeros(x, 11), _zeros(x, 4), []
        for x_t in x:
            k, v = self.neurons[0](v, self.one(x_t))
            k, w = self.neurons[1](w, self.two(k))
            out.append(k)
        return torch.stack(out)


def _zeros(x: Tensor, channels: int) -> Tensor:
    return torch.zeros(x.shape[1], channels)


def test_a_neuron_is_called_as_its_module() -> None:
    net, (x,) = TwoNeurons().eval(), example("plain", 20, 3)
    model = so.export(net, x)
    assert _neurons(model) == ["neurons.0", "neurons.1"]
    with torch.no_grad():
        expected = net(x).numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
