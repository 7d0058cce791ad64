"""Our torch modules, frozen, in eager mode: the reference that the file is equal to."""

from __future__ import annotations

import torch
from torch import Tensor

import synapse_onnx as so
from benchmarks._contest import Contestant, Run
from benchmarks._modules import build
from benchmarks._networks import Network


def make(network: Network, spikes: Tensor) -> Run:
    """Freeze; the input is (N, C[, H, W], T)."""
    frozen = so.freeze(build(network))

    @torch.no_grad()
    def run() -> Tensor:
        result: Tensor = frozen(spikes)
        return result

    return run


CONTESTANT = Contestant("torch", "our modules, eager", make, exact=True)
