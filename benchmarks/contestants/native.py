"""The same exported file with native kernels, where the install brought them."""

from __future__ import annotations

from torch import Tensor

import synapse_onnx as so
from benchmarks._contest import Contestant, Run, UnsupportedError
from benchmarks._modules import build
from benchmarks._networks import Network
from synapse_onnx.runtime import native


def make(network: Network, spikes: Tensor) -> Run:
    """Export and load; the input is (N, C[, H, W], T) in float32, as at the file's border."""
    problem = native.problem()
    if problem is not None:
        raise UnsupportedError(f"there are no native kernels: {problem}")
    model = so.export(build(network), spikes[:1, ..., :4])
    session, array = so.Session(model, native=True), spikes.numpy()
    return lambda: session.run(array)


CONTESTANT = Contestant("native", "the same file with native kernels", make, exact=True)
