"""Networks that no file with open T and N can hold: each must be refused with a sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import Network
from .plain_torch_networks import FRAMEWORK, Net, _net, _sequence

__all__ = ["FRAMEWORK", "NETWORKS"]


class Looped(Net):
    """The loop; each network below changes its step."""

    def forward(self, x: Tensor) -> Tensor:
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for t in range(x.shape[0]):
            s, v1, v2 = self.changed(t, x, *self.step(x[t], v1, v2))
            out.append(s)
        return torch.stack(out)

    def changed(
        self, t: int, x: Tensor, s: Tensor, v1: Tensor, v2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError


class Special(Looped):
    def __init__(self, special: int) -> None:
        super().__init__()
        self.special = special

    def changed(self, t, x, s, v1, v2):
        return s, v1, torch.zeros_like(v2) if t == self.special else v2


class Late(Looped):
    def changed(self, t, x, s, v1, v2):
        return s if t < 10 else s * 0.5, v1, v2


class Branch(Looped):
    def changed(self, t, x, s, v1, v2):
        return s, v1 * 0.5 if s.sum() > 1 else v1, v2


class Stopping(Looped):
    def forward(self, x):
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        total = torch.zeros_like(v2)
        for x_t in x:
            s, v1, v2 = self.step(x_t, v1, v2)
            total = total + s
            if total.max() > 3:
                break
        return total


class Random(Looped):
    def changed(self, t, x, s, v1, v2):
        return s, v1, v2 + 0.1 * torch.rand_like(v2)


class PoissonInput(Looped):
    def forward(self, x):
        return super().forward((torch.rand_like(x) < x.sigmoid()).float())

    def changed(self, t, x, s, v1, v2):
        return s, v1, v2


class DropoutAlways(Looped):
    def changed(self, t, x, s, v1, v2):
        return nn.functional.dropout(s, 0.5, training=True), v1, v2


class Stale(Net):
    """Keeps its state from the call before."""

    v1: Tensor | None = None

    def forward(self, x):
        if self.v1 is None:
            self.v1 = self.zeros(x)
        v2, out = self.zeros(x, self.outputs), []
        for x_t in x:
            s, self.v1, v2 = self.step(x_t, self.v1, v2)
            out.append(s)
        return torch.stack(out)


class Counter(Net):
    """Counts its steps in a buffer, and does something else after ten."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t in x:
            self.count += 1
            s, v1, v2 = self.step(x_t, v1, v2)
            out.append(s * (self.count > 10))
        return torch.stack(out)


class LengthBranch(Looped):
    """T used as a number that chooses code."""

    def changed(self, t, x, s, v1, v2):
        return s * 2 if x.shape[0] > 6 else s, v1, v2


class BatchBranch(Looped):
    """N used as a number that chooses code."""

    def changed(self, t, x, s, v1, v2):
        return s * 2 if x.shape[1] > 3 else s, v1, v2


class Square(Looped):
    """A function of t that is neither affine nor geometric."""

    def changed(self, t, x, s, v1, v2):
        return s * float(t * t), v1, v2


class LengthPower(Looped):
    """A function of T that is not affine."""

    def changed(self, t, x, s, v1, v2):
        return s * 2.0 ** -x.shape[0], v1, v2


class Window(Looped):
    """A window that grows with t."""

    def changed(self, t, x, s, v1, v2):
        return s + x[: t + 1, :, :4].max(0).values, v1, v2


class Quadratic(Net):
    """Attention over all pairs of steps, within a loop."""

    def forward(self, x):
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t in x:
            s, v1, v2 = self.step(x_t, v1, v2)
            out.append(s + sum(o for o in out) if out else s)
        return torch.stack(out[::-1][: len(out) // 3 + 1])


class Half(Net):
    """T // 2, which is no affine function of T."""

    def forward(self, x):
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        out = []
        for x_t in x:
            s, v1, v2 = self.step(x_t, v1, v2)
            out.append(s)
        return torch.stack(out)[len(out) // 2 :].mean(0)


class Numpy(Looped):
    """Leaves torch for NumPy within the step."""

    def changed(self, t, x, s, v1, v2):
        return s, v1, v2 + torch.from_numpy(s.detach().numpy() * 0.1)


class Item(Looped):
    """Takes a number out of a tensor."""

    def changed(self, t, x, s, v1, v2):
        return s * s.mean().item(), v1, v2


class Ragged(Net):
    """Selects samples by their values."""

    def forward(self, x):
        v1, v2 = self.zeros(x), self.zeros(x, self.outputs)
        total = torch.zeros_like(v2)
        for x_t in x:
            s, v1, v2 = self.step(x_t, v1, v2)
            total = total + s
        return total[total.sum(1) > 3]


NETWORKS = [
    Network("if t == 7", _net(Special, 7), _sequence, refused="is computed in another way"),
    Network("if t == 3", _net(Special, 3), _sequence, refused="is computed in another way"),
    Network("if t < 10", _net(Late), _sequence, refused="is computed in another way"),
    Network("if s.sum() > 1", _net(Branch), _sequence, refused="values of a tensor"),
    Network("break when sure", _net(Stopping), _sequence, refused="values of a tensor"),
    Network("noise in the step", _net(Random), _sequence, refused="is random"),
    Network("Poisson input", _net(PoissonInput), _sequence, refused="is random"),
    Network("dropout that stays on", _net(DropoutAlways), _sequence, refused="is random"),
    Network("stale state", _net(Stale), _sequence, refused="depends on earlier calls"),
    Network("counter buffer", _net(Counter), _sequence, refused="no common form"),
    Network("if T > 6", _net(LengthBranch), _sequence, refused="number of steps"),
    Network("if N > 3", _net(BatchBranch), _sequence, refused="no common form"),
    Network("t * t", _net(Square), _sequence, refused="a number is"),
    Network("2 ** -T", _net(LengthPower), _sequence, refused="a number is"),
    Network("T // 2", _net(Half), _sequence, refused="a number is"),
    Network("window that grows", _net(Window), _sequence, refused="no common form"),
    Network("sums of all steps before", _net(Quadratic), _sequence, refused="no common form"),
    Network("NumPy in the step", _net(Numpy), _sequence, refused="NumPy"),
    Network("item()", _net(Item), _sequence, refused="as a Python number"),
    Network("selected samples", _net(Ragged), _sequence, refused="values of a tensor"),
]
