"""Neurons with a synaptic current in loops, and neurons whose voltage is read.

Decays and inputs are powers of two and multiples of 1/8, so that all is compared bit for bit. A
network runs many neurons side by side, which one export finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.usefixtures("compiled_once")

#: (current, voltage, spike) of the step before, input -> the same of this step
Step = Callable[[Any, Any, Any, Tensor], tuple[Any, Any, Any]]


def _spike(v: Tensor, threshold: float = 0.75) -> Tensor:
    return (v > threshold).float()


def _synaptic(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u + x
    v = 0.75 * v + u
    k = _spike(v)
    return u, v - 0.75 * k, k


def _delayed(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u + x
    v = 0.75 * v + u - 0.75 * k
    return u, v, _spike(v)


def _input_enters_before_the_decay(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * (u + x)
    v = v + 0.25 * (0.0 - v + u)
    k = _spike(v, 0.5)
    return u, (1 - k) * v + k * -0.25, k


def _old_current(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    v = 0.75 * v + 0.5 * u
    k = _spike(v, 0.5)
    return 0.5 * u + x, v * (1 - k), k


def _part_of_the_old_current(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    v = 0.75 * v + 0.25 * u
    k = _spike(v, 0.25)
    return 0.5 * u + x, v * (1 - k), k


def _current_after_the_voltage(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = u + x
    v = v + 0.5 * (u - v)
    k = (v >= 0.5).float()
    return u - 0.25 * u, torch.where(k.bool(), torch.zeros_like(v), v), k


def _no_leak(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    v = v + 0.125 * x
    k = _spike(v)
    return u, v - 0.75 * k, k


NEURONS: Mapping[str, tuple[Step, dict[str, Any]]] = {
    "synaptic": (_synaptic, {"alpha": 0.5, "beta": 0.75, "gain": 1.0, "reset": "subtract"}),
    "delayed": (_delayed, {"alpha": 0.5, "beta": 0.75, "gain": 1.0, "reset": "delayed"}),
    "before": (
        _input_enters_before_the_decay,
        {"alpha": 0.5, "beta": 0.75, "gain": 0.125, "reset": "zero", "v_reset": -0.25},
    ),
    "old": (_old_current, {"alpha": 0.5, "beta": 0.75, "gain": 0.5, "reset": "zero"}),
    "part": (_part_of_the_old_current, {"alpha": 0.5, "beta": 0.75, "gain": 0.25}),
    "after": (_current_after_the_voltage, {"alpha": 0.75, "beta": 0.5, "gain": 0.5}),
    "no_leak": (_no_leak, {"alpha": 0.0, "beta": 1.0, "reset": "subtract"}),
}

# -- what is none ----------------------------------------------------------------------------------


def _current_is_reset(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u + x
    v = 0.75 * v + u
    k = _spike(v)
    return u * (1 - k), v * (1 - k), k


def _another_amount(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u + x
    v = 0.75 * v + u
    k = _spike(v)
    return u, v - 0.625 * k, k


def _below(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u + x
    v = 0.75 * v + u
    k = (v <= 0.75).float()
    return u, v * (1 - k), k


def _old_current_beside_the_leak(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    """Its first voltages follow from no input."""
    v = v + 0.25 * ((0.0 - v) + u)
    k = _spike(v, 0.5)
    return u - 0.5 * u + x, (1 - k) * v, k


def _two_currents(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    """Another state beside the current: the voltage reads both."""
    fast, slow = (u, u) if isinstance(u, Tensor) else u
    fast, slow = 0.5 * fast + x, 0.75 * slow + x
    v = 0.75 * v + fast - slow
    k = _spike(v)
    return (fast, slow), v - 0.75 * k, k


OTHERS: Mapping[str, Step] = {
    "two_currents": _two_currents,
    "beside": _old_current_beside_the_leak,
    "current_is_reset": _current_is_reset,
    "another_amount": _another_amount,
    "below": _below,
}


def _squared(u: Any, v: Any, k: Any, x: Tensor) -> tuple[Any, Any, Any]:
    u = 0.5 * u * u * 0.0625 + x
    v = 0.75 * v + u
    k = _spike(v)
    return u, v - 0.75 * k, k


#: a current that is no current of ours: the voltage is a neuron, which reads what a Scan gives
HALVES: Mapping[str, Step] = {"squared": _squared}


class Neuron(nn.Module):
    """A loop over time: (T, N, 3) -> spikes, and voltages and currents if they are read."""

    def __init__(self, step: Step, reads: str = "k", start: float = 0.0) -> None:
        super().__init__()
        self.step, self.reads, self.start = step, reads, start
        self.weight = nn.Parameter(torch.ones(3))
        self.mix = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])

    def forward(self, x: Tensor) -> list[Tensor]:
        u = torch.full((x.shape[1], 3), self.start)
        v, k = torch.zeros(x.shape[1], 3), torch.zeros(x.shape[1], 3)
        rows = []
        for x_t in x * self.weight:  # loops side by side share no value
            u, v, k = self.step(u, v, k, x_t)
            rows.append({"u": u, "v": v, "k": k, "m": u @ self.mix if "m" in self.reads else None})
        return [torch.stack([row[name] for row in rows]) for name in self.reads]


class SideBySide(nn.Module):
    """Several loops over the same input."""

    def __init__(self, **loops: Neuron) -> None:
        super().__init__()
        self.loops = nn.ModuleDict(loops)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y for loop in self.loops.values() for y in loop(x))


def _network(name: str) -> nn.Module:
    if name == "neurons":
        return SideBySide(**{key: Neuron(step) for key, (step, _) in NEURONS.items()})
    if name == "voltages":
        return SideBySide(
            synaptic=Neuron(_synaptic, "kv"), delayed=Neuron(_delayed, "vk"),
            old=Neuron(_old_current, "v"), no_leak=Neuron(_no_leak, "v"),
        )  # fmt: skip
    if name == "halves":
        loops = {key: Neuron(step) for key, step in HALVES.items()}
        loops |= {"read": Neuron(_synaptic, "ku"), "mixed": Neuron(_synaptic, "km")}
        loops |= {"started": Neuron(_synaptic, start=1.0)}
        return SideBySide(**loops)
    return SideBySide(**{key: Neuron(step) for key, step in OTHERS.items()})


NETWORKS = ("neurons", "voltages", "halves", "others")


def _example(steps: int = 9, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(steps)
    return torch.randint(-4, 9, (steps, batch, 3), generator=draw) / 8


@cache
def _exported(name: str, streaming: bool = False) -> onnx.ModelProto:
    return so.export(_network(name), _example(), streaming=streaming)


def _expected(name: str, x: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [y.numpy() for y in _network(name)(x)]


def _paths(name: str, op: str) -> set[str]:
    model = _exported(name)
    nodes = [node.name for node in model.graph.node if node.op_type.startswith(op)]
    return {node.split("/")[0].removesuffix(".neuron") for node in nodes}


def test_neurons_with_a_current_are_neurons() -> None:
    assert _paths("neurons", "Scan") == set()
    metadata = Metadata.read(_exported("neurons"))
    layers = {each["path"].removesuffix(".neuron"): each for each in metadata.layers}
    assert set(layers) == {f"loops.{name}" for name in NEURONS}
    for name, (_, expected) in NEURONS.items():
        found = layers[f"loops.{name}"]
        for key, value in expected.items():
            if key == "reset":
                assert found["reset"] == value, name
            else:
                assert found["ranges"][key] == pytest.approx([value, value], abs=1e-7), (name, key)
    # a threshold that is reached is another one than a threshold that is passed
    assert layers["loops.after"]["threshold"] == [0.5]
    assert layers["loops.old"]["threshold"][0] > 0.5


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_another_neuron_stays_a_loop(name: str) -> None:
    assert f"loops.{name}" in _paths("others", "Scan")
    assert f"loops.{name}" not in _paths("others", "Lif")


@pytest.mark.parametrize("name", [*HALVES, "read", "mixed", "started"])
def test_a_neuron_reads_what_is_no_current_of_it(name: str) -> None:
    """Also one that is read elsewhere, or starts from another number than zero."""
    assert f"loops.{name}" in _paths("halves", "Scan")
    assert f"loops.{name}" in _paths("halves", "Lif")


def test_a_voltage_that_is_read_is_that_of_the_neuron() -> None:
    assert _paths("voltages", "Scan") == set()
    ops = [node.op_type for node in _exported("voltages").graph.node if "Lif" in node.op_type]
    assert sorted(ops) == [
        "LifDelayedDynamicsFloat", "LifDynamicsFloat", "LifSubtractDynamicsFloat",
        "LifSubtractDynamicsFloat",
    ]  # fmt: skip


@pytest.mark.parametrize("native", [None, False], ids=["as it comes", "portable"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_those_of_torch(name: str, native: bool | None) -> None:
    session = so.Session(_exported(name), native=native)
    for steps, batch in [(1, 1), (40, 3)]:
        x = _example(steps, batch)
        for one, other in zip(session.run(x.numpy()), _expected(name, x), strict=True):
            np.testing.assert_array_equal(one, other)
    spikes = [y for y in _expected(name, x) if np.isin(y, (0, 1)).all()]
    assert all(0 < y.mean() < 1 for y in spikes)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_chunks_give_the_whole(name: str) -> None:
    draw, x = np.random.default_rng(0), _example(40, 3)
    stream, rows, start = so.Session(_exported(name, streaming=True)).stream(batch=3), [], 0
    while start < len(x):
        length = int(draw.integers(1, 8))
        rows.append(stream.run(x[start : start + length].numpy()))
        start += length
    for column, other in zip(zip(*rows, strict=True), _expected(name, x), strict=True):
        np.testing.assert_array_equal(np.concatenate(column), other)


@pytest.mark.parametrize("name", NETWORKS)
def test_verify_names_what_it_compares(name: str) -> None:
    report = so.verify(_network(name), _exported(name), _example())
    assert report.ok, report.problems
    compared = {row.name for row in report.layers if row.kind == "lif"}
    assert {path.removesuffix(".neuron") for path in compared} == _paths(name, "Lif")
