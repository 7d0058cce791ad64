"""Neurons without a kernel of their own: the Scan in the file, and the kernel that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

import synapse_onnx as so
from benchmarks._measure import turns

__all__ = ["NEURONS", "measure"]

State = dict[str, Tensor]


def _lif(x: Tensor, state: State) -> Any:
    v = 0.9 * state["v"] + x
    s = (v > 1).float()
    return s, {"v": v - s}


def _readout(x: Tensor, state: State) -> Any:
    v = 0.9 * state["v"] + x
    return v, {"v": v}


def _k_lif(x: Tensor, state: State) -> Any:
    v = torch.relu(2 * (state["v"] + (x - state["v"]) / 2))
    s = (v >= 1).float()
    return s, {"v": v - s}


def _adaptive(x: Tensor, state: State) -> Any:
    v = 0.9 * state["v"] + x
    threshold = 1 + 0.7 * state["a"]
    s = (v > threshold).float()
    return s, {"v": v - threshold * s, "a": 0.95 * state["a"] + 0.05 * s}


def _izhikevich(x: Tensor, state: State) -> Any:
    v, u = state["v"], state["u"]
    v = v + 0.04 * v * v + 5 * v + 140 - u + 30 * x
    u = u + 0.02 * (0.2 * v - u)
    s = v >= 30
    return s.float(), {"v": torch.where(s, -65.0, v), "u": u + 8 * s}


def _exponential(x: Tensor, state: State) -> Any:
    v = state["v"] + 0.1 * (-state["v"] + torch.exp((state["v"] - 0.8) / 0.2) + 2 * x)
    s = (v > 1.5).float()
    return s, {"v": v * (1 - s)}


#: name -> a time step, and what its states start from
NEURONS: Mapping[str, tuple[Callable[[Tensor, State], Any], dict[str, float]]] = {
    "LIF": (_lif, {"v": 0.0}),
    "leaky readout": (_readout, {"v": 0.0}),
    "K-LIF": (_k_lif, {"v": 0.0}),
    "adaptive LIF": (_adaptive, {"v": 0.0, "a": 0.0}),
    "Izhikevich": (_izhikevich, {"v": -65.0, "u": -13.0}),
    "exponential IF": (_exponential, {"v": 0.0}),
}


class _Loop(nn.Module):
    """The step of LIF in a loop, which an export recognises: it has a kernel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        state, rows = {"v": torch.zeros(x.shape[1:])}, []
        for frame in x:
            s, state = _lif(frame, state)
            rows.append(s)
        return torch.stack(rows)


def _run_of(
    model: onnx.ModelProto, x: np.ndarray[Any, Any], native: bool, op: str
) -> tuple[Callable[[], Any], np.ndarray[Any, Any]]:
    """Return a run on one thread into memory that is there, and that memory."""
    session = so.Session(model, native=native, threads=1)
    if op not in (
        set(session.native_nodes.values()) if native else {n.op_type for n in model.graph.node}
    ):
        raise AssertionError(f"no {op}")
    raw = session.session
    bound, y = raw.io_binding(), np.empty_like(x)
    bound.bind_cpu_input(raw.get_inputs()[0].name, x)
    bound.bind_output(raw.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return lambda: raw.run_with_iobinding(bound, ort.RunOptions()), y


def measure(name: str, batch: int, neurons: int, steps: int, seconds: float) -> dict[str, float]:
    """Return microseconds of a neuron's Scan and of the kernel, on one thread.

    Args:
        name: one of :data:`NEURONS`.
        batch: number of samples.
        neurons: neurons of a sample.
        steps: time steps.
        seconds: time to spend.

    Returns:
        "Scan" and "kernel"; of LIF also "own kernel", that of the recognised neuron.
    """
    torch.manual_seed(0)
    function, states = NEURONS[name]
    network = nn.Sequential(so.neuron.step(function, states=states)).eval()
    x = (torch.rand(steps, batch, neurons) * 0.4).numpy()
    model = so.export(network, torch.rand(2, neurons, 8), layout="TNC")
    runs = {
        "Scan": _run_of(model, x, False, "Scan"),
        "kernel": _run_of(model, x, True, "ElementwiseScan"),
    }
    if name == "LIF":
        own = so.export(_Loop(), torch.rand(8, 2, neurons), axes="TNC")
        runs["own kernel"] = _run_of(own, x, True, "LifSubtractFloat")
    took = turns({key: run for key, (run, _) in runs.items()}, seconds, clock=time.thread_time)
    outputs = [y for _, y in runs.values()]
    close = 1e-3 if name == "exponential IF" else 0.0  # share of spikes that may differ
    for other in outputs[1:]:
        if (other != outputs[0]).mean() > close:
            raise AssertionError(f"{name}: the outputs differ")
    return {key: 1e6 * value for key, value in took.items()}
