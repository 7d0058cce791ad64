"""Recurrences of plain torch: delays, feedback, order, functions of t."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .network import Network, numbers
from .plain_torch_networks import FRAMEWORK, Cell, Net, _images, _net, _sequence

__all__ = ["FRAMEWORK", "NETWORKS"]


class Delayed(Net):
    """Spikes arrive three steps later, from a list of those before."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        line = [self.zeros(x) for _ in range(3)]
        out = []
        for t in range(x.shape[0]):
            s, v1 = self.cell1(self.fc1(x[t]), v1)
            line.append(s)
            s, v2 = self.cell2(self.fc2(line.pop(0)), v2)
            out.append(s)
        return torch.stack(out)


class DelayedSkip(Net):
    """Adds the input of two steps before, if there is one."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            now = x[t] + 0.5 * x[t - 2] if t >= 2 else x[t]
            s, v1, v2 = self.step(now, v1, v2)
            out.append(s)
        return torch.stack(out)


class Padded(Net):
    """Delays the input by a pad and a cut, as axonal delays are written."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([torch.zeros_like(x[:2]), x])[: x.shape[0]]
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t], v1, v2)
            out.append(s)
        return torch.stack(out)


class Feedback(Net):
    """The second layer feeds the first, one step later."""

    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(self.outputs, self.hidden)

    def forward(self, x: Tensor) -> Tensor:
        v1, v2, s2 = self.zeros(x), self.zeros(x, self.outputs), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s1, v1 = self.cell1(self.fc1(x[t]) + self.back(s2), v1)
            s2, v2 = self.cell2(self.fc2(s1), v2)
            out.append(s2)
        return torch.stack(out)


class ConvFeedback(nn.Module):
    """Recurrent spikes through a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.cell = Cell(0.8, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        v = s = torch.zeros(x.shape[1], 4, *x.shape[3:])
        out = []
        for x_t in x:
            s, v = self.cell(self.conv(x_t) + self.back(s), v)
            out.append(s)
        return torch.stack(out)


class Shared(Net):
    """One layer that is run twice in every step, with states of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(self.hidden, self.hidden)
        nn.init.uniform_(self.again.weight, -0.4, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        v1, v2, v3 = self.zeros(x), self.zeros(x), self.zeros(x)
        out = []
        for x_t in x:
            s, v1 = self.cell1(self.fc1(x_t), v1)
            s, v2 = self.cell1(self.again(s), v2)
            s, v3 = self.cell1(self.again(s), v3)
            out.append(s)
        return torch.stack(out)


class Bidirectional(Net):
    """One loop over the sequence, and one over its flip; both joined."""

    def _run(self, x: Tensor) -> Tensor:
        v, out = self.zeros(x), []
        for x_t in x:
            s, v = self.cell1(self.fc1(x_t), v)
            out.append(s)
        return torch.stack(out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(x), self._run(x.flip(0)).flip(0)], dim=-1)


class Reversed(Net):
    """From the last step to the first."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0] - 1, -1, -1):
            s, v1, v2 = self.step(x[t], v1, v2)
            out.insert(0, s)
        return torch.stack(out)


class Skipping(Net):
    """Takes every second step alone."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(0, x.shape[0], 2):
            s, v1, v2 = self.step(x[t], v1, v2)
            out.append(s)
        return torch.stack(out)


class Periodic(Net):
    """Updates its second layer in every second step."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        s2, out = self.zeros(x, self.outputs), []
        for t in range(x.shape[0]):
            s1, v1 = self.cell1(self.fc1(x[t]), v1)
            if t % 2 == 0:
                s2, v2 = self.cell2(self.fc2(s1), v2)
            out.append(s2)
        return torch.stack(out)


class Geometric(Net):
    """A decay to the power of t."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t] * 0.9**t, v1, v2)
            out.append(s)
        return torch.stack(out)


class Affine(Net):
    """A threshold that grows with t."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = self.zeros(x), []
        for t in range(x.shape[0]):
            v = 0.8 * v + self.fc1(x[t])
            s = (v > 0.5 + 0.25 * t).float()
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


class Weighted(Net):
    """Outputs weighted by t and by T - t."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        total: Any = 0
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t], v1, v2)
            total = total + s * (x.shape[0] - t)
        return total


class Shares(Net):
    """The later a spike, the more it counts: its share of all steps."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t] * (0.5 * t), v1, v2)
            out.append(s * ((t + 1) / x.shape[0]))
        return torch.stack(out)


class Traces(Net):
    """Adaptation, synaptic trace, refractory counter: three states of one neuron."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v, i, a, rest = (self.zeros(x) for _ in range(4))
        spikes, voltages = [], []
        for x_t in x:
            i = 0.7 * i + self.fc1(x_t)
            v = torch.where(rest > 0, v, 0.9 * v + i - a)
            s = (v > 1).float()
            v = torch.where(s > 0, torch.zeros_like(v), v)
            a = 0.95 * a + 0.1 * s
            rest = torch.where(s > 0, torch.full_like(rest, 2), (rest - 1).clamp(min=0))
            spikes.append(s)
            voltages.append(v)
        return torch.stack(spikes), torch.stack(voltages)


class Gated(nn.Module):
    """Cells of torch: a GRUCell and an LSTMCell before a spiking layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRUCell(6, 8), nn.LSTMCell(8, 7)
        self.fc, self.cell = nn.Linear(7, 5), Cell(0.9, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        h, g = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 7)
        c, v = torch.zeros(x.shape[1], 7), torch.zeros(x.shape[1], 5)
        out = []
        for x_t in x:
            h = self.gru(x_t, h)
            g, c = self.lstm(h, (g, c))
            s, v = self.cell(self.fc(4 * g), v)
            out.append(s)
        return torch.stack(out)


class Attention(nn.Module):
    """Attention between the tokens of a step, on spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.cells = nn.ModuleList(Cell(0.7, 0.3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        # (T, N, C, H, W): every pixel is a token
        tokens = x.flatten(3).transpose(2, 3)
        states = [torch.zeros_like(tokens[0]) for _ in self.cells]
        out = []
        for x_t in tokens:
            s = []
            for i, layer in enumerate((self.q, self.k, self.v)):
                spikes, states[i] = self.cells[i](layer(x_t), states[i])
                s.append(spikes)
            y = s[0] @ s[1].transpose(-2, -1) @ s[2] * 0.25
            spikes, states[3] = self.cells[3](y, states[3])
            out.append(spikes.mean(1))
        return torch.stack(out)


class Winner(Net):
    """The neuron with the largest voltage alone spikes."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = self.zeros(x), []
        for x_t in x:
            v = 0.8 * v + self.fc1(x_t)
            s = torch.nn.functional.one_hot(v.argmax(1), self.hidden).float() * (v > 1)
            v = v - s
            out.append(s)
        return torch.stack(out)


class Whole(Net):
    """Mean over time goes into a second loop over the same sequence."""

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(0, keepdim=True)
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t in x:
            s, v1, v2 = self.step(x_t, v1, v2)
            out.append(s)
        return torch.stack(out)


class Differences(Net):
    """Sends the difference from the step before."""

    def forward(self, x: Tensor) -> Tensor:
        before, v1, v2 = torch.zeros_like(x[0]), self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t in x:
            s, v1, v2 = self.step(x_t - before, v1, v2)
            before = x_t
            out.append(s)
        return torch.stack(out)


class Later(Net):
    """Reads one step ahead; the last one twice."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            now = x[t] + x[min(t + 1, x.shape[0] - 1)]
            s, v1, v2 = self.step(now, v1, v2)
            out.append(s)
        return torch.stack(out)


class LearnedStart(Net):
    """States begin at parameters, one for each neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.rand(self.hidden))
        self.decay = nn.Parameter(torch.rand(self.hidden))

    def forward(self, x: Tensor) -> Tensor:
        v, out = self.start.expand(x.shape[1], -1), []
        for x_t in x:
            v = torch.sigmoid(self.decay) * v + self.fc1(x_t)
            s = (v > 1).float()
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


class PerStep(Net):
    """A parameter for every step: T is the author's."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.rand(9))

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.step(x[t] * self.gains[t], v1, v2)
            out.append(s)
        return torch.stack(out)


NETWORKS = [
    Network("delay of three steps", _net(Delayed), _sequence),
    Network("input of two steps before", _net(DelayedSkip), _sequence),
    Network("delay by padding", _net(Padded), _sequence),
    Network("feedback through two layers", _net(Feedback), _sequence),
    Network("feedback through a convolution", _net(ConvFeedback), _images),
    Network("shared layer", _net(Shared), _sequence),
    Network("bidirectional by flip", _net(Bidirectional), _sequence),
    Network("reversed loop", _net(Reversed), _sequence),
    Network("loop of every second step", _net(Skipping), _sequence),
    Network("layer in every second step", _net(Periodic), _sequence),
    Network("decay ** t", _net(Geometric), _sequence),
    Network("threshold grows with t", _net(Affine), _sequence),
    Network("weights T - t", _net(Weighted), _sequence),
    Network("weights (t + 1) / T", _net(Shares), _sequence),
    Network("adaptation and refractory", _net(Traces), _sequence),
    Network("GRUCell and LSTMCell", _net(Gated), _sequence),
    Network("attention", _net(Attention), lambda t, n: (numbers(t, n, 6, 3, 3),)),
    Network("winner takes all", _net(Winner), _sequence),
    Network("mean over time first", _net(Whole), _sequence),
    Network("differences", _net(Differences), _sequence),
    Network("one step ahead", _net(Later), _sequence),
    Network("learned start", _net(LearnedStart), _sequence),
    Network("parameter for every step", _net(PerStep), _sequence, steps=9),
]
