"""SpikingJelly: every neuron class in step mode "m" with its options, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, rnn, surrogate
from torch import Tensor, nn

from .network import Network, frames, numbers, of_steps, spikes

FRAMEWORK = "spikingjelly"


class Single(nn.Sequential):
    """One synapse, and one neuron in step mode "m"."""

    def __init__(self, node: nn.Module, low: float = -0.4, high: float = 0.8) -> None:
        super().__init__(layer.Linear(6, 8, step_mode="m"), node)
        nn.init.uniform_(self[0].weight, low, high)


class Voltages(nn.Module):
    """Returns spikes, and the voltages that store_v_seq keeps."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.fc, self.sn = layer.Linear(6, 8, step_mode="m"), node
        nn.init.uniform_(self.fc.weight, -0.4, 0.8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.sn(self.fc(x)), self.sn.v_seq


class Stepped(nn.Module):
    """Step mode "s" within a loop over time, as in the first tutorials."""

    def __init__(self, *layers: nn.Module, reset: bool = True) -> None:
        super().__init__()
        self.net, self.reset = nn.Sequential(*layers), reset
        for each in self.net:
            if isinstance(each, nn.Linear):
                nn.init.uniform_(each.weight, -0.4, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        if self.reset:
            functional.reset_net(self.net)
        return torch.stack([self.net(x[t]) for t in range(x.shape[0])])


class Rate(Stepped):
    """The mean over time, added up in the loop, of a static image."""

    def __init__(self, steps: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        total: Any = 0.0
        for _ in range(self.steps):
            total = total + self.net(x)
        return total / self.steps


def _multi(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: Single(make(*args, **kwargs, step_mode="m"))


def _plain(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: Single(make(*args, **kwargs))


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6, scale=1.5),)


def _strong(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6, scale=6.0),)


def _images(t: int, n: int) -> tuple[Tensor, ...]:
    return (numbers(t, n, 2, 8, 8),)


_RESETS: dict[str, dict[str, Any]] = {"hard": {}, "soft": {"v_reset": None}}

_NEURONS = [
    *(
        Network(f"{make.__name__}, {name} reset", _multi(make, **kwargs, **reset), _sequence)
        for make, kwargs in (
            (neuron.IFNode, {}),
            (neuron.LIFNode, {}),
            (neuron.ParametricLIFNode, {"init_tau": 3.0}),
            (neuron.QIFNode, {}),
            (neuron.EIFNode, {}),
            (neuron.KLIFNode, {}),
            (neuron.IzhikevichNode, {"a": 0.1, "b": 0.1}),
            (neuron.TernaryIFNode, {}),
            (neuron.TernaryLIFNode, {}),
            (neuron.RAFNode, {}),
        )
        for name, reset in _RESETS.items()
    ),
    Network("LIFNode, reset to -0.2", _multi(neuron.LIFNode, v_reset=-0.2), _sequence),
    Network("LIFNode, input not decayed", _multi(neuron.LIFNode, decay_input=False), _sequence),
    Network(
        "LIFNode, neither decayed nor hard",
        _multi(neuron.LIFNode, decay_input=False, v_reset=None),
        _sequence,
    ),
    Network("LIFNode, tau 5", _multi(neuron.LIFNode, tau=5.0, v_threshold=0.4), _sequence),
    Network(
        "LIFNode, ATan, detached",
        _multi(neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True),
        _sequence,
    ),
    Network(
        "LIFNode, voltages",
        lambda: Voltages(neuron.LIFNode(step_mode="m", store_v_seq=True)),
        _sequence,
    ),
    Network(
        "ParametricLIFNode, input not decayed",
        _multi(neuron.ParametricLIFNode, init_tau=3.0, decay_input=False),
        _sequence,
    ),
    Network("KLIFNode, scaled reset", _multi(neuron.KLIFNode, scale_reset=True), _sequence),
    Network("SimpleIFNode", _multi(neuron.SimpleIFNode), _sequence),
    Network("SimpleLIFNode", _multi(neuron.SimpleLIFNode, tau=2.0, decay_input=True), _sequence),
    Network("HalfThresholdIFNode", _multi(neuron.HalfThresholdIFNode), _sequence),
    Network("ActivationAwareIFNode", _multi(neuron.ActivationAwareIFNode), _sequence),
    Network("ComplementaryLIFNode", _multi(neuron.ComplementaryLIFNode), _sequence),
    Network("ILIFNode", _multi(neuron.ILIFNode), _sequence),
    Network("STBIFNode", _multi(neuron.STBIFNode, 0.5, 8), _sequence),
    Network("LIAFNode", _multi(neuron.LIAFNode, act=nn.ReLU(), threshold_related=True), _sequence),
    Network("OTTTLIFNode", lambda: Stepped(nn.Linear(6, 8), neuron.OTTTLIFNode()), _sequence),
    Network("SLTTLIFNode", lambda: Stepped(nn.Linear(6, 8), neuron.SLTTLIFNode()), _sequence),
    Network("CUBALIFNode", lambda: Stepped(nn.Linear(6, 8), neuron.CUBALIFNode()), _sequence),
    Network("MPBNLIFNode", _multi(neuron.MPBNLIFNode, mpbn=True, out_features=8), _sequence),
    Network("NonSpikingIFNode, last", _plain(neuron.NonSpikingIFNode, "last-mem"), _sequence),
    Network(
        "NonSpikingLIFNode, max", _plain(neuron.NonSpikingLIFNode, decode="max-mem"), _sequence
    ),
    Network("NonSpikingLIFNode, all", _plain(neuron.NonSpikingLIFNode), _sequence),
    Network("SlidingPSN", _multi(neuron.SlidingPSN, k=3), _sequence),
    Network("DSRIFNode", _plain(neuron.DSRIFNode, T=9, v_threshold=1.0), _sequence, steps=9),
    Network("DSRLIFNode", _plain(neuron.DSRLIFNode, T=9), _sequence, steps=9),
    Network("PSN", _plain(neuron.PSN, T=9), _sequence, steps=9, says_axes=True),
    Network(
        "MaskedPSN",
        _multi(neuron.MaskedPSN, k=3, T=9, lambda_init=1.0),
        _strong,
        steps=9,
        says_axes=True,
    ),
    Network("GatedLIFNode", _plain(neuron.GatedLIFNode, T=9), _sequence, steps=9, says_axes=True),
    Network("ILCIFNode", _plain(neuron.ILCIFNode, 2, 4), _sequence),
    Network("ILCLIFNode", _plain(neuron.ILCLIFNode, 2, 4), _sequence),
    Network("ILCCUBALIFNode", _plain(neuron.ILCCUBALIFNode, 2, 4), _sequence),
    Network(
        "NoisyCUBALIFNode, quiet",
        _plain(neuron.NoisyCUBALIFNode, 8, is_training=False, T=9),
        _sequence,
        steps=9,
        says_axes=True,
    ),
]


# -- step mode "s", recurrent containers, small networks -------------------------------------------


class ConvNet(nn.Module):
    """conv_fashion_mnist: folded layers between multi-step neurons, the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_fc = nn.Sequential(
            layer.Conv2d(2, 6, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Conv2d(6, 6, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.AvgPool2d(2, 2),
            layer.Flatten(),
            layer.Dropout(0.5),
            layer.Linear(24, 10, bias=False),
            neuron.LIFNode(v_threshold=0.05, surrogate_function=surrogate.ATan()),
            layer.VotingLayer(2),
        )
        functional.set_step_mode(self, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_fc(x).mean(0)


class Repeated(ConvNet):
    """A static image, repeated by unsqueeze and repeat."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_fc(x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(0)


class Cells(nn.Module):
    """A spiking LSTM, GRU or RNN over the sequence; its states begin at zero."""

    def __init__(self, cells: nn.Module) -> None:
        super().__init__()
        self.cells = cells
        for name, value in cells.named_parameters():
            if "bias" not in name:
                nn.init.uniform_(value, -0.4, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.cells(x)
        return out


def _feedback(container: Callable[..., nn.Module], **kwargs: Any) -> nn.Module:
    recurrent = container(neuron.IFNode(), **kwargs, step_mode="m")
    return nn.Sequential(layer.Linear(6, 8, step_mode="m"), recurrent)


def _flex() -> nn.Module:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * 0.7 + x
        s = (v >= 1.0).to(x.dtype)
        return s, v * (1.0 - s)

    return neuron.FlexSN(core, num_states=1, step_mode="m")


def _lif_fc(**kwargs: Any) -> list[nn.Module]:
    """lif_fc_mnist: one layer."""
    return [nn.Flatten(), nn.Linear(12, 10, bias=False), neuron.LIFNode(tau=2.0, **kwargs)]


_SMALL = [
    Network("lif_fc_mnist, steps", lambda: Stepped(*_lif_fc()), lambda t, n: (spikes(t, n, 12),)),
    Network(
        "lif_fc_mnist, no reset",
        lambda: Stepped(*_lif_fc(), reset=False),
        lambda t, n: (spikes(t, n, 12),),
        refused="so.over_time(module)",
    ),
    Network(
        "lif_fc_mnist, rate of a static image",
        lambda: Rate(9, *_lif_fc()),
        lambda t, n: (frames(n, 3, 4),),
        steps=9,
        axes="NCT",
        refused="depends on earlier calls",
    ),
    Network(
        "lif_fc_mnist, rate of static pixels",
        lambda: Rate(9, *_lif_fc()),
        lambda t, n: (frames(n, 12, scale=2.0),),
        steps=9,
    ),
    Network("conv_fashion_mnist", ConvNet, _images),
    Network(
        "conv_fashion_mnist, repeated",
        lambda: Repeated(9),
        lambda t, n: (numbers(n, 2, 8, 8),),
        steps=9,
    ),
    Network(
        "MultiStepContainer",
        lambda: layer.MultiStepContainer(nn.Linear(6, 8), neuron.IFNode()),
        lambda t, n: (frames(t, n, 6, scale=4.0),),
    ),
    Network(
        "SeqToANNContainer",
        lambda: nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten()),
            neuron.LIFNode(step_mode="m"),
        ),
        lambda t, n: (numbers(t, n, 2, 8, 8, scale=3.0),),
    ),
    Network(
        "LinearRecurrentContainer",
        lambda: _feedback(layer.LinearRecurrentContainer, in_features=8, out_features=8),
        lambda t, n: (frames(t, n, 6, scale=4.0),),
    ),
    Network(
        "ElementWiseRecurrentContainer",
        lambda: _feedback(
            layer.ElementWiseRecurrentContainer, element_wise_function=lambda x, y: x + y
        ),
        lambda t, n: (frames(t, n, 6, scale=4.0),),
    ),
    Network("SynapseFilter", _multi(layer.SynapseFilter, tau=5.0), _sequence),
    Network("Delay", lambda: layer.Delay(delay_steps=2, step_mode="m"), _sequence, says_axes=True),
    Network("FlexSN", _flex, _sequence),
    Network("SpikingRNN", lambda: Cells(rnn.SpikingVanillaRNN(6, 8, 1)), _sequence),
    Network("SpikingGRU", lambda: Cells(rnn.SpikingGRU(6, 8, 1)), _sequence),
    Network("SpikingLSTM", lambda: Cells(rnn.SpikingLSTM(6, 8, 1)), _sequence),
    Network("SpikingLSTM, two layers", lambda: Cells(rnn.SpikingLSTM(6, 8, 2)), _sequence),
    Network(
        "SpikingLSTM, bidirectional",
        lambda: Cells(rnn.SpikingLSTM(6, 8, 1, bidirectional=True)),
        _sequence,
    ),
    Network(
        "BatchNormThroughTime1d",
        lambda: nn.Sequential(
            layer.BatchNormThroughTime1d(9, 6, step_mode="m"), neuron.IFNode(step_mode="m")
        ),
        _sequence,
        steps=9,
    ),
    Network(
        "TemporalWiseAttention",
        lambda: nn.Sequential(
            layer.TemporalWiseAttention(T=9, reduction=3, dimension=2),
            neuron.IFNode(v_threshold=0.5, step_mode="m"),
        ),
        _sequence,
        steps=9,
        says_axes=True,
    ),
]

# -- single steps, without a loop ------------------------------------------------------------------


class StepConvNet(ConvNet):
    """conv_fashion_mnist in step mode "s"; one step, and no mean."""

    def __init__(self) -> None:
        super().__init__()
        functional.set_step_mode(self, step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_fc(x)


_STEPS = [
    network
    for name, make, example in (
        ("lif_fc_mnist", lambda: Stepped(*_lif_fc()).net, lambda t, n: (spikes(t, n, 12),)),
        ("conv_fashion_mnist", StepConvNet, _images),
        *(
            (kind.__name__, lambda kind=kind: Stepped(nn.Linear(6, 8), kind()).net, _sequence)
            for kind in (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.KLIFNode)
        ),
        (
            "LIFNode soft",
            lambda: Stepped(nn.Linear(6, 8), neuron.LIFNode(v_reset=None)).net,
            _sequence,
        ),
        (
            "SynapseFilter",
            lambda: Stepped(nn.Linear(6, 8), layer.SynapseFilter(5.0)).net,
            _sequence,
        ),
    )
    for network in of_steps(name, make, example)
]

NETWORKS = [*_NEURONS, *_SMALL, *_STEPS]
