"""Norse: every neuron module and cell, SequentialState, recurrent layers and readouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional.izhikevich import phasic_bursting, tonic_spiking
from norse.torch.functional.lif import LIFParameters
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.functional.lif_refrac import LIFRefracParameters
from norse.torch.functional.lsnn import LSNNParameters
from torch import Tensor, nn

from .network import Network, frames, numbers, of_steps

FRAMEWORK = "norse"


class Single(nn.Module):
    """A synapse over the sequence, and a module that runs over time: spikes and the last state."""

    def __init__(self, neuron: nn.Module, gain: float = 8.0) -> None:
        super().__init__()
        self.fc, self.neuron = nn.Linear(6, 8, bias=False), neuron
        nn.init.uniform_(self.fc.weight, -0.2 * gain, gain)

    def forward(self, x: Tensor) -> Any:
        return self.neuron(self.fc(x))


class Looped(Single):
    """A cell in a loop, its state None at first; spikes and voltages."""

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for t in range(x.shape[0]):
            z, state = self.neuron(self.fc(x[t]), state)
            out.append(z)
        return torch.stack(out)


class Voltages(Single):
    """The same, returning the voltages, too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state, spikes, voltages = None, [], []
        for t in range(x.shape[0]):
            z, state = self.neuron(self.fc(x[t]), state)
            spikes.append(z)
            voltages.append(state.v)
        return torch.stack(spikes), torch.stack(voltages)


class RecurrentLoop(nn.Module):
    """A recurrent cell, which holds its synapses, in a loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = _driven(cell)

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for x_t in x:
            z, state = self.cell(x_t, state)
            out.append(z)
        return torch.stack(out)


class OverTime(nn.Module):
    """A recurrent module that runs over time; the output alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = _driven(module)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]


class Output(nn.Module):
    """A SequentialState, whose output alone is returned."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = norse.SequentialState(*layers)
        for each in self.net:
            if isinstance(each, nn.Linear):
                nn.init.uniform_(each.weight, -2.0, 6.0)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.net(x)
        return out


class Steps(Output):
    """SequentialState of cells, in a loop."""

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for x_t in x:
            z, state = self.net(x_t, state)
            out.append(z)
        return torch.stack(out)


class Mnist(nn.Module):
    """The MNIST tutorial: LIF cells, an LI readout, the largest voltage over time."""

    def __init__(self, recurrent: bool = False) -> None:
        super().__init__()
        p = LIFParameters(alpha=torch.tensor(100.0), v_th=torch.tensor(0.5))
        if recurrent:
            self.l1 = _driven(norse.LSNNRecurrentCell(6, 12, p=LSNNParameters()))
        else:
            self.l1 = _driven(norse.LIFRecurrentCell(6, 12, p=p, dt=0.001))
        self.fc_out, self.out = nn.Linear(12, 4, bias=False), norse.LICell(dt=0.001)

    def forward(self, x: Tensor) -> Tensor:
        s1 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z, s1 = self.l1(x[ts], s1)
            z = self.fc_out(z)
            vo, so = self.out(z, so)
            voltages.append(vo)
        y = torch.stack(voltages).max(0).values
        return nn.functional.log_softmax(y, dim=1)


class Convolution(nn.Module):
    """The convolutional tutorial: LIF cells between convolutions and pools, voltages of an LI."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.fc1 = nn.Linear(6 * 2 * 2, 10)
        p = LIFParameters(v_th=torch.tensor(0.3))
        self.lif0, self.lif1, self.lif2 = (norse.LIFCell(p=p) for _ in range(3))
        self.out = norse.LILinearCell(10, 3)
        for each in (self.conv1, self.conv2, self.fc1):
            nn.init.uniform_(each.weight, -1.0, 2.5)

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = s2 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z = self.conv1(x[ts, :])
            z, s0 = self.lif0(z, s0)
            z = nn.functional.max_pool2d(z, 2, 2)
            z = 10 * self.conv2(z)
            z, s1 = self.lif1(z, s1)
            z = nn.functional.max_pool2d(z, 2, 2)
            z = z.view(-1, 24)
            z = self.fc1(z)
            z, s2 = self.lif2(z, s2)
            v, so = self.out(nn.functional.relu(z), so)
            voltages.append(v)
        return torch.stack(voltages)


class Lifted(nn.Module):
    """Lift over the sequence, Flatten, LIF with time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = norse.SequentialState(
            norse.Lift(nn.Conv2d(2, 4, 3)), norse.LIF(), nn.Flatten(2), norse.LI()
        )
        nn.init.uniform_(self.net[0].lifted_module.weight, -1.0, 2.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


class Fields(nn.Module):
    """TemporalReceptiveField, in a loop; its scales are an axis of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.field = norse.TemporalReceptiveField((6, 1, 1), n_scales=3)

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for x_t in x:
            y, state = self.field(x_t, state)
            out.append(y.mean(1))
        return torch.stack(out)


class RecurrentSteps(nn.Module):
    """RecurrentSequential in a loop: its output comes back as input."""

    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(6, 6)
        nn.init.uniform_(linear.weight, 0.0, 2.0)
        self.net = norse.RecurrentSequential(linear, norse.LIFCell())

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for x_t in x:
            z, state = self.net(x_t, state)
            out.append(z)
        return torch.stack(out)


def _driven(module: nn.Module) -> nn.Module:
    nn.init.uniform_(module.input_weights, -1.0, 4.0)
    return module


def _single(make: Callable[..., nn.Module], gain: float = 8.0, **kwargs: Any) -> Any:
    return lambda: Single(make(**kwargs), gain)


def _cell(make: Callable[..., nn.Module], gain: float = 8.0, **kwargs: Any) -> Any:
    return lambda: Looped(make(**kwargs), gain)


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6),)


_STRONG = LIFParameters(
    tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.4), v_reset=torch.tensor(-0.1)
)
_EACH = LIFParameters(tau_mem_inv=torch.linspace(100.0, 400.0, 8), v_th=torch.linspace(0.2, 0.6, 8))
_REFRACTORY = LIFRefracParameters(lif=_STRONG, rho_reset=torch.tensor(2.0))

_OVER_TIME = [
    Network("LIF", _single(norse.LIF), _sequence),
    Network("LIF, parameters", _single(norse.LIF, 1.5, p=_STRONG), _sequence),
    Network("LIF, parameters for each neuron", _single(norse.LIF, 1.5, p=_EACH), _sequence),
    Network("LIF, dt", _single(norse.LIF, dt=0.002), _sequence),
    Network("LIF, recorded states", _single(norse.LIF, record_states=True), _sequence),
    Network("IAF", lambda: Single(norse.IAF(), 0.8), _sequence),
    Network("LI", _single(norse.LI), _sequence),
    Network("LIFEx", _single(norse.LIFEx), _sequence),
    Network("LIFAdEx", _single(norse.LIFAdEx), _sequence),
    Network("LSNN", _single(norse.LSNN), _sequence),
    Network(
        "Izhikevich", _single(norse.Izhikevich, 120.0, spiking_method=tonic_spiking), _sequence
    ),
    *(
        Network(make.__name__, lambda make=make: OverTime(make(6, 8)), _sequence)
        for make in (
            norse.LIFRecurrent,
            norse.LIFExRecurrent,
            norse.LIFAdExRecurrent,
            norse.LIFRefracRecurrent,
            norse.LSNNRecurrent,
        )
    ),
    Network(
        "LIFRecurrent, autapses",
        lambda: OverTime(norse.LIFRecurrent(6, 8, autapses=True)),
        _sequence,
    ),
    Network(
        "IzhikevichRecurrent",
        lambda: OverTime(norse.IzhikevichRecurrent(6, 8, tonic_spiking)),
        lambda t, n: (frames(t, n, 6, scale=30.0),),
    ),
]

_CELLS = [
    Network("LIFCell", lambda: Voltages(norse.LIFCell(p=_STRONG), 1.5), _sequence),
    Network(
        "LIFCell, parameters for each", lambda: Voltages(norse.LIFCell(p=_EACH), 1.5), _sequence
    ),
    Network("LIFBoxCell", lambda: Voltages(norse.LIFBoxCell()), _sequence),
    Network(
        "LIFBoxCell, parameters",
        lambda: Voltages(norse.LIFBoxCell(p=LIFBoxParameters(v_th=torch.tensor(0.5)))),
        _sequence,
    ),
    Network("LIBoxCell", _cell(norse.LIBoxCell), _sequence),
    Network("LICell", _cell(norse.LICell), _sequence),
    Network("LILinearCell", lambda: Looped(norse.LILinearCell(8, 4)), _sequence),
    Network("IAFCell", lambda: Voltages(norse.IAFCell(), 0.8), _sequence),
    Network("LIFExCell", lambda: Voltages(norse.LIFExCell()), _sequence),
    Network("LIFAdExCell", lambda: Voltages(norse.LIFAdExCell()), _sequence),
    Network("LIFRefracCell", _cell(norse.LIFRefracCell, p=_REFRACTORY), _sequence),
    Network("LIFAdExRefracCell", _cell(norse.LIFAdExRefracCell), _sequence),
    Network("LSNNCell", lambda: Voltages(norse.LSNNCell()), _sequence),
    Network(
        "IzhikevichCell",
        lambda: Voltages(norse.IzhikevichCell(phasic_bursting), 120.0),
        _sequence,
    ),
    *(
        Network(make.__name__, lambda make=make: RecurrentLoop(make(6, 8)), _sequence)
        for make in (
            norse.LIFRecurrentCell,
            norse.LIFExRecurrentCell,
            norse.LIFAdExRecurrentCell,
            norse.LIFRefracRecurrentCell,
            norse.LIFAdExRefracRecurrentCell,
            norse.LSNNRecurrentCell,
            norse.LIFMCRecurrentCell,
            norse.LIFMCRefracRecurrentCell,
        )
    ),
    Network(
        "CobaLIFCell",
        lambda: RecurrentLoop(norse.CobaLIFCell(6, 8)),
        _sequence,
    ),
    Network("TemporalReceptiveField", Fields, lambda t, n: (numbers(t, n, 6, 2, 2),)),
]

_NETWORKS = [
    Network(
        "SequentialState",
        lambda: Output(nn.Linear(6, 12), norse.LIF(), nn.Linear(12, 4), norse.LI()),
        _sequence,
    ),
    Network(
        "SequentialState, spiking readout",
        lambda: Output(nn.Linear(6, 12), norse.LIF(), nn.Linear(12, 4), norse.LIF()),
        _sequence,
    ),
    Network(
        "SequentialState as it is",
        lambda: Output(nn.Linear(6, 12), norse.LIF(), nn.Linear(12, 4), norse.LI()).net,
        _sequence,
    ),
    Network(
        "SequentialState of cells",
        lambda: Steps(nn.Linear(6, 12), norse.LIFCell(), nn.Linear(12, 4), norse.LICell()),
        _sequence,
    ),
    Network(
        "RecurrentSequential",
        RecurrentSteps,
        lambda t, n: (frames(t, n, 6, scale=6.0),),
    ),
    Network("Lift", Lifted, lambda t, n: (numbers(t, n, 2, 6, 6),)),
    Network("MNIST tutorial", Mnist, _sequence),
    Network("MNIST tutorial, LSNN", lambda: Mnist(True), _sequence),
    Network("convolutional tutorial", Convolution, lambda t, n: (frames(t, n, 1, 14, 14),)),
]


def _over_time(name: str, make: Callable[[], nn.Module]) -> Network:
    return of_steps(name, make, _sequence)[1]


_STEPS = [
    _over_time(
        "SequentialState of cells",
        lambda: Steps(nn.Linear(6, 12), norse.LIFCell(), nn.Linear(12, 4), norse.LICell()).net,
    ),
    _over_time("LIFRecurrentCell", lambda: _driven(norse.LIFRecurrentCell(6, 8))),
    _over_time("LSNNRecurrentCell", lambda: _driven(norse.LSNNRecurrentCell(6, 8))),
    _over_time("RecurrentSequential", lambda: RecurrentSteps().net),
]

NETWORKS = [*_OVER_TIME, *_CELLS, *_NETWORKS, *_STEPS]
