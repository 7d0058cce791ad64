"""lava-dl's slayer in torch: the same fixed point as ours. ``LAVA_DL`` names its source folder."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._contest import Contestant, Run, UnsupportedError
from benchmarks._layers import imported
from benchmarks._modules import CUBA, RF
from benchmarks._networks import Network


def make(network: Network, spikes: Tensor) -> Run:
    """The input is (N, C[, H, W], T)."""
    source = os.environ.get("LAVA_DL")
    if not source:
        raise UnsupportedError("LAVA_DL does not name lava-dl's source folder")
    if network.numbers != "q8":
        raise UnsupportedError("its neurons have no float regime")
    if source not in sys.path:
        sys.path.insert(0, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slayer: Any = imported("lava.lib.dl.slayer")
        net = nn.Sequential(*(_block(slayer, layer) for layer in network.layers)).eval()

    @torch.no_grad()
    def run() -> Tensor:
        result: Tensor = net(spikes)
        return result

    run()  # the first call makes its states
    return run


def _block(slayer: Any, layer: Any) -> nn.Module:
    if layer.kind == "flatten":
        flatten: nn.Module = slayer.block.cuba.Flatten()
        return flatten
    made: Any
    if layer.kind == "pool":
        made = slayer.block.cuba.Pool(CUBA, 2, delay_shift=False)
        made.synapse.weight.data.fill_(0.5)
        return made  # type: ignore[no-any-return]
    weight = layer.matrix
    outputs, inputs = weight.shape[-2:] if layer.kind == "resonator" else weight.shape[:2]
    if layer.kind == "conv":
        made = slayer.block.cuba.Conv(
            CUBA, inputs, outputs, tuple(weight.shape[2:]), stride=layer.stride,
            padding=layer.padding,
            delay_shift=False,
        )  # fmt: skip
        parts = [(made.synapse, weight)]
    elif layer.kind == "resonator":
        made = slayer.block.rf.Dense(RF, inputs, outputs, delay_shift=False)
        parts = [(made.synapse.real, weight[0]), (made.synapse.imag, weight[1])]
    elif layer.kind == "recurrent":
        made = slayer.block.cuba.Recurrent(CUBA, inputs, outputs, delay_shift=False)
        parts = [(made.input_synapse, weight), (made.recurrent_synapse, layer.feedback)]
    else:
        made = slayer.block.cuba.Dense(CUBA, inputs, outputs, delay_shift=False)
        parts = [(made.synapse, weight)]
    for synapse, values in parts:
        synapse.weight.data.copy_(values.reshape(synapse.weight.shape))
    return made  # type: ignore[no-any-return]


CONTESTANT = Contestant("lava-dl", "slayer in torch: fixed point, both states", make)
