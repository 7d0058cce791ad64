"""What one would write by hand: a loop in torch, an unrolled graph, and the products alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._measure import parsed, session_of
from benchmarks._networks import CURRENT_DECAY, RF, THRESHOLD, VOLTAGE_DECAY, Layer, Network
from benchmarks.contestants import Contestant, Run, UnsupportedError

#: an unrolled graph of more nodes takes minutes to load
MOST_NODES = 12_000


def plain_loop(network: Network, spikes: Tensor) -> Run:
    """Loop in torch, time first: float states, no fixed point.

    Synapses run over all time steps at once; the loop holds the neuron, five elementwise
    operations.
    """
    ready = spikes.movedim(-1, 0).contiguous().movedim(0, -1)

    @torch.no_grad()
    def run() -> Tensor:
        for x in activations(network, ready):
            last = x
        return last.movedim(0, -1)

    return run


def activations(network: Network, spikes: Tensor) -> Iterator[Tensor]:
    """Yield the input and what every layer gives, time first."""
    x = spikes.movedim(-1, 0)
    yield x
    for layer in network.layers:
        x = step(layer, x)
        yield x


def step(layer: Layer, x: Tensor) -> Tensor:
    """Run one layer over (T, N, C[, H, W])."""
    if layer.kind == "flatten":
        return x.flatten(2)
    if layer.kind == "resonator":
        real, imag = (F.linear(x, weight) for weight in layer.weight)
        return resonate(real, imag)
    if layer.kind in ("dense", "recurrent"):
        return cuba(F.linear(x, layer.weight), layer.feedback)
    images = x.flatten(0, 1)
    if layer.kind == "pool":
        images = 4 * 0.5 * F.avg_pool2d(images, 2)
    else:
        images = F.conv2d(images, layer.weight, stride=layer.stride, padding=layer.padding)
    return cuba(images.unflatten(0, x.shape[:2]))


def cuba(currents: Tensor, feedback: Tensor | None = None) -> Tensor:
    """CUBA neurons over currents (T, N, ...), with feedback of the last spikes."""
    u = v = s = torch.zeros_like(currents[0])
    outputs = torch.empty_like(currents)
    for t, x in enumerate(currents):
        drive = x if feedback is None else x + s @ feedback.T
        u = u * (1 - CURRENT_DECAY) + drive
        v = v * (1 - VOLTAGE_DECAY) + u
        s = (v >= THRESHOLD).float()
        v = v * (1 - s)
        outputs[t] = s
    return outputs


def resonate(real: Tensor, imag: Tensor) -> Tensor:
    """RF neurons over complex currents (T, N, C)."""
    sin = (1 - RF["decay"]) * math.sin(2 * math.pi / RF["period"])
    cos = (1 - RF["decay"]) * math.cos(2 * math.pi / RF["period"])
    re = im = torch.zeros_like(real[0])
    outputs = torch.empty_like(real)
    for t in range(len(real)):
        before = im
        re, im = cos * re - sin * im + real[t], sin * re + cos * im + imag[t]
        outputs[t] = ((im >= 0) & (before < 0) & (re >= RF["threshold"])).float()
    return outputs


def unrolled(network: Network, spikes: Tensor) -> Run:
    """Unroll every time step into the graph, as tracing a loop in torch gives it.

    States are floats, the synapse runs once a step, and no size stays open.
    """
    steps = spikes.shape[-1]
    if any(layer.kind == "resonator" for layer in network.layers):
        raise UnsupportedError("resonators are not unrolled")
    if steps * (8 * len(network.layers) + 2) > MOST_NODES:
        raise UnsupportedError(
            f"an unrolled graph of more than {MOST_NODES} nodes loads for minutes"
        )
    lines: list[str] = []
    #: layer -> current, voltage, spikes of the step before
    before: dict[int, tuple[str, str, str]] = {}

    def add(op: str, *inputs: str) -> str:
        lines.append(f"v{len(lines)} = {op}({', '.join(inputs)})")
        return f"v{len(lines) - 1}"

    def step(i: int, layer: Layer, x: str) -> str:
        if layer.kind == "flatten":
            return add("Flatten", x)
        if layer.kind == "pool":
            x = add("Mul", add("AveragePool<kernel_shape = [2, 2], strides = [2, 2]>", x), "two")
        elif layer.kind == "conv":
            pads = [*layer.padding, *layer.padding]
            x = add(f"Conv<strides = {list(layer.stride)}, pads = {pads}>", x, f"w{i}")
        else:
            x = add("MatMul", x, f"w{i}")
        v = x
        if i in before:
            current, voltage, last = before[i]
            if layer.feedback is not None:
                x = add("Add", x, add("MatMul", last, f"f{i}"))
            x = add("Add", add("Mul", current, "current_kept"), x)
            v = add("Add", add("Mul", voltage, "voltage_kept"), x)
        fired = add("GreaterOrEqual", v, "threshold")
        before[i] = x, add("Where", fired, "zero", v), add("Cast<to = 1>", fired)
        return before[i][2]

    results = []
    for t in range(steps):
        x = add(f"Gather<axis = {spikes.dim() - 1}>", "x", f"t{t}")
        for i, layer in enumerate(network.layers):
            x = step(i, layer, x)
        results.append(add("Unsqueeze", x, "last"))
    shape, times = list(spikes.shape), ", ".join(f"int64 t{t} = {{{t}}}" for t in range(steps))
    weights = {}
    for i, layer in enumerate(network.layers):
        if layer.weight is not None:
            weights[f"w{i}"] = layer.weight if layer.kind == "conv" else layer.weight.T
        if layer.feedback is not None:
            weights[f"f{i}"] = layer.feedback.T
    model = parsed(
        f"""g (float{shape} x) => (float[] y)
        <float two = {{2}}, float zero = {{0}}, float threshold = {{{THRESHOLD}}},
        float current_kept = {{{1 - CURRENT_DECAY}}}, float voltage_kept = {{{1 - VOLTAGE_DECAY}}},
        int64[1] last = {{2}}, {times}>
        {{ {" ".join(lines)} y = Concat<axis = 2>({", ".join(results)}) }}""",
        {name: weight.numpy() for name, weight in weights.items()},
    )
    session, array = session_of(model), spikes.numpy()
    return lambda: session.run(None, {"x": array})[0]


def floor(network: Network, spikes: Tensor) -> Run:
    """Bare products in one graph, each with an input of its own, and the bytes that neurons move.

    No neuron runs. What a product leaves is read and as many spikes are written, in float32: a copy
    of so many bytes takes what this machine's memory takes for it.
    """
    inputs, outputs, nodes = [], [], []
    feeds: dict[str, NDArray[Any]] = {}
    weights: dict[str, NDArray[Any]] = {}
    copies: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for i, (layer, (x, y)) in enumerate(
        zip(network.layers, pairwise(activations(network, spikes)), strict=True)
    ):
        if layer.kind != "flatten":
            op, array, weights[f"w{i}"] = _product(layer, x, network.numbers == "q8")
            feeds[f"x{i}"] = np.ascontiguousarray(array)
            kinds = ("uint8", "int32") if op == "MatMulInteger" else ("float", "float")
            inputs.append(f"{kinds[0]}{list(array.shape)} x{i}")
            outputs.append(f"{kinds[1]}[] y{i}")
            nodes.append(f"y{i} = {op}(x{i}, w{i})")
            currents = np.zeros((2 if layer.kind == "resonator" else 1, *y.shape), np.float32)
            copies.append((currents, currents.copy()))
    text = f"g ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}"
    session = session_of(parsed(text, weights))

    def run() -> None:
        session.run(None, feeds)
        for currents, written in copies:
            np.copyto(written, currents)

    return run


def _product(layer: Layer, x: Tensor, in_bytes: bool) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """Return the operator of a layer's product, its input, and its weight."""
    if layer.kind == "recurrent":
        raise UnsupportedError("a product within a loop is no bare product")
    if layer.kind == "pool":
        weight = np.full((x.shape[2], 1, 2, 2), 0.5, np.float32)
        return f"Conv<group = {x.shape[2]}, strides = [2, 2]>", x.flatten(0, 1).numpy(), weight
    if layer.kind == "conv":
        how = f"strides = {list(layer.stride)}, pads = {[*layer.padding, *layer.padding]}"
        return f"Conv<{how}>", x.flatten(0, 1).numpy(), layer.weight.numpy()
    weight = layer.weight.reshape(-1, layer.weight.shape[-1]).numpy().T
    if in_bytes:
        array = x.numpy().astype(np.uint8)
        return "MatMulInteger", array, np.round(weight * 32).astype(np.int8)
    return "MatMul", x.numpy(), weight


CONTESTANTS = (
    Contestant("floor", "bare products, and a copy of currents to spikes; no neuron", floor),
    Contestant("loop", "plain torch loop, time first, float states", plain_loop),
    Contestant("unrolled", "every step unrolled into the graph, float states", unrolled),
)
