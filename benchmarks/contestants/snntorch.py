"""snnTorch: Synaptic neurons (current and voltage), one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks._contest import Contestant, Run
from benchmarks._layers import by_layer, imported
from benchmarks._networks import CURRENT_DECAY, THRESHOLD, VOLTAGE_DECAY, Network


def make(network: Network, spikes: Tensor) -> Run:
    """Bring the input to (T, N, C[, H, W])."""
    snn = imported("snntorch")

    def neuron() -> nn.Module:
        made: nn.Module = snn.Synaptic(
            alpha=1 - CURRENT_DECAY, beta=1 - VOLTAGE_DECAY, threshold=THRESHOLD,
            reset_mechanism="zero", init_hidden=True,
        )  # fmt: skip
        return made

    net = nn.Sequential(*by_layer(network, neuron)).eval()
    steps = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        for module in net:
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        return torch.stack([net(x) for x in steps], -1)

    return run


CONTESTANT = Contestant("snnTorch", "Synaptic: both states, step by step", make)
