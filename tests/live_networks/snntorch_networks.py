"""snnTorch: every neuron class with its options, and the networks of the tutorials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
import torch.nn.functional as F
from snntorch import surrogate, utils
from torch import Tensor, nn

from .network import Network, frames, numbers, spikes

FRAMEWORK = "snntorch"


# -- every neuron class ----------------------------------------------------------------------------


class Single(nn.Module):
    """One neuron behind one synapse, with explicit states, as in tutorial 3."""

    def __init__(self, neuron: nn.Module, states: int, conv: bool = False) -> None:
        super().__init__()
        self.synapse = nn.Conv2d(2, 4, 3, padding=1) if conv else nn.Linear(6, 8)
        nn.init.uniform_(self.synapse.weight, -0.3, 0.7)
        self.neuron, self.states = neuron, states

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.neuron.reset_mem()
        state = state if isinstance(state, tuple) else (state,)
        spikes_, voltages = [], []
        for step in range(x.size(0)):
            spk, *state = self.neuron(self.synapse(x[step]), *state)
            spikes_.append(spk)
            voltages.append(state[-1])
        return torch.stack(spikes_), torch.stack(voltages)


class Recurrent(Single):
    """RLeaky and RSynaptic: the spikes are a state."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.neuron.reset_mem()
        spikes_, voltages = [], []
        for step in range(x.size(0)):
            state = self.neuron(self.synapse(x[step]), *state)
            spikes_.append(state[0])
            voltages.append(state[-1])
        return torch.stack(spikes_), torch.stack(voltages)


class Delta(nn.Module):
    """DeltaLeaky: a pair of states that begins as None."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.neuron = nn.Linear(6, 8), snn.DeltaLeaky(delta_threshold=0.4, beta=0.9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem: Any = (None, None)
        spikes_, voltages = [], []
        for x_t in x:
            spk, mem = self.neuron(self.fc(x_t), mem)
            spikes_.append(spk)
            voltages.append(mem[0])
        return torch.stack(spikes_), torch.stack(voltages)


def _each(start: int, end: int) -> Tensor:
    """Return a parameter for each of eight neurons."""
    return torch.linspace(start / 10, end / 10, 8)


def _two(levels: int) -> Callable[[Tensor], Tensor]:
    from snntorch.functional import quant

    return quant.state_quant(num_bits=levels, uniform=True, threshold=1.0)


def _single(make: Callable[..., nn.Module], states: int, *args: Any, **kwargs: Any) -> Any:
    return lambda: Single(make(*args, **kwargs), states)


def _recurrent(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Any:
    return lambda: Recurrent(make(*args, **kwargs), 2)


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (frames(t, n, 6),)


def _images(t: int, n: int) -> tuple[Tensor, ...]:
    return (numbers(t, n, 2, 8, 8),)


_OPTIONS: dict[str, dict[str, Any]] = {
    "subtract": {},
    "zero": {"reset_mechanism": "zero"},
    "none": {"reset_mechanism": "none"},
    "subtract at once": {"reset_delay": False},
    "zero at once": {"reset_mechanism": "zero", "reset_delay": False},
    "inhibition": {"inhibition": True},
    "learned": {"learn_beta": True, "learn_threshold": True},
    "beta for each neuron": {"beta": _each(3, 9)},
    "threshold for each neuron": {"threshold": _each(5, 12)},
    "graded": {"graded_spikes_factor": 0.7},
    "graded, at once": {"graded_spikes_factor": 0.7, "reset_delay": False},
    "beta above one": {"beta": 1.3},
    "fast sigmoid": {"spike_grad": surrogate.fast_sigmoid(slope=25)},
    "surrogate disabled": {"surrogate_disable": True},
}

_NEURONS = [
    Network(
        "Leaky, quantised state",
        _single(snn.Leaky, 1, beta=0.8, state_quant=_two(4)),
        _sequence,
    ),
    *(
        Network(f"Leaky, {name}", _single(snn.Leaky, 1, **{"beta": 0.8, **options}), _sequence)
        for name, options in _OPTIONS.items()
    ),
    *(
        Network(
            f"Synaptic, {name}",
            _single(snn.Synaptic, 2, alpha=0.7, beta=0.8, **_OPTIONS[name]),
            _sequence,
        )
        for name in ("subtract", "zero", "none", "subtract at once", "zero at once", "learned")
    ),
    *(
        Network(
            f"Alpha, {name}",
            _single(snn.Alpha, 3, alpha=0.9, beta=0.8, threshold=0.3, **_OPTIONS[name]),
            _sequence,
        )
        for name in ("subtract", "zero", "none")
    ),
    Network("Lapicque, beta", _single(snn.Lapicque, 1, beta=0.6), _sequence),
    Network(
        "Lapicque, R and C",
        _single(snn.Lapicque, 1, R=5.0, C=1e-3, time_step=1e-3, threshold=0.5),
        _sequence,
    ),
    Network(
        "Lapicque, zero", _single(snn.Lapicque, 1, beta=0.6, reset_mechanism="zero"), _sequence
    ),
    Network("RLeaky, all to all", _recurrent(snn.RLeaky, 0.8, linear_features=8), _sequence),
    Network("RLeaky, one to one", _recurrent(snn.RLeaky, 0.8, V=0.5, all_to_all=False), _sequence),
    Network(
        "RLeaky, zero",
        _recurrent(snn.RLeaky, 0.8, linear_features=8, reset_mechanism="zero"),
        _sequence,
    ),
    Network(
        "RLeaky, convolution",
        lambda: Recurrent(snn.RLeaky(0.8, conv2d_channels=4, kernel_size=3), 2, conv=True),
        _images,
    ),
    Network(
        "RSynaptic, all to all", _recurrent(snn.RSynaptic, 0.7, 0.8, linear_features=8), _sequence
    ),
    Network(
        "RSynaptic, one to one",
        _recurrent(snn.RSynaptic, 0.7, 0.8, V=0.5, all_to_all=False),
        _sequence,
    ),
    Network("SLSTM", _single(snn.SLSTM, 2, 8, 8, threshold=0.1), _sequence),
    Network(
        "SLSTM, subtract",
        _single(snn.SLSTM, 2, 8, 8, threshold=0.1, reset_mechanism="subtract"),
        _sequence,
    ),
    Network("SLSTM, other width", _single(snn.SLSTM, 2, 8, 5, threshold=0.1), _sequence),
    Network(
        "SConv2dLSTM",
        lambda: Single(snn.SConv2dLSTM(4, 3, 3, threshold=0.1), 2, conv=True),
        _images,
    ),
    Network(
        "SConv2dLSTM, max_pool, zero",
        lambda: Single(
            snn.SConv2dLSTM(4, 3, 3, threshold=0.1, max_pool=2, reset_mechanism="zero"),
            2,
            conv=True,
        ),
        _images,
    ),
    Network("DeltaLeaky", Delta, _sequence),
    # these have no loop over time, which would show where time is
    *(
        Network(name, make, example, says_axes=True)
        for name, make, example in (
            ("LeakyParallel", lambda: snn.LeakyParallel(6, 8, beta=0.8, threshold=0.3), _sequence),
            ("StateLeaky", lambda: snn.StateLeaky(beta=0.8, channels=6), _sequence),
            (
                "LinearLeaky",
                lambda: snn.LinearLeaky(beta=0.8, in_features=6, out_features=8, threshold=0.3),
                _sequence,
            ),
            (
                "AssociativeLeaky",
                lambda: snn.AssociativeLeaky.from_num_spiking_neurons(6, 16),
                lambda t, n: (frames(t, n, 6, scale=6.0),),
            ),
        )
    ),
]


# -- the tutorials ---------------------------------------------------------------------------------


class Tutorial3(nn.Module):
    """Tutorial 3: a static input, shown ``steps`` times; spikes and membranes of the last layer."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fc1, self.lif1 = nn.Linear(12, 30), snn.Leaky(beta=0.99)
        self.fc2, self.lif2 = nn.Linear(30, 5), snn.Leaky(beta=0.99)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(self.steps):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Tutorial5(nn.Module):
    """Tutorial 5: the same over a sequence."""

    def __init__(self, neuron: Callable[[], nn.Module], states: int) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 30), neuron()
        self.fc2, self.lif2 = nn.Linear(30, 5), neuron()
        for fc in (self.fc1, self.fc2):
            nn.init.uniform_(fc.weight, -0.3, 0.5)
        self.states = states

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state1, state2 = self._reset(self.lif1), self._reset(self.lif2)
        spk2_rec, mem2_rec = [], []
        for step in range(x.size(0)):
            spk1, *state1 = self.lif1(self.fc1(x[step].flatten(1)), *state1)
            spk2, *state2 = self.lif2(self.fc2(spk1), *state2)
            spk2_rec.append(spk2)
            mem2_rec.append(state2[-1])
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)

    def _reset(self, neuron: nn.Module) -> Any:
        state = neuron.reset_mem()
        return state if isinstance(state, tuple) else (state,)


class Tutorial6(nn.Module):
    """Tutorial 6: a convolutional network, within a loop of its own."""

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        grad = surrogate.fast_sigmoid(slope=25)
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 5), snn.Leaky(beta=0.5, spike_grad=grad)
        self.conv2, self.lif2 = nn.Conv2d(4, 6, 5), snn.Leaky(beta=0.5, spike_grad=grad)
        self.bn = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.fc1, self.lif3 = nn.Linear(6 * 4 * 4, 10), snn.Leaky(beta=0.5, spike_grad=grad)
        for layer in (self.conv1, self.conv2, self.fc1):
            nn.init.uniform_(layer.weight, -0.2, 0.5)

    def step(self, x: Tensor, mem1: Tensor, mem2: Tensor, mem3: Tensor) -> Any:
        cur1 = F.max_pool2d(self.bn(self.conv1(x)), 2)
        spk1, mem1 = self.lif1(cur1, mem1)
        cur2 = F.max_pool2d(self.conv2(spk1), 2)
        spk2, mem2 = self.lif2(cur2, mem2)
        spk3, mem3 = self.lif3(self.fc1(spk2.view(x.size(0), -1)), mem3)
        return spk3, mem1, mem2, mem3

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2, mem3 = self.lif1.reset_mem(), self.lif2.reset_mem(), self.lif3.reset_mem()
        spk_rec, mem_rec = [], []
        for step in range(x.size(0)):
            spk3, mem1, mem2, mem3 = self.step(x[step], mem1, mem2, mem3)
            spk_rec.append(spk3)
            mem_rec.append(mem3)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class Hidden(nn.Module):
    """init_hidden: an nn.Sequential of steps; ``utils.reset`` and a loop around it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)
        # utils.reset resets every neuron of the process, and fails at those of another network
        snn.SpikingNeuron.instances[:] = [m for m in layers if isinstance(m, snn.SpikingNeuron)]

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor]:
        utils.reset(self.net)
        spk_rec, mem_rec = [], []
        for step in range(data.size(0)):
            spk_out, mem_out = self.net(data[step])
            spk_rec.append(spk_out)
            mem_rec.append(mem_out)
        return torch.stack(spk_rec), torch.stack(mem_rec)


def hidden_linear() -> nn.Module:
    return Hidden(
        nn.Linear(6, 20),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(20, 4),
        snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, output=True),
    )


def hidden_conv() -> nn.Module:
    """Tutorial 6's Sequential."""
    grad = surrogate.fast_sigmoid(slope=25)
    return Hidden(
        nn.Conv2d(2, 5, 3),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.Flatten(),
        nn.Linear(45, 6),
        snn.Leaky(beta=0.5, spike_grad=grad, threshold=0.2, init_hidden=True, output=True),
    )


class RecurrentHidden(nn.Module):
    """RLeaky with init_hidden; the output is read from the last layer's membrane."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.rlif1 = nn.Linear(6, 10), snn.RLeaky(0.8, linear_features=10)
        self.fc2, self.rlif2 = nn.Linear(10, 4), snn.RLeaky(0.8, linear_features=4)
        nn.init.uniform_(self.fc2.weight, 0, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        spk1, mem1 = self.rlif1.init_rleaky()
        spk2, mem2 = self.rlif2.init_rleaky()
        spk2_rec = []
        for step in range(x.size(0)):
            spk1, mem1 = self.rlif1(self.fc1(x[step]), spk1, mem1)
            spk2, mem2 = self.rlif2(self.fc2(spk1), spk2, mem2)
            spk2_rec.append(spk2)
        return torch.stack(spk2_rec)


class Population(Tutorial5):
    """Regression and population coding: sums of groups of neurons."""

    def forward(self, x: Tensor) -> Tensor:
        rec, _ = super().forward(x)
        return rec.sum(0).reshape(x.size(1), 5, -1).sum(-1)


class Regression(nn.Module):
    """The regression tutorial: a last layer without a reset, whose last membrane is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_in, self.lif_in = nn.Linear(1, 16), snn.Leaky(beta=torch.rand(16))
        self.fc_hidden = nn.Linear(16, 16)
        self.lif_hidden = snn.Leaky(beta=torch.rand(16), learn_beta=True)
        self.fc_out = nn.Linear(16, 1)
        self.li_out = snn.Leaky(
            beta=torch.rand(1), threshold=1.0, learn_beta=True, reset_mechanism="none"
        )
        for layer in (self.fc_in, self.fc_hidden):
            nn.init.uniform_(layer.weight, 0, 0.9)

    def forward(self, x: Tensor) -> Tensor:
        mem_1, mem_2 = self.lif_in.init_leaky(), self.lif_hidden.init_leaky()
        mem_3 = self.li_out.init_leaky()
        mem_rec = []
        for step in range(x.size(0)):
            spk_1, mem_1 = self.lif_in(self.fc_in(x[step]), mem_1)
            spk_2, mem_2 = self.lif_hidden(self.fc_hidden(spk_1), mem_2)
            _, mem_3 = self.li_out(self.fc_out(spk_2), mem_3)
            mem_rec.append(mem_3)
        return torch.stack(mem_rec)


class NormThroughTime(nn.Module):
    """BatchNormTT: a norm for every step, so T is the author's."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 8), snn.Leaky(beta=0.8, threshold=0.2)
        self.norms = snn.BatchNormTT1d(8, time_steps=steps)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        mem, out = self.lif.reset_mem(), []
        for step in range(self.steps):
            spk, mem = self.lif(self.norms[step](self.fc(x[step])), mem)
            out.append(spk)
        return torch.stack(out)


class Graded(nn.Module):
    """GradedSpikes behind a spiking layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 1), snn.Leaky(beta=0.8)
        self.graded, self.fc2 = snn.GradedSpikes(1, constant_factor=0), nn.Linear(1, 4)
        nn.init.uniform_(self.fc1.weight, 0, 0.9)

    def forward(self, x: Tensor) -> Tensor:
        mem, out = self.lif1.reset_mem(), []
        for step in range(x.size(0)):
            spk, mem = self.lif1(self.fc1(x[step]), mem)
            out.append(self.fc2(self.graded(spk)))
        return torch.stack(out)


def _pixels(t: int, n: int) -> tuple[Tensor, ...]:
    return (spikes(t, n, 12),)


_TUTORIALS = [
    Network("tutorial 3", lambda: Tutorial3(25), lambda t, n: (numbers(n, 12),), steps=25),
    Network("tutorial 5", lambda: Tutorial5(lambda: snn.Leaky(0.95), 1), _pixels),
    Network(
        "tutorial 5, images",
        lambda: Tutorial5(lambda: snn.Leaky(0.95), 1),
        lambda t, n: (spikes(t, n, 1, 3, 4),),
    ),
    Network("tutorial 2, Synaptic", lambda: Tutorial5(lambda: snn.Synaptic(0.9, 0.8), 2), _pixels),
    Network(
        "tutorial 2, Lapicque",
        lambda: Tutorial5(lambda: snn.Lapicque(beta=0.7, threshold=0.2), 1),
        _pixels,
    ),
    Network(
        "tutorial 2, Alpha",
        lambda: Tutorial5(lambda: snn.Alpha(0.9, 0.8, threshold=0.2), 3),
        _pixels,
    ),
    Network("tutorial 6", Tutorial6, lambda t, n: (frames(t, n, 1, 28, 28),)),
    Network(
        "tutorial 6, BatchNorm", lambda: Tutorial6(True), lambda t, n: (frames(t, n, 1, 28, 28),)
    ),
    Network("init_hidden, Linear", hidden_linear, _sequence, refused="so.over_time(module)"),
    Network(
        "init_hidden, Conv2d",
        hidden_conv,
        lambda t, n: (frames(t, n, 2, 8, 8),),
        refused="so.over_time(module)",
    ),
    Network("RLeaky network", RecurrentHidden, _sequence),
    Network("population", lambda: Population(lambda: snn.Leaky(0.9), 1), _pixels),
    Network("regression", Regression, lambda t, n: (frames(t, n, 1),)),
    Network("BatchNormTT1d", lambda: NormThroughTime(9), _sequence, steps=9, says_axes=True),
    Network("GradedSpikes", Graded, _sequence),
]

NETWORKS = [*_NEURONS, *_TUTORIALS]
