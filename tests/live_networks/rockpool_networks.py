"""Rockpool: torch modules, alone and in Sequential and Residual.

LowPass is left out: in Rockpool 3.1.0 it fails on more than one sample.
"""

from __future__ import annotations

from typing import Any

import torch
from rockpool.nn.combinators import Residual, Sequential
from rockpool.nn.modules import (
    ExpSynTorch,
    LIFBitshiftTorch,
    LIFNeuronTorch,
    LIFTorch,
    LinearTorch,
    RateTorch,
    UpDownTorch,
)
from rockpool.parameters import Constant
from torch import Tensor, nn

from .network import Network, frames, numbers

FRAMEWORK = "rockpool"


class Output(nn.Module):
    """What most users take of (output, state, record)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out, _, _ = self.net(x)
        return out


class Reset(Output):
    """The same, which begins with fresh states."""

    def forward(self, x: Tensor) -> Tensor:
        self.net.reset_state()
        return super().forward(x)


class Recorded(Output):
    """Output, and the voltages of the record."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, _, record = self.net(x, record=True)
        return out, record["1_LIFTorch"]["vmem"]


def _net(neuron: Any, gain: float = 40.0) -> Any:
    net = Sequential(LinearTorch((6, 8), has_bias=False), neuron)
    nn.init.uniform_(net[0].weight, -0.2 * gain, gain)
    return net


def _lif(**kwargs: Any) -> Any:
    options = {"tau_mem": 10e-3, "tau_syn": 5e-3, "threshold": 1.0, "bias": 0.0, "dt": 1e-3}
    return LIFTorch(8, **(options | kwargs))


def _network(name: str, make: Any, **kwargs: Any) -> Network:
    example = kwargs.pop("example", lambda t, n: (frames(n, t, 6, scale=0.04),))
    return Network(name, make, example, axes="NTC", **kwargs)


def _deep() -> nn.Module:
    net = Sequential(
        LinearTorch((6, 12), has_bias=False),
        LIFTorch(12, tau_mem=10e-3, tau_syn=5e-3, dt=1e-3),
        LinearTorch((12, 4), has_bias=False),
        ExpSynTorch(4, tau=10e-3, dt=1e-3),
    )
    nn.init.uniform_(net[0].weight, -8.0, 40.0)
    return Output(net)


def _residual() -> nn.Module:
    block = Residual(LinearTorch((8, 8), has_bias=False), _lif())
    nn.init.uniform_(block[0].weight, -0.5, 1.0)
    net = Sequential(LinearTorch((6, 8), has_bias=False), _lif(), block)
    nn.init.uniform_(net[0].weight, -8.0, 40.0)
    return Output(net)


NETWORKS = [
    _network("LIFTorch", lambda: Output(_net(_lif()))),
    _network("LIFTorch, one spike a step", lambda: Output(_net(_lif(max_spikes_per_dt=1)))),
    _network("LIFTorch, times for each", lambda: Output(
        _net(_lif(tau_mem=torch.linspace(5e-3, 30e-3, 8), threshold=torch.linspace(0.5, 1.5, 8)))
    )),
    _network("LIFTorch, constants", lambda: Output(
        _net(_lif(tau_mem=Constant(10e-3), tau_syn=Constant(5e-3), threshold=Constant(1.0)))
    )),
    _network("LIFTorch, decays", lambda: Output(
        _net(LIFTorch(8, leak_mode="decays", alpha=0.9, beta=0.8, threshold=1.0, dt=1e-3))
    )),
    _network("LIFTorch, bitshifts", lambda: Output(
        _net(LIFTorch(8, leak_mode="bitshifts", dash_mem=3, dash_syn=2, threshold=1.0, dt=1e-3))
    )),
    _network("LIFTorch, recurrent", lambda: Output(_net(_lif(has_rec=True)))),
    _network("LIFTorch, two synapses", lambda: Output(_net(LIFTorch((8, 4), dt=1e-3)))),
    _network("LIFTorch, recorded", lambda: Recorded(_net(_lif())), taken_off=0),
    _network("LIFTorch, reset in forward", lambda: Reset(_net(_lif()))),
    _network(
        "LIFTorch, as it is", lambda: _net(_lif()),
        refused="returns a TorchModuleParameters", gap=True,
    ),
    _network("LIFBitshiftTorch", lambda: Output(
        _net(LIFBitshiftTorch(8, tau_mem=10e-3, tau_syn=5e-3, threshold=1.0, dt=1e-3))
    )),
    _network("LIFNeuronTorch", lambda: Output(
        _net(LIFNeuronTorch(8, tau_mem=10e-3, threshold=1.0, dt=1e-3))
    )),
    _network("ExpSynTorch", lambda: Output(_net(ExpSynTorch(8, tau=10e-3, dt=1e-3)))),
    _network("RateTorch", lambda: Output(_net(RateTorch(8, tau=10e-3, dt=1e-3)))),
    _network("RateTorch, recurrent", lambda: Output(
        _net(RateTorch(8, tau=10e-3, has_rec=True, dt=1e-3))
    )),
    _network(
        "UpDownTorch",
        lambda: Output(UpDownTorch(6, thr_up=0.3, thr_down=0.3, dt=1e-3)),
        example=lambda t, n: (numbers(n, t, 6),),
    ),
    _network("Sequential", _deep),
    _network("Residual", _residual),
]  # fmt: skip
