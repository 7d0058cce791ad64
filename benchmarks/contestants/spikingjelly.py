"""SpikingJelly: LIF neurons in its multi-step mode, one state less than CUBA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks._contest import Contestant, Run
from benchmarks._layers import by_layer, imported
from benchmarks._networks import THRESHOLD, VOLTAGE_DECAY, Network


def make(network: Network, spikes: Tensor) -> Run:
    """Bring the input to (T, N, C[, H, W])."""
    base = imported("spikingjelly.activation_based")
    layers, neurons, functional = (
        imported(f"{base.__name__}.{name}") for name in ("layer", "neuron", "functional")
    )

    def neuron() -> nn.Module:
        made: nn.Module = neurons.LIFNode(
            tau=1 / VOLTAGE_DECAY, decay_input=False, v_threshold=THRESHOLD, step_mode="m"
        )
        return made

    modules = [
        module if hasattr(module, "step_mode") else layers.SeqToANNContainer(module)
        for module in by_layer(network, neuron)
    ]
    net = nn.Sequential(*modules).eval()
    first = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        functional.reset_net(net)
        result: Tensor = net(first)
        return result.movedim(0, -1)

    return run


CONTESTANT = Contestant("SpikingJelly", "LIF: one state, all steps a layer", make)
