"""Neurons of recent papers, each written from its equations, in a network of two layers.

The loop over time is in the neuron, over a whole sequence (T, N, C), as their authors write it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import Network, numbers, spikes

__all__ = ["FRAMEWORK", "NETWORKS"]

FRAMEWORK = "published families"


class Net(nn.Module):
    """Linear, neuron, linear, neuron."""

    def __init__(self, make: Callable[[int], nn.Module], scale: float = 1.0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)
        self.neuron1, self.neuron2 = make(8), make(4)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.neuron1(self.scale * self.fc1(x))
        out: Tensor = self.neuron2(self.scale * self.fc2(hidden))
        return out


class Levels(nn.Module):
    """I-LIF (SpikeYOLO; Spike-driven Transformer V3): a spike is a count of up to ``levels``.

    ``round`` rounds halves to even, ``floor(v + 0.5)`` rounds them up: repositories have both.
    """

    def __init__(self, decay: float = 0.25, levels: int = 4, up: bool = False) -> None:
        super().__init__()
        self.decay, self.levels, self.up = decay, levels, up

    def forward(self, x: Tensor) -> Tensor:
        v, spike, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for x_t in x:
            v = (v - spike) * self.decay + x_t
            clipped = v.clamp(0, self.levels)
            spike = torch.floor(clipped + 0.5) if self.up else torch.round(clipped)
            out.append(spike)
        return torch.stack(out)


class Normalised(Levels):
    """The same, with counts divided by the number of levels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.levels


class Ternary(nn.Module):
    """Ternary Spike (Guo et al. 2024): -1, 0 or 1, and the neuron is set to 0 where it spikes."""

    def __init__(self, decay: float = 0.25, threshold: float = 0.5) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = self.decay * v + x_t
            spike = (v >= self.threshold).float() - (v <= -self.threshold).float()
            v = v * (1 - spike.abs())
            out.append(spike)
        return torch.stack(out)


class Signed(nn.Module):
    """Signed spikes whose size is learned, taken off the voltage."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = 0.9 * v + x_t
            spike = torch.sign(v) * (v.abs() >= 1.0)
            v = v - spike
            out.append(spike * self.amplitude)
        return torch.stack(out)


class MultiSpike(nn.Module):
    """As many spikes as thresholds fit into a voltage with a lower bound (sinabs, Rockpool)."""

    def __init__(self, decay: float = 0.9, lower: float = -1.0, most: int = 15) -> None:
        super().__init__()
        self.decay, self.lower, self.most = decay, lower, most

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = (self.decay * v + x_t).clamp(min=self.lower)
            spike = torch.floor(v / 1.0).clamp(0, self.most)
            v = v - spike * 1.0
            out.append(spike)
        return torch.stack(out)


class KLif(nn.Module):
    """K-LIF (Jiang & Zhang 2023): a factor that is learned and a ReLU before the threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = torch.relu(self.k * (v + (x_t - v) / 2.0))
            spike = (v >= 1.0).float()
            v = v - spike
            out.append(spike)
        return torch.stack(out)


class CLif(nn.Module):
    """C-LIF (Huang et al. 2024): a second potential remembers spikes and adds to the reset."""

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        u, m, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for x_t in x:
            u = u * (1.0 - 1.0 / self.tau) + x_t
            spike = (u > 1.0).float()
            m = m * torch.sigmoid(u / self.tau) + spike
            u = u - spike * (1.0 + torch.sigmoid(m))
            out.append(spike)
        return torch.stack(out)


class Gated(nn.Module):
    """GLIF (Yao et al. 2022), gates per channel that are the same at every step."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.randn(3, size) * 0.5)
        self.tau, self.leak = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.1))
        self.reset, self.conduct = nn.Parameter(torch.tensor(0.6)), nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        al, be, ga = torch.sigmoid(self.gates)
        tau, leak = torch.sigmoid(self.tau), torch.sigmoid(self.leak)
        u, spike, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for x_t in x:
            current = x_t * (1 - be * (1 - torch.sigmoid(self.conduct)))
            decayed = (1 - al * (1 - tau)) * u - (1 - al) * leak
            u = decayed + current
            u = u - (1 - ga) * spike * torch.sigmoid(self.reset) - ga * tau * u * spike
            spike = (u > 0.5).float()
            out.append(spike)
        return torch.stack(out)


class Adaptive(nn.Module):
    """ALIF of Higuchi et al. 2024 (and of LSNNs): a threshold that every spike raises."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.tau_mem = nn.Parameter(torch.rand(size) * 10 + 5)
        self.tau_adp = nn.Parameter(torch.rand(size) * 10 + 10)

    def forward(self, x: Tensor) -> Tensor:
        alpha, rho = torch.exp(-1 / self.tau_mem), torch.exp(-1 / self.tau_adp)
        u, z, a = (torch.zeros_like(x[0]) for _ in range(3))
        out = []
        for x_t in x:
            a = rho * a + (1 - rho) * z
            theta = 0.1 + 1.8 * a
            u = alpha * u + (1 - alpha) * x_t - z * theta
            z = (u - theta > 0).float()
            out.append(z)
        return torch.stack(out)


class Balanced(nn.Module):
    """Balanced resonate-and-fire (Higuchi et al. 2024): the damping keeps within divergence.

    p(w) = (-1 + sqrt(1 - (dt w)^2)) / dt is the boundary; q, a refractory period, adds to both
    threshold and damping.
    """

    def __init__(self, size: int, dt: float = 0.01) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.rand(size) * 10 + 5)
        self.offset = nn.Parameter(torch.rand(size) + 0.1)
        self.dt = dt

    def forward(self, x: Tensor) -> Tensor:
        omega = self.omega.abs()
        boundary = (-1 + torch.sqrt(1 - (self.dt * omega) ** 2)) / self.dt
        u, v, z, q = (torch.zeros_like(x[0]) for _ in range(4))
        out = []
        for x_t in x:
            b = boundary - self.offset.abs() - q
            u_new = u + b * u * self.dt - omega * v * self.dt + x_t * self.dt
            v = v + omega * u * self.dt + b * v * self.dt
            u = u_new
            z = (u - 0.05 - q > 0).float()
            q = 0.9 * q + z
            out.append(z)
        return torch.stack(out)


class Parallel(nn.Module):
    """PSN (Fang et al. 2023): a matrix over all steps, so T is that of the training."""

    def __init__(self, steps: int = 9) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(steps, steps) * 0.5)
        self.bias = nn.Parameter(torch.full((steps, 1), -0.5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.addmm(self.bias, self.weight, x.flatten(1))
        return (h >= 0).float().view(x.shape)


class Masked(nn.Module):
    """Masked PSN: the matrix keeps the last k steps alone."""

    def __init__(self, steps: int = 9, k: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(steps, steps))
        self.bias = nn.Parameter(torch.full((steps, 1), -0.5))
        ones = torch.ones(steps, steps)
        self.register_buffer("mask", torch.tril(ones) * torch.triu(ones, -(k - 1)))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.addmm(self.bias, self.weight * self.mask, x.flatten(1))
        return (h >= 0).float().view(x.shape)


class Sliding(nn.Module):
    """Sliding PSN: the same k weights at every step, a causal convolution over time."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.rand(k))
        self.bias = nn.Parameter(torch.tensor(-0.5))

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.flatten(1).t().unsqueeze(1)
        padded = functional.pad(sequence, (self.k - 1, 0))
        h = functional.conv1d(padded, self.weight.view(1, 1, -1)) + self.bias
        return (h >= 0).float().squeeze(1).t().reshape(x.shape)


class Lif(nn.Module):
    """The usual leaky integrate-and-fire neuron."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            v = v + (x_t - v) / 2.0
            spike = (v >= 0.5).float()
            v = v * (1.0 - spike)
            out.append(spike)
        return torch.stack(out)


class Delays(nn.Module):
    """DCLS (Hammouamri et al. 2024): a delay for every synapse, in a causal convolution over time.

    After the training a delay is a whole number of steps, and a kernel has one weight each.
    """

    def __init__(self, longest: int = 5) -> None:
        super().__init__()
        self.longest = longest
        delays = torch.randint(0, longest, (8, 6))
        kernel = torch.zeros(8, 6, longest).scatter_(2, delays[..., None], 2 * torch.randn(8, 6, 1))
        self.kernel = nn.Parameter(kernel)
        self.fc = nn.Linear(8, 4)
        self.neuron1, self.neuron2 = Lif(), Lif()

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x.permute(1, 2, 0), (self.longest - 1, 0))
        current = functional.conv1d(padded, self.kernel).permute(2, 0, 1)
        out: Tensor = self.neuron2(4 * self.fc(self.neuron1(current)))
        return out


class Readout(nn.Module):
    """Regression (NeuroBench's primate reaching): leaky readouts that never spike."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.neuron = nn.Linear(6, 8), nn.Linear(8, 2), Lif()
        self.beta = nn.Parameter(torch.tensor([0.8, 0.6]))

    def forward(self, x: Tensor) -> Tensor:
        currents = self.fc2(self.neuron(2 * self.fc1(x)))
        v, out = torch.zeros_like(currents[0]), []
        for current in currents:
            v = self.beta.clamp(0, 1) * v + current
            out.append(v)
        return torch.stack(out)


class Delta(nn.Module):
    """Sigma-delta: what changed by more than a threshold is sent, and summed where it arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        total, sent = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 8)
        rest, out = torch.zeros(x.shape[1], 8), []
        for x_t in x:
            total = total + self.fc1(x_t)
            change = torch.relu(total) - sent + rest
            message = torch.where(change.abs() >= 0.1, change, torch.zeros_like(change))
            rest, sent = change - message, torch.relu(total)
            out.append(self.fc2(message))
        return torch.stack(out)


def _net(make: Callable[[int], nn.Module], scale: float = 2.0) -> Callable[[], nn.Module]:
    return lambda: Net(make, scale)


def _events(steps: int, batch: int) -> tuple[Any, ...]:
    return (spikes(steps, batch, 6),)


def _levels(steps: int, batch: int) -> tuple[Any, ...]:
    return (numbers(steps, batch, 6, scale=2.0, shift=1.0),)


NETWORKS = [
    Network("I-LIF, halves to even", _net(lambda _: Levels()), _levels),
    Network("I-LIF, halves up", _net(lambda _: Levels(up=True)), _levels),
    Network("I-LIF, divided by its levels", _net(lambda _: Normalised(), 4.0), _levels),
    Network("ternary spikes", _net(lambda _: Ternary()), _events),
    Network("signed spikes", _net(Signed), _events),
    Network("multi-spike with a lower bound", _net(lambda _: MultiSpike(), 3.0), _levels),
    Network("K-LIF", _net(lambda _: KLif(), 4.0), _events),
    Network("C-LIF", _net(lambda _: CLif(), 4.0), _events),
    Network("GLIF", _net(Gated, 3.0), _events),
    Network("adaptive LIF", _net(Adaptive, 4.0), _levels),
    Network("balanced resonate-and-fire", _net(Balanced, 20 * math.pi), _levels),
    Network("PSN", _net(lambda _: Parallel()), _events, steps=9, says_axes=True),
    Network("masked PSN", _net(lambda _: Masked()), _events, steps=9, says_axes=True),
    Network("sliding PSN", _net(lambda _: Sliding()), _events),
    Network("synaptic delays", Delays, _levels),
    Network("leaky readouts", Readout, _levels),
    Network("sigma-delta", Delta, _levels),
]
