"""Networks that loop over time in torch code: the loop that was found, and torch's unrolled export.

Each is there twice: with a neuron that is recognised, and with one that stays a Scan.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Mapping
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import synapse_onnx as so
from benchmarks._measure import session_of, turns
from synapse_onnx import block
from synapse_onnx.compiler import _trace
from synapse_onnx.compiler.loops import traces
from synapse_onnx.compiler.loops.recorder import NotRecordedError

__all__ = ["LAYERS", "NETWORKS", "exports", "measure"]


class _Looping(nn.Module):
    """Layers with leaky neurons behind them: (T, N, C[, H, W]) -> spikes (T, N, 10).

    Args:
        layers: the layers.
        taken_off: what a spike takes off; the threshold is 1.
    """

    def __init__(self, *layers: nn.Module, taken_off: float) -> None:
        super().__init__()
        self.layers, self.taken_off = nn.ModuleList(layers), taken_off
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.01, 0.12)

    def forward(self, x: Tensor) -> Tensor:
        value, states = x[0], []
        for layer in self.layers:
            value = torch.zeros_like(layer(value))
            states.append(value)
        rows = []
        for frame in x:
            value = frame
            for i, layer in enumerate(self.layers):
                voltage = 0.9 * states[i] + layer(value)
                value = (voltage > 1.0).float()
                states[i] = voltage - self.taken_off * value
            rows.append(value)
        return torch.stack(rows)


class _Pooled(nn.Module):
    """A convolution of images, a norm if it is wanted, and a pool."""

    def __init__(self, inputs: int, outputs: int, *, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not normed)
        self.norm = nn.BatchNorm2d(outputs) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.norm(self.conv(x)), 2)


def _dense(taken_off: float) -> nn.Module:
    return _Looping(nn.Linear(200, 256), nn.Linear(256, 10), taken_off=taken_off)


def _images(taken_off: float, *, normed: bool = False) -> nn.Module:
    out = nn.Sequential(nn.Flatten(), nn.Linear(16 * 7 * 7, 10))
    layers = _Pooled(1, 8, normed=normed), _Pooled(8, 16, normed=normed), out
    return _Looping(*layers, taken_off=taken_off)


#: a network of layers of this package, among exports
LAYERS = "layers"

#: name -> what makes it, the shape of a frame, and the operator of its neurons in the file
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "mlp": (lambda: _dense(1.0), (200,), "LifSubtractFloat"),
    "mlp, generic": (lambda: _dense(0.75), (200,), "Scan"),
    "cnn": (lambda: _images(1.0), (1, 28, 28), "LifSubtractFloat"),
    "cnn with norms": (lambda: _images(1.0, normed=True), (1, 28, 28), "LifSubtractFloat"),
    "cnn, generic": (lambda: _images(0.75), (1, 28, 28), "Scan"),
}


def _unrolled(network: nn.Module, x: Tensor) -> onnx.ModelProto:
    """Return torch's own export, for one number of steps."""
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def _runs(models: Mapping[str, onnx.ModelProto], x: Tensor, threads: int) -> Mapping[str, Callable]:
    sessions = {
        name: session_of(model, intra_op_num_threads=threads) for name, model in models.items()
    }

    def run_of(session: ort.InferenceSession) -> Callable[[], np.ndarray]:
        feeds = {session.get_inputs()[0].name: x.numpy()}
        return lambda: session.run(None, feeds)[0]

    return {name: run_of(session) for name, session in sessions.items()}


def measure(
    name: str,
    batches: list[int],
    steps: int,
    threads: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, dict[str, float]]:
    """Return milliseconds of a network's file without native kernels, and of the unrolled one.

    Args:
        name: one of :data:`NETWORKS`.
        batches: numbers of samples.
        steps: number of steps.
        threads: threads of ONNX Runtime.
        seconds: time to spend on each number of samples.
        clock: what times them.

    Returns:
        Samples -> "loop", "unrolled" and "flips", spikes that differ.
    """
    torch.manual_seed(0)
    make, shape, operator = NETWORKS[name]
    network, found = make().eval(), {}
    # N = 1 would be broadcast, so that the example has two
    model = so.export(network, torch.rand(steps, 2, *shape).round(), axes="TNC")
    if not any(node.op_type == operator for node in model.graph.node):
        raise AssertionError(f"{name}: the file has no {operator}")
    for batch in batches:
        x = (torch.rand(steps, batch, *shape) < 0.2).float()
        with torch.no_grad():
            models = {"loop": model, "unrolled": _unrolled(network, x)}
        runs = _runs(models, x, threads)
        flips = float((runs["loop"]() != runs["unrolled"]()).sum())
        ms = {key: 1000 * value for key, value in turns(runs, seconds, clock=clock).items()}
        found[batch] = {**ms, "flips": flips}
    return found


def _layers() -> nn.Module:
    neuron = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
    sizes = ((200, 256), (256, 256), (256, 10))
    return nn.Sequential(*(block.cuba.Dense(neuron, *each) for each in sizes)).eval()


def exports(name: str, steps: int, seconds: float) -> dict[str, float]:
    """Return milliseconds of an export with traces on numbers, and with those of torch.export.

    Args:
        name: one of :data:`NETWORKS`, or :data:`LAYERS`.
        steps: number of steps of the example.
        seconds: time to spend.
    """
    torch.manual_seed(0)
    if name == LAYERS:
        network, x, axes = _layers(), torch.rand(2, 200, steps).round(), "NCT"
    else:
        make, shape, _ = NETWORKS[name]
        network, x, axes = make().eval(), torch.rand(steps, 2, *shape).round(), "TNC"

    def export() -> onnx.ModelProto:
        return so.export(network, x, axes=axes)

    def not_recorded() -> onnx.ModelProto:
        with (
            mock.patch.object(traces, "record", side_effect=NotRecordedError),
            mock.patch.object(_trace, "recorded", return_value=None),
        ):
            return export()

    runs = {"on numbers": export, "torch.export": not_recorded}
    if runs["on numbers"]() != runs["torch.export"]():
        raise AssertionError(f"{name}: the files differ")
    return {key: 1000 * value for key, value in turns(runs, seconds).items()}
