"""snnTorch with init_hidden: single steps, without the loop of the tutorials around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch as snn
from torch import Tensor, nn

from .network import frames, of_steps
from .snntorch_networks import FRAMEWORK, hidden_conv, hidden_linear

__all__ = ["FRAMEWORK", "NETWORKS"]


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6),)


def _hidden(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    """Return what makes a network of one neuron with init_hidden."""

    def network() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 8), make(*args, **kwargs, init_hidden=True, output=True))
        nn.init.uniform_(net[0].weight, -0.3, 0.7)
        return net

    return network


NETWORKS = [
    network
    for name, make, example in (
        ("init_hidden Linear", lambda: hidden_linear().net, _sequence),
        (
            "init_hidden Conv2d",
            lambda: hidden_conv().net,
            lambda t, n: (frames(t, n, 2, 8, 8),),
        ),
        ("init_hidden Leaky", _hidden(snn.Leaky, 0.8), _sequence),
        (
            "init_hidden Leaky to zero",
            _hidden(snn.Leaky, 0.8, reset_mechanism="zero", reset_delay=False),
            _sequence,
        ),
        ("init_hidden Synaptic", _hidden(snn.Synaptic, 0.7, 0.8), _sequence),
        ("init_hidden Alpha", _hidden(snn.Alpha, 0.9, 0.8, threshold=0.3), _sequence),
        ("init_hidden Lapicque", _hidden(snn.Lapicque, beta=0.6), _sequence),
        ("init_hidden RLeaky", _hidden(snn.RLeaky, 0.8, linear_features=8), _sequence),
        ("init_hidden RSynaptic", _hidden(snn.RSynaptic, 0.7, 0.8, linear_features=8), _sequence),
        ("init_hidden SLSTM", _hidden(snn.SLSTM, 8, 8, threshold=0.1), _sequence),
    )
    for network in of_steps(name, make, example)
]
