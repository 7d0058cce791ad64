"""Synapses in loops: linear maps whose weights lie on a grid become layers of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_forms import form_of
from quantized_networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.compiler.loops.synapses import put_synapses
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.usefixtures("compiled_once")


def rounded(*shape: int, bits: int = 8, axis: int | None = 0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    most = (1 << (bits - 1)) - 1
    integers = torch.randint(-most, most + 1, shape, generator=generator).float()
    if axis is None:
        return integers * 0.013
    scale = 0.01 + 0.02 * torch.rand(shape[axis], generator=generator)
    return integers * scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])


class Net(nn.Module):
    """A layer before neurons, which a loop over the first axis runs."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(()), []
        for x_t in x:
            shaped = x_t.reshape(len(x_t), *self.shape) if self.shape else x_t
            v = 0.75 * v + self.layer(shaped)
            s = (v > 0.5).float()
            v = v - 0.5 * s
            out.append(s)
        return torch.stack(out)


def _with(layer: Any, weight: Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer.eval()


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "linear": (
        lambda: _with(nn.Linear(9, 7), rounded(7, 9)), spikes(6, 3, 9), "QuantizedBiasedDense",
    ),
    "linear-no-bias": (
        lambda: _with(nn.Linear(9, 7, bias=False), rounded(7, 9, axis=None)),
        spikes(6, 3, 9), "QuantizedDense",
    ),
    "linear-tokens": (
        lambda: _with(nn.Linear(9, 7), rounded(7, 9)), spikes(6, 3, 36), "QuantizedBiasedDense",
    ),
    "conv1d": (
        lambda: _with(nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), rounded(6, 4, 3)),
        spikes(6, 3, 44), "QuantizedBiasedConv",
    ),
    "conv2d": (
        lambda: _with(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), rounded(6, 4, 3, 2)),
        spikes(6, 3, 4, 9, 8), "QuantizedBiasedConv",
    ),
    "conv2d-groups": (
        lambda: _with(nn.Conv2d(4, 6, 3, groups=2, bias=False), rounded(6, 2, 3, 3, bits=4)),
        spikes(6, 3, 4, 9, 8), "QuantizedConv",
    ),
    "transpose": (
        lambda: _with(nn.ConvTranspose2d(4, 6, 3, stride=2), rounded(4, 6, 3, 3, axis=1)),
        spikes(6, 3, 4, 5, 4), "QuantizedBiasedConvTranspose",
    ),
    "transpose-1d": (
        lambda: _with(nn.ConvTranspose1d(4, 6, 3, padding=1), rounded(4, 6, 3, axis=1)),
        spikes(6, 3, 28), "QuantizedBiasedConvTranspose",
    ),
    "sixteen-bits": (
        lambda: _with(nn.Linear(9, 7), rounded(7, 9, bits=13)),
        spikes(6, 3, 9), "QuantizedBiasedDense",
    ),
}  # fmt: skip


#: what a step makes of its input, (C,): a sequence has three axes, or five
SHAPES = {"linear-tokens": (4, 9), "conv1d": (4, 11), "transpose-1d": (4, 7)}


@pytest.mark.parametrize("name", LAYERS)
def test_a_linear_map_on_a_grid_becomes_a_synapse_of_integers(name: str) -> None:
    make, x, kind = LAYERS[name]
    network = Net(make(), SHAPES.get(name, ())).eval()
    model = so.export(network, x)
    assert [n.op_type for n in model.graph.node if n.op_type.startswith("Quantized")] == [kind]
    assert not [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "MatMul")]
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    (row,) = (layer for layer in Metadata.read(model).layers if "quantized" in layer)
    assert row["path"] == "layer.synapse"
    assert row["quantized"]
    assert row["bits"] == {"conv2d-groups": 4, "sixteen-bits": 16}.get(name, 8)


NEAR_MISSES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "floats": (lambda: nn.Linear(9, 7), spikes(6, 3, 9)),
    "one-magnitude": (lambda: _with(nn.Linear(9, 7), torch.full((7, 9), 0.3)), spikes(6, 3, 9)),
    "output-padding": (
        lambda: _with(
            nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), rounded(4, 6, 3, 3, axis=1)
        ),
        spikes(6, 3, 4, 5, 4),
    ),
    "groups-of-many-scales": (
        lambda: _with(nn.ConvTranspose2d(4, 6, 3, groups=2), rounded(4, 3, 3, 3, axis=1)),
        spikes(6, 3, 4, 5, 4),
    ),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_other_linear_maps_stay_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    make, x = NEAR_MISSES[name]
    network = Net(make()).eval()
    model = so.export(network, x)
    assert not [n for n in model.graph.node if n.op_type.startswith("Quantized")]
    assert so.verify(network, model, x).ok


def test_weights_that_change_from_step_to_step_are_no_synapse() -> None:
    weight = rounded(3, 3)

    def of_its_step(net: Any, x: Tensor) -> Tensor:
        return torch.stack([F.linear(x_t, weight * x_t[0, 0]) for x_t in x])

    def of_an_input(net: Any, x: Tensor) -> Tensor:
        return torch.stack([F.linear(x_t, weight * x[0, 0, 0]) for x_t in x])

    def plain(net: Any, x: Tensor) -> Tensor:
        return torch.stack([F.linear(x_t, weight) for x_t in x])

    found = []
    for function in (of_its_step, of_an_input, plain):
        form, _ = form_of(function)
        retime(form)
        found.append(len(put_synapses(form)))
    assert found == [0, 0, 1]


def test_one_layer_that_is_called_twice_is_one_synapse() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(()), []
            for x_t in x:
                v = 0.75 * v + self.layer(self.layer(x_t))
                out.append((v > 0.5).float())
            return torch.stack(out)

    network, x = Twice(_with(nn.Linear(7, 7), rounded(7, 7))).eval(), spikes(6, 3, 7)
    model = so.export(network, x)
    assert [n.op_type for n in model.graph.node].count("QuantizedBiasedDense") == 2
    assert next(n for n in Metadata.read(model).layers if "quantized" in n)["kind"] == "Dense"
    assert len([t for t in model.graph.initializer if t.name.endswith("synapse.weight")]) == 1
    assert so.verify(network, model, x).ok


def test_the_initial_state_may_be_a_layers_output_in_a_stream() -> None:
    """The layer then runs on something without time, besides the sequence."""

    class Starts(Net):
        def forward(self, x: Tensor) -> Tensor:
            v, out = self.layer(torch.zeros(x.shape[1], 7)), []
            for x_t in x:
                v = 0.75 * v + self.layer(x_t)
                out.append((v > 0.5).float())
            return torch.stack(out)

    network, x = Starts(_with(nn.Linear(7, 7), rounded(7, 7))).eval(), spikes(6, 3, 7)
    model = so.export(network, x, streaming=True)
    assert so.verify(network, model, x).ok


def test_sums_beyond_float32_are_taken_in_two_parts() -> None:
    weight = rounded(3, 1200, bits=16, axis=None)
    network, x = Net(_with(nn.Linear(1200, 3, bias=False), weight)).eval(), spikes(5, 2, 1200)
    model = so.export(network, x)
    (row,) = (layer for layer in Metadata.read(model).layers if "quantized" in layer)
    assert row["wide"]
    assert so.verify(network, model, x).ok


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_that_torch_adds_within_the_sum_makes_it_no_exact_one(bias: bool) -> None:
    """Scales are powers of two, so without a bias every sum is exact."""

    class Currents(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            currents = [self.layer(x_t) for x_t in x]
            v, out = torch.zeros(()), []
            for current in currents:
                v = 0.75 * v + current
                out.append(v)
            return torch.stack(out), torch.stack(currents)

    torch.manual_seed(0)
    layer = nn.Linear(400, 50, bias=bias)
    network = Currents(_with(layer, torch.round(layer.weight * 256) / 256)).eval()
    if bias:
        with torch.no_grad():
            network.layer.bias.mul_(10)
    x = spikes(20, 4, 400, rate=0.5)
    model = so.export(network, x)
    assert ("output_1" in Metadata.read(model).exact) is not bias
    report = so.verify(network, model, x)
    assert report.ok, str(report)
