"""lava-dl's slayer in torch: the same fixed point as ours. ``LAVA_DL`` names its source folder."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks._contest import Contestant, Run, UnsupportedError
from benchmarks._layers import imported
from benchmarks._modules import stack
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
        net = stack(network, slayer.block)

    @torch.no_grad()
    def run() -> Tensor:
        result: Tensor = net(spikes)
        return result

    run()  # the first call makes its states
    return run


CONTESTANT = Contestant("lava-dl", "slayer in torch: fixed point, both states", make)
