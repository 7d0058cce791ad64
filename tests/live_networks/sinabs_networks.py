"""sinabs: every layer with its spike and reset functions, from_model, squeezed variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sinabs
import sinabs.activation as sina
import sinabs.layers as sl
import torch
from sinabs.from_torch import from_model
from torch import Tensor, nn

from .network import Network, frames, numbers, of_steps

FRAMEWORK = "sinabs"


class Single(nn.Sequential):
    """A synapse, and one layer over (N, T, C)."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__(nn.Linear(6, 8), neuron)
        nn.init.uniform_(self[0].weight, -0.4, 1.0)


class Reset(Single):
    """The same, which resets its states at the start of forward."""

    def forward(self, x: Tensor) -> Tensor:
        sinabs.reset_states(self)
        return super().forward(x)


class Recorded(Single):
    """Spikes, and the voltages that record_states keeps."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), self[1].recordings["v_mem"]


class Steps(Single):
    """One step after the other, (N, 1, C) each."""

    def forward(self, x: Tensor) -> Tensor:
        out = [super(Steps, self).forward(x[:, t : t + 1]) for t in range(x.shape[1])]
        return torch.cat(out, dim=1)


class Squeezed(nn.Module):
    """A network that takes (N·T, ...), as from_model makes it; T is what its layers were told."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Unsqueezed(nn.Module):
    """Repeat around what has no time: convolutions, pools, Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            sl.Repeat(nn.Conv2d(2, 4, 3, bias=False)),
            sl.IAF(min_v_mem=-1.0),
            sl.Repeat(sl.SumPool2d(2)),
            sl.Repeat(nn.Flatten()),
            nn.Linear(36, 5, bias=False),
            sl.ExpLeak(tau_mem=10.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Merged(nn.Module):
    """Merge: two branches are added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Single(sl.IAF()), Single(sl.LIF(tau_mem=5.0))
        self.merge = sl.Merge()

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(self.left(x), self.right(x))


def _ann() -> nn.Sequential:
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
    )
    for layer in ann:
        if hasattr(layer, "weight"):
            nn.init.uniform_(layer.weight, -0.3, 0.7)
    return ann


def _converted(**kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: Squeezed(
        from_model(_ann(), input_shape=(2, 8, 8), num_timesteps=9, **kwargs).spiking_model
    )


def _single(make: Callable[..., nn.Module], **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: Single(make(**kwargs))


def _feedback() -> nn.Module:
    layer = nn.Linear(8, 8, bias=False)
    nn.init.uniform_(layer.weight, -0.4, 0.3)
    return layer


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(n, t, 6),)


def _images(t: int, n: int) -> tuple[Tensor, ...]:
    return (numbers(n, t, 2, 8, 8),)


def _network(name: str, make: Callable[[], nn.Module], **kwargs: Any) -> Network:
    return Network(name, make, kwargs.pop("example", _sequence), axes="NTC", **kwargs)


_SPIKE_FUNCTIONS = {
    "multi": sina.MultiSpike,
    "single": sina.SingleSpike,
    "at most two": sina.MaxSpike(2),
}
_RESETS = {
    "subtract": sina.MembraneSubtract(),
    "subtract 0.7": sina.MembraneSubtract(0.7),
    "reset": sina.MembraneReset(),
}
_ADAPTIVE = {"tau_mem": 5.0, "tau_adapt": 8.0, "adapt_scale": 0.4, "norm_input": False}
_EACH = torch.linspace(2.0, 20.0, 8)


def _frames_in_time(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6),)


_STEPS = [
    network
    for name, make, example in (
        ("IAFSqueeze", lambda: Single(sl.IAFSqueeze(num_timesteps=1)), _frames_in_time),
        (
            "LIFSqueeze",
            lambda: Single(sl.LIFSqueeze(num_timesteps=1, tau_mem=5.0, norm_input=False)),
            _frames_in_time,
        ),
        (
            "from_model",
            lambda: from_model(_ann(), input_shape=(2, 8, 8), num_timesteps=1).spiking_model,
            lambda t, n: (numbers(t, n, 2, 8, 8),),
        ),
    )
    for network in of_steps(name, make, example)
]

NETWORKS = [
    *_STEPS,
    *(
        _network(
            f"{make.__name__}, {spike}, {reset}",
            _single(make, spike_fn=_SPIKE_FUNCTIONS[spike], reset_fn=_RESETS[reset], **kwargs),
        )
        for make, kwargs in ((sl.IAF, {}), (sl.LIF, {"tau_mem": 5.0, "norm_input": False}))
        for spike in _SPIKE_FUNCTIONS
        for reset in _RESETS
    ),
    _network("IAF", _single(sl.IAF)),
    _network("IAF, min_v_mem", _single(sl.IAF, min_v_mem=-0.3)),
    _network("IAF, tau_syn", _single(sl.IAF, tau_syn=4.0)),
    _network("IAF, reset in forward", lambda: Reset(sl.IAF())),
    _network("IAF, recorded", lambda: Recorded(sl.IAF(record_states=True))),
    _network("IAF, step by step", lambda: Steps(sl.IAF())),
    _network("IAFRecurrent", lambda: Single(sl.IAFRecurrent(rec_connect=_feedback()))),
    _network("LIF, tau_syn", _single(sl.LIF, tau_mem=5.0, tau_syn=3.0, spike_threshold=0.4)),
    _network("LIF, not normed", _single(sl.LIF, tau_mem=5.0, norm_input=False)),
    _network("LIF, min_v_mem", _single(sl.LIF, tau_mem=5.0, min_v_mem=-0.2, norm_input=False)),
    _network("LIF, tau for each", _single(sl.LIF, tau_mem=_EACH, norm_input=False)),
    _network("LIF, learned", _single(sl.LIF, tau_mem=5.0, train_alphas=True, norm_input=False)),
    _network(
        "LIFRecurrent",
        lambda: Single(sl.LIFRecurrent(tau_mem=5.0, rec_connect=_feedback(), norm_input=False)),
    ),
    _network(
        "ALIF", _single(sl.ALIF, tau_mem=5.0, tau_adapt=8.0, adapt_scale=0.4, norm_input=False)
    ),
    _network(
        "ALIF, tau_syn", _single(sl.ALIF, tau_mem=5.0, tau_adapt=8.0, tau_syn=3.0, adapt_scale=0.3)
    ),
    _network(
        "ALIFRecurrent",
        lambda: Single(sl.ALIFRecurrent(**_ADAPTIVE, rec_connect=_feedback())),
    ),
    _network("ExpLeak", _single(sl.ExpLeak, tau_mem=5.0)),
    _network("ExpLeak, min_v_mem", _single(sl.ExpLeak, tau_mem=5.0, min_v_mem=0.5)),
    _network("Merge", Merged),
    _network("Repeat, SumPool2d", Unsqueezed, example=_images),
    _network("IAFSqueeze", lambda: Squeezed(Single(sl.IAFSqueeze(num_timesteps=9))), steps=9),
    _network(
        "LIFSqueeze",
        lambda: Squeezed(Single(sl.LIFSqueeze(num_timesteps=9, tau_mem=5.0, norm_input=False))),
        steps=9,
    ),
    _network(
        "ExpLeakSqueeze",
        lambda: Squeezed(Single(sl.ExpLeakSqueeze(num_timesteps=9, tau_mem=5.0))),
        steps=9,
    ),
    _network("from_model", _converted(), example=_images, steps=9),
    _network(
        "from_model, spiking output",
        _converted(add_spiking_output=True),
        example=_images,
        steps=9,
    ),
    _network(
        "from_model, single spikes, reset",
        _converted(spike_fn=sina.SingleSpike, reset_fn=sina.MembraneReset()),
        example=_images,
        steps=9,
    ),
]
