"""Idioms of loops over time in plain torch: how sequences are read, kept, returned and fed back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network, frames, numbers

FRAMEWORK = "plain torch"


class Cell(nn.Module):
    """A leaky integrate-and-fire neuron with a soft reset, as many write it."""

    def __init__(self, decay: float = 0.8, threshold: float = 1.0) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = self.decay * v + x
        s = (v >= self.threshold).float()
        return s, v - s * self.threshold


class Net(nn.Module):
    """Two layers; what the idioms have in common."""

    def __init__(self, inputs: int = 6, hidden: int = 10, outputs: int = 4) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.cell1, self.cell2 = Cell(), Cell(0.9)
        for layer in (self.fc1, self.fc2):
            nn.init.uniform_(layer.weight, -0.6, 1.0)
        self.hidden, self.outputs = hidden, outputs

    def zeros(self, x: Tensor, features: int | None = None) -> Tensor:
        return torch.zeros(x.shape[1], features or self.hidden)

    def step(self, x: Tensor, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, v1 = self.cell1(self.fc1(x), v1)
        s, v2 = self.cell2(self.fc2(s), v2)
        return s, v1, v2


# -- what is returned ------------------------------------------------------------------------------


class Returned(Net):
    """Reads x[t], and returns its outputs in one of many forms."""

    def __init__(self, end: Callable[[list[Tensor], list[Tensor]], Any]) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Any:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        spikes, voltages = [], []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t], v1, v2)
            spikes.append(s)
            voltages.append(v2)
        return self.end(spikes, voltages)


class Batches(Net):
    """Batch first: x[:, t], stacked along axis 1; the batch from x.size(0)."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = torch.zeros(x.size(0), self.hidden), torch.zeros(x.size(0), self.outputs)
        spikes = []
        for t in range(x.size(1)):
            s, v1, v2 = self.step(x[:, t], v1, v2)
            spikes.append(s)
        return torch.stack(spikes, dim=1)


class TimeLast(Net):
    """Time last: x[..., t]."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = torch.zeros(x.size(0), self.hidden), torch.zeros(x.size(0), self.outputs)
        spikes = []
        for t in range(x.shape[-1]):
            s, v1, v2 = self.step(x[..., t], v1, v2)
            spikes.append(s)
        return torch.stack(spikes, dim=-1)


class Iterated(Net):
    """``for x_t in x``, states None at first, outputs joined by cat of unsqueezed ones."""

    def forward(self, x: Tensor) -> Tensor:
        v1 = v2 = None
        out = []
        for x_t in x:
            current = self.fc1(x_t)
            v1 = torch.zeros_like(current) if v1 is None else v1
            s, v1 = self.cell1(current, v1)
            current = self.fc2(s)
            s, v2 = (
                self.cell2(current, torch.zeros_like(current))
                if v2 is None
                else self.cell2(current, v2)
            )
            out.append(s.unsqueeze(0))
        return torch.cat(out)


class Unbound(Net):
    """unbind, and a number as the first state."""

    def forward(self, x: Tensor) -> Tensor:
        v1 = v2 = 0.0
        out = []
        for x_t in torch.unbind(x, dim=0):
            s, v1, v2 = self.step(x_t, v1, v2)
            out.append(s)
        return torch.stack(out)


class Buffer(Net):
    """Writes into an output made before the loop."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], x.shape[1], self.outputs)
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        for t in range(x.shape[0]):
            out[t], v1, v2 = self.step(x[t], v1, v2)
        return out


class Accumulated(Net):
    """Adds up spikes in place, and divides by T."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        counts = torch.zeros(x.shape[1], self.outputs)
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t], v1, v2)
            counts += s
        return counts / x.shape[0]


class Hoisted(Net):
    """The synapse over the whole sequence, the neuron in a loop; layer by layer."""

    def forward(self, x: Tensor) -> Tensor:
        for fc, cell in ((self.fc1, self.cell1), (self.fc2, self.cell2)):
            x = fc(x)
            v, out = torch.zeros_like(x[0]), []
            for x_t in x:
                s, v = cell(x_t, v)
                out.append(s)
            x = torch.stack(out)
        return x


class Resumed(Net):
    """States are arguments and results, as in a call that goes on where the last one ended."""

    def forward(self, x: Tensor, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t], v1, v2)
            out.append(s)
        return torch.stack(out), v1, v2


# -- what goes in ----------------------------------------------------------------------------------


class Static(Net):
    """A static image, shown as many times as an attribute says."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = torch.zeros(x.shape[0], self.hidden), torch.zeros(x.shape[0], self.outputs)
        out = []
        for _ in range(self.steps):
            s, v1, v2 = self.step(x, v1, v2)
            out.append(s)
        return torch.stack(out)


class StaticRate(Static):
    """The same, returning the rate."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0)


class Both(Net):
    """A sequence, and a static image that goes into every step."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Linear(3, self.hidden)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1 = self.cell1(self.fc1(x[t]) + self.context(context), v1)
            s, v2 = self.cell2(self.fc2(s), v2)
            out.append(s)
        return torch.stack(out)


class TwoInputs(Net):
    """Two sequences, of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(3, self.hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t, y_t in zip(x, y, strict=True):
            s, v1 = self.cell1(self.fc1(x_t) + self.other(y_t), v1)
            s, v2 = self.cell2(self.fc2(s), v2)
            out.append(s)
        return torch.stack(out)


# -- other idioms ----------------------------------------------------------------------------------


class Images(nn.Module):
    """Convolution, BatchNorm, MaxPool, Dropout and LayerNorm within the step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.fc, self.layer = nn.Linear(5 * 4 * 4, 6), nn.LayerNorm(6)
        self.cell1, self.cell2 = Cell(), Cell(0.7, 0.5)
        nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(self.norm.running_var, 0.05, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        v1 = torch.zeros(x.shape[1], 5, *x.shape[3:])
        v2 = torch.zeros(x.shape[1], 6)
        out = []
        for t in range(x.shape[0]):
            s, v1 = self.cell1(self.norm(self.conv(x[t])), v1)
            s = self.drop(self.pool(s)).flatten(1)
            s, v2 = self.cell2(self.layer(self.fc(s)), v2)
            out.append(s)
        return torch.stack(out)


class Folded(Images):
    """Time folded into the batch for the convolution, and a loop for the neuron."""

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y = self.norm(self.conv(x.flatten(0, 1)))
        y = y.view(steps, batch, *y.shape[1:])
        v, out = torch.zeros_like(y[0]), []
        for t in range(steps):
            s, v = self.cell1(y[t], v)
            out.append(s)
        y = self.pool(torch.stack(out).flatten(0, 1))
        return y.view(steps, batch, *y.shape[1:]).mean(0)


def _net(kind: type[nn.Module], *args: Any) -> Callable[[], nn.Module]:
    return lambda: kind(*args)


def _sequence(t: int, n: int) -> tuple[Tensor, ...]:
    return (numbers(t, n, 6),)


def _images(t: int, n: int) -> tuple[Tensor, ...]:
    return (numbers(t, n, 2, 8, 8),)


_RETURNED: dict[str, Callable[[list[Tensor], list[Tensor]], Any]] = {
    "stacked spikes": lambda s, _: torch.stack(s),
    "list of spikes": lambda s, _: s,
    "spikes and membranes": lambda s, v: (torch.stack(s), torch.stack(v)),
    "two lists": lambda s, v: (s, v),
    "dict": lambda s, v: {"spikes": torch.stack(s), "voltage": torch.stack(v)},
    "last value": lambda _, v: v[-1],
    "sum": lambda s, _: torch.stack(s).sum(0),
    "mean": lambda s, _: torch.stack(s, dim=1).mean(1),
    "Python sum over T": lambda s, _: sum(s) / len(s),
    "max": lambda _, v: torch.stack(v).max(0).values,
    "softmax of counts": lambda s, _: F.softmax(torch.stack(s).sum(0), dim=-1),
    "first spike": lambda s, _: torch.stack(s).argmax(0),
}


def _without_first(spikes: list[Tensor], _: list[Tensor]) -> Tensor:
    return torch.stack(spikes[1:])


def _every_second(spikes: list[Tensor], _: list[Tensor]) -> Tensor:
    return torch.stack(spikes[::2])


NETWORKS = [
    *(Network(name, _net(Returned, end), _sequence) for name, end in _RETURNED.items()),
    Network("without the first step", _net(Returned, _without_first), _sequence),
    Network("every second step", _net(Returned, _every_second), _sequence),
    Network("batch first", _net(Batches), lambda t, n: (numbers(n, t, 6),), axes="NTC"),
    Network("time last", _net(TimeLast), lambda t, n: (numbers(n, 6, t),), axes="NCT"),
    Network("for x_t in x", _net(Iterated), _sequence),
    Network("unbind", _net(Unbound), _sequence),
    Network("output buffer", _net(Buffer), _sequence),
    Network("counts in place", _net(Accumulated), _sequence),
    Network("layer by layer", _net(Hoisted), _sequence),
    Network(
        "states as arguments",
        _net(Resumed),
        lambda t, n: (numbers(t, n, 6), numbers(n, 10), numbers(n, 4)),
    ),
    Network("static image", _net(Static, 8), lambda t, n: (frames(n, 6),), steps=8),
    Network("static image, rate", _net(StaticRate, 8), lambda t, n: (frames(n, 6),), steps=8),
    Network("static and sequence", _net(Both), lambda t, n: (numbers(t, n, 6), numbers(n, 3))),
    Network("two sequences", _net(TwoInputs), lambda t, n: (numbers(t, n, 6), numbers(t, n, 3))),
    Network("conv, norm, pool, dropout", _net(Images), _images),
    Network("time folded into batch", _net(Folded), _images),
]
