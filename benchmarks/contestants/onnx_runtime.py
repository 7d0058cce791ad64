"""The exported file in ONNX Runtime on the CPU: what this project makes."""

from __future__ import annotations

from torch import Tensor

import synapse_onnx as so
from benchmarks._contest import Contestant, Run
from benchmarks._modules import build
from benchmarks._networks import Network


def make(network: Network, spikes: Tensor) -> Run:
    """Export and load; the input is (N, C[, H, W], T) in float32, as at the file's border."""
    model = so.export(build(network), spikes[:1, ..., :4])
    session, array = so.Session(model, native=False), spikes.numpy()
    return lambda: session.run(array)


CONTESTANT = Contestant(
    "onnx", "the exported file without native kernels, input in NCT float32", make, exact=True
)
