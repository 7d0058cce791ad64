"""Networks of plain torch that loop over time, as people write them: (T, N, 7) -> (T, N, 11).

Weights are multiples of 1/8, inputs whole numbers and decays powers of two, so that sums are exact
in whatever order: spikes and voltages of most networks are compared bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.tiles import is_in_tiles

__all__ = ["NETWORKS", "Sample", "example", "exported", "network", "reference", "scan_bodies"]

#: a neuron, its decay and its threshold
Step = tuple[Tensor, Tensor]


class Looping(nn.Module):
    """Layers for all networks; ``run`` is what forward() does."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run
        self.fc, self.fo = nn.Linear(7, 11), nn.Linear(11, 4)
        self.back, self.rec = nn.Linear(4, 11), nn.Linear(11, 11)
        self.bn, self.ln, self.drop = nn.BatchNorm1d(11), nn.LayerNorm(11), nn.Dropout(0.5)
        self.cell, self.gru = nn.LSTMCell(11, 11), nn.GRUCell(11, 11)
        self.beta = nn.Parameter(torch.zeros(11))
        self.register_buffer("count", torch.zeros(1))
        self.steps = 6
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(-6, 9, parameter.shape, generator=draw) / 8)
            self.bn.running_mean.copy_(self.beta)
            self.bn.running_var.copy_(self.beta.abs() + 0.5)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


@dataclass(frozen=True)
class Sample:
    """A network: what runs, how close its outputs are, the loops that are left and its neurons.

    Attributes:
        run: what forward() does.
        exact: whether every output is the same bit for bit.
        scans: number of Scans in the file.
        neurons: number of lif nodes.
        grows: whether T is open.
        inputs: channels of each input.
    """

    run: Callable[..., Any]
    exact: bool
    scans: int
    neurons: int
    grows: bool
    inputs: tuple[int, ...]


NETWORKS: dict[str, Sample] = {}


def sample(
    *,
    exact: bool = True,
    scans: int = 1,
    neurons: int = 0,
    grows: bool = True,
    inputs: tuple[int, ...] = (7,),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(run: Callable[..., Any]) -> Callable[..., Any]:
        NETWORKS[run.__name__] = Sample(run, exact, scans, neurons, grows, inputs)
        return run

    return add


@cache
def network(name: str) -> Looping:
    return Looping(NETWORKS[name].run).eval()


def example(name: str, steps: int = 9, batch: int = 2) -> tuple[Tensor, ...]:
    """Whole numbers from 0 to 3."""
    draw = torch.Generator().manual_seed(steps * 100 + batch)
    return tuple(
        torch.randint(0, 4, (steps, batch, channels), generator=draw).float()
        for channels in NETWORKS[name].inputs
    )


@cache
def exported(name: str, *, streaming: bool = False) -> onnx.ModelProto:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        # of torch, while it lowers a step; test_an_export_warns_of_nothing looks for them
        return so.export(network(name), example(name), streaming=streaming)


def reference(name: str, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of the network itself; a list with one tensor for every step is stacked."""
    with torch.no_grad():
        outputs = network(name)(*inputs)
    if isinstance(outputs, Tensor):
        return [outputs.numpy()]
    if isinstance(outputs, dict):
        outputs = outputs.values()
    return [
        (torch.stack(output) if isinstance(output, list) else output).numpy() for output in outputs
    ]


def scan_bodies(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [
        attribute.g
        for node in model.graph.node
        if node.op_type == "Scan" and not is_in_tiles(node)
        for attribute in node.attribute
        if attribute.name == "body"
    ]


def spike(voltage: Any, x: Tensor, decay: float = 0.5, threshold: float = 1.0) -> Step:
    """A leaky neuron with a soft reset: its spikes and its voltage."""
    voltage = decay * voltage + x
    spikes = (voltage > threshold).float()
    return spikes, voltage - spikes * threshold


def _zeros(x: Tensor, channels: int = 11) -> Tensor:
    return torch.zeros(x.shape[1], channels)


@sample(scans=0, neurons=1)
def plain(net: Looping, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(x.shape[0]):
        k, v = spike(v, net.fc(x[t]))
        out.append(k)
    return torch.stack(out)


@sample()
def none_state(net: Looping, x: Tensor) -> Tensor:
    v, out = None, []
    for x_t in x:
        i = net.fc(x_t)
        v = i if v is None else 0.5 * v + i
        k = (v > 1).float()
        v = v - k
        out.append(v)
    return torch.stack(out)


@sample(exact=False, scans=0, neurons=1)
def last(net: Looping, x: Tensor) -> Tensor:
    v = _zeros(x)
    for x_t in x:
        _, v = spike(v, net.fc(x_t))
    return net.fo(v)


@sample(exact=False, neurons=1)
def mean(net: Looping, x: Tensor) -> Tensor:
    v, total = _zeros(x), 0.0
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]))
        total = total + net.fo(k)
    return total / len(x)


@sample(exact=False, scans=0, neurons=1)
def maximum(net: Looping, x: Tensor) -> tuple[Tensor, Tensor]:
    v, out = _zeros(x), []
    for t in range(len(x)):
        _, v = spike(v, net.fc(x[t]))
        out.append(v)
    return torch.stack(out).max(0)[0], torch.stack(out).mean(0)


@sample(scans=0, neurons=1)
def lists(net: Looping, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    v, spikes, voltages = _zeros(x), [], []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]))
        spikes.append(k)
        voltages.append(v)
    return spikes, voltages


@sample(scans=0, neurons=1)
def written(net: Looping, x: Tensor) -> Tensor:
    v, out = _zeros(x), torch.zeros(len(x), x.shape[1], 11)
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]))
        out[t] = k
    return out


@sample(scans=0, neurons=1)
def in_place(net: Looping, x: Tensor) -> Tensor:
    v, out = _zeros(x), []
    for t in range(len(x)):
        v *= 0.5
        v += net.fc(x[t])
        k = (v > 1).float()
        v -= k
        out.append(k)
    return torch.stack(out)


@sample()
def delay_of_3(net: Looping, x: Tensor) -> Tensor:
    v, line, out = _zeros(x), [_zeros(x)] * 3, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) + net.rec(line[0]))
        line = [*line[1:], k]
        out.append(k)
    return torch.stack(out)


@sample()
def feedback(net: Looping, x: Tensor) -> Tensor:
    v, w, y, out = _zeros(x), _zeros(x, 4), _zeros(x, 4), []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) + net.back(y))
        y, w = spike(w, net.fo(k))
        out.append(y)
    return torch.stack(out)


@sample(scans=0, neurons=2)
def both_ways(net: Looping, x: Tensor) -> Tensor:
    return torch.cat([plain(net, x), plain(net, x.flip(0)).flip(0)], -1)


@sample(scans=0, neurons=1)
def affine(net: Looping, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) * (1 + 0.125 * t))
        out.append(k)
    return torch.stack(out)


@sample(exact=False)
def power(net: Looping, x: Tensor) -> Tensor:
    total = 0.0
    for t in range(len(x)):
        total = total + net.fc(x[t]) * 0.9**t
    return total


@sample(exact=False, scans=0, neurons=1)
def norms(net: Looping, x: Tensor) -> Tensor:
    v, out = _zeros(x), []
    for t in range(len(x)):
        k, v = spike(v, net.drop(net.ln(net.bn(net.fc(x[t])))), 0.8, 0.43)
        out.append(k)
    return torch.stack(out, 1).mean(1)


@sample(scans=0, neurons=1)
def steps_as_number(net: Looping, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) * len(x))
        out.append(k)
    return torch.stack(out)


@sample(scans=0, neurons=1)
def batch_as_number(net: Looping, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) - x.shape[1])
        out.append(k)
    return torch.stack(out)


@sample(exact=False, scans=0, neurons=1)
def attention(net: Looping, x: Tensor) -> Tensor:
    k = plain(net, x).transpose(0, 1)
    return (torch.softmax(k @ k.transpose(1, 2), -1) @ k).transpose(0, 1)


@sample(scans=0, neurons=1, inputs=(7, 4))
def two_inputs(net: Looping, x: Tensor, y: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) + net.back(y[t]))
        out.append(k)
    return torch.stack(out)


@sample(scans=0, neurons=1)
def cumulative(net: Looping, x: Tensor) -> Tensor:
    total, v, out = net.fc(x).cumsum(0), 0.0, []
    for t in range(len(x)):
        k, v = spike(v, total[t] - 4)
        out.append(k)
    return torch.stack(out)


@sample(scans=0, neurons=1)
def dictionary(net: Looping, x: Tensor) -> dict[str, Tensor]:
    state, out = {"v": _zeros(x)}, []
    for t in range(len(x)):
        k, state["v"] = spike(state["v"], net.fc(x[t]))
        out.append(k)
    return {"spikes": torch.stack(out), "voltage": state["v"]}


@sample()
def learned_start(net: Looping, x: Tensor) -> Tensor:
    v, out = net.beta, []
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]))
        out.append(k)
    return torch.stack(out)


@sample(exact=False, scans=2)
def cells(net: Looping, x: Tensor) -> Tensor:
    h = c = _zeros(x)
    g, out = h, []
    for t in range(len(x)):
        h, c = net.cell(net.fc(x[t]) / 8, (h, c))
        g = net.gru(h, g)
        out.append(g)
    return torch.stack(out)


@sample(scans=0)
def two_before(net: Looping, x: Tensor) -> Tensor:
    return torch.stack([net.fc(x[t] + 0.5 * x[t - 2] if t >= 2 else x[t]) for t in range(len(x))])


@sample()
def growing_threshold(net: Looping, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        v = 0.5 * v + net.fc(x[t])
        k = (v > 0.5 + 0.25 * t).float()
        v = v - k
        out.append(k)
    return torch.stack(out)


@sample(scans=0, grows=False)
def parameter_a_step(net: Looping, x: Tensor) -> Tensor:
    v, out, factors = 0.0, [], net.beta[:9]
    for t in range(len(x)):
        k, v = spike(v, net.fc(x[t]) * factors[t])
        out.append(k)
    return torch.stack(out)
