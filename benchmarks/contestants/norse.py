"""Norse: LIF cells (current and voltage), one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks._contest import Contestant, Run
from benchmarks._layers import by_layer, imported
from benchmarks._networks import CURRENT_DECAY, THRESHOLD, VOLTAGE_DECAY, Network


def make(network: Network, spikes: Tensor) -> Run:
    """Bring the input to (T, N, C[, H, W])."""
    norse = imported("norse.torch")

    def neuron() -> nn.Module:
        one = torch.tensor(1.0)
        parameters = norse.LIFParameters(
            tau_syn_inv=1000 * CURRENT_DECAY * one, tau_mem_inv=1000 * VOLTAGE_DECAY * one,
            v_th=THRESHOLD * one,
        )  # fmt: skip
        made: nn.Module = norse.LIFCell(parameters)
        return made

    net = norse.SequentialState(*by_layer(network, neuron)).eval()
    steps = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        state, outputs = None, []
        for x in steps:
            y, state = net(x, state)
            outputs.append(y)
        return torch.stack(outputs, -1)

    return run


CONTESTANT = Contestant("Norse", "LIFCell: both states, step by step", make)
