"""NIR graphs for tests: nodes with what they compute, neurons with their equations, cycles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so

DT = 1e-4
STEPS = 40


def drive(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, STEPS, generator=generator) < 0.4).float()


def many(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or (4,), value)


def line(*nodes: Any, shape: tuple[int, ...] = (4,), **metadata: Any) -> nir.NIRGraph:
    """A graph of one node behind another."""
    parts = {"input": nir.Input(np.array(shape))}
    parts |= {f"n{i}": node for i, node in enumerate(nodes)}
    parts["output"] = nir.Output(np.array([1]))
    names = list(parts)
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(parts, edges, metadata=metadata, type_check=False)


#: framework -> what its graphs leave open, as it is by default: with these nothing is assumed
SETTLED: dict[str, dict[str, Any]] = {
    "nir": {"dt": DT},
    "snntorch": {"reset": "delayed"},
    "norse": {"dt": 1e-3, "reset": "zero", "version": "1.1.0"},
    "spikingjelly": {"dt": DT},
    "sinabs": {
        "reset": "subtract", "max_spikes": math.inf, "min_v_mem": "if", "enters": "lost",
        "readout_enters": "whole",
    },
    "rockpool": {"dt": 1e-3, "max_spikes": 2.0**16},
}  # fmt: skip


def read(graph: Any, framework: str = "nir", **how: Any) -> Any:
    """Read a graph, with nothing left to assume."""
    return so.load_nir(graph, framework=framework, **(SETTLED[framework] | how))


def both(graph: nir.NIRGraph, x: Tensor, tmp_path: Path, **how: Any) -> np.ndarray:
    """The output in torch, from the graph and from its file; ONNX Runtime must agree."""
    net = read(graph, **how)
    path = tmp_path / "a.nir"
    nir.write(path, graph)
    with torch.no_grad():
        output = net(x)
        again = read(path, **how)(x)
    assert torch.equal(output, again)
    model = so.export(net, x)
    report = so.verify(net, model, x)
    assert report.ok, str(report)
    result: np.ndarray = output.numpy()
    return result


WEIGHT = np.random.default_rng(0).normal(size=(3, 4))
KERNEL = np.random.default_rng(1).normal(size=(4, 2, 3, 2))
BIAS = np.array([0.5, -0.25, 0.125, 0.0])


def conv2d(padding: Any = 0, groups: int = 1, **more: Any) -> Any:
    options = {"stride": (1, 1), "dilation": (1, 1)} | more
    weight = KERNEL[:, : 2 // groups]
    return nir.Conv2d((6, 7), weight, padding=padding, groups=groups, bias=BIAS, **options)


def torch_conv(x: Tensor, padding: Any = 0, groups: int = 1, **more: Any) -> Tensor:
    weight = torch.from_numpy(KERNEL[:, : 2 // groups]).float()
    flat = x.movedim(-1, 1).flatten(0, 1)
    y = nn.functional.conv2d(
        flat, weight, torch.from_numpy(BIAS).float(), padding=padding, groups=groups, **more
    )
    return y.unflatten(0, (x.shape[0], x.shape[-1])).movedim(1, -1)


def framewise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        flat = x.movedim(-1, 1).flatten(0, 1)
        return function(flat).unflatten(0, (x.shape[0], x.shape[-1])).movedim(1, -1)

    return run


IMAGE = (2, 6, 7)
NODES: dict[str, tuple[Any, tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "linear": (
        nir.Linear(WEIGHT), (4,),
        lambda x: torch.einsum("oi,nit->not", torch.from_numpy(WEIGHT).float(), x),
    ),
    "affine": (
        nir.Affine(WEIGHT, BIAS[:3]), (4,),
        lambda x: torch.einsum("oi,nit->not", torch.from_numpy(WEIGHT).float(), x)
        + torch.from_numpy(BIAS[:3]).float()[:, None],
    ),
    "scale": (
        nir.Scale(BIAS), (4,), lambda x: x * torch.from_numpy(BIAS).float()[:, None]
    ),
    "scale of an image": (
        nir.Scale(np.arange(84.0).reshape(IMAGE)), IMAGE,
        lambda x: x * torch.arange(84.0).reshape(*IMAGE, 1),
    ),
    "threshold": (nir.Threshold(many(0.5)), (4,), lambda x: (x > 0.5).float()),
    "conv2d": (conv2d(), IMAGE, torch_conv),
    "conv2d padded": (
        conv2d((2, 1), stride=(2, 1)), IMAGE,
        lambda x: torch_conv(x, (2, 1), stride=(2, 1)),
    ),
    "conv2d same": (conv2d("same"), IMAGE, lambda x: torch_conv(x, "same")),
    "conv2d valid": (conv2d("valid"), IMAGE, torch_conv),
    "conv2d groups": (
        conv2d(groups=2, dilation=(2, 1)), IMAGE,
        lambda x: torch_conv(x, groups=2, dilation=(2, 1)),
    ),
    "conv1d": (
        nir.Conv1d(7, KERNEL[:, :, :, 0], 2, 1, 1, 1, BIAS), (2, 7),
        framewise(
            lambda y: nn.functional.conv1d(
                y[:, :, 0], torch.from_numpy(KERNEL[:, :, :, 0]).float(),
                torch.from_numpy(BIAS).float(), 2, 1,
            ).unsqueeze(2)
        ),
    ),
    "sum pool": (
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), IMAGE,
        framewise(lambda y: 4 * nn.functional.avg_pool2d(y, 2)),
    ),
    "avg pool, overlapping": (
        nir.AvgPool2d(np.array([3, 2]), np.array([1, 2]), np.array([1, 0])), IMAGE,
        framewise(lambda y: nn.functional.avg_pool2d(y, (3, 2), (1, 2), (1, 0))),
    ),
    "flatten": (
        nir.Flatten({"input": np.array(IMAGE)}, 0, -1), IMAGE, lambda x: x.flatten(1, 3)
    ),
    "flatten of two axes": (
        nir.Flatten({"input": np.array(IMAGE)}, 1, 2), IMAGE,
        lambda x: x.flatten(2, 3).unsqueeze(2),
    ),
    "delay": (
        nir.Delay(np.array([0, 1, 2, 5]) * DT), (4,),
        lambda x: torch.stack(
            [nn.functional.pad(x[:, i], (d, 0))[..., :STEPS] for i, d in enumerate((0, 1, 2, 5))], 1
        ),
    ),
}  # fmt: skip


def loop(
    x: np.ndarray, *, a: float, b: float, c: float, d: float, e: float, level: float = math.inf,
    reset: str = "zero", value: float = 0.0, strict: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """u = a u + b x; v = c v + d u + e, in double; spikes and voltages before a reset."""
    u = v = np.zeros(x.shape[:-1])
    fired = np.zeros(x.shape[:-1], bool)
    spikes, voltages = [], []
    for t in range(x.shape[-1]):
        u = a * u + b * x[..., t]
        v = c * v + d * u + e - (level * fired if reset == "delayed" else 0)
        fired = v > level if strict else v >= level
        spikes.append(fired)
        voltages.append(v)
        if reset == "zero":
            v = np.where(fired, value, v)
        elif reset == "subtract":
            v = np.where(fired, v - level, v)
    return np.stack(spikes, -1), np.stack(voltages, -1)


TAU, SYN = 1.3e-3, 0.7e-3
NEURONS: dict[str, tuple[Any, dict[str, float]]] = {
    "I": (nir.I(many(3000)), {"a": 0, "b": 1, "c": 1, "d": 3000 * DT, "e": 0}),
    "IF": (
        nir.IF(many(3000), many(0.71), many(-0.1)),
        {"a": 0, "b": 1, "c": 1, "d": 3000 * DT, "e": 0, "level": 0.71, "value": -0.1},
    ),
    "LI": (
        nir.LI(many(TAU), many(3), many(0.2)),
        {"a": 0, "b": 1, "c": 1 - DT / TAU, "d": 3 * DT / TAU, "e": 0.2 * DT / TAU},
    ),
    "LIF": (
        nir.LIF(many(TAU), many(3), many(0.2), many(0.6), many(0.1)),
        {"a": 0, "b": 1, "c": 1 - DT / TAU, "d": 3 * DT / TAU, "e": 0.2 * DT / TAU,
         "level": 0.6, "value": 0.1},
    ),
    "CubaLI": (
        nir.CubaLI(many(SYN), many(TAU), many(4), many(-0.1), 1.5),
        {"a": 1 - DT / SYN, "b": 1.5 * DT / SYN, "c": 1 - DT / TAU, "d": 4 * DT / TAU,
         "e": -0.1 * DT / TAU},
    ),
    "CubaLIF": (
        nir.CubaLIF(many(SYN), many(TAU), many(9), many(-0.1), many(0.6), many(0.0), 1.5),
        {"a": 1 - DT / SYN, "b": 1.5 * DT / SYN, "c": 1 - DT / TAU, "d": 9 * DT / TAU,
         "e": -0.1 * DT / TAU, "level": 0.6},
    ),
}  # fmt: skip


def lif(count: int = 4, level: float = 0.6) -> Any:
    return nir.LIF(*(np.full(count, value) for value in (TAU, 9.0, 0.0, level)))


def recurrent(weight: np.ndarray, bias: Any = None, *, nested: bool = True) -> nir.NIRGraph:
    inner = {
        "input": nir.Input(np.array([4])),
        "lif": lif(),
        "w_rec": nir.Linear(weight) if bias is None else nir.Affine(weight, bias),
        "output": nir.Output(np.array([4])),
    }
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    graph = nir.NIRGraph(inner, edges, type_check=False)
    if not nested:
        return graph
    return nir.NIRGraph(
        {"input": nir.Input(np.array([4])), "rnn": graph, "output": nir.Output(np.array([4]))},
        [("input", "rnn"), ("rnn", "output")],
        type_check=False,
    )
