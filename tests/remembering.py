"""Modules that keep a state from call to call, as other frameworks' do, and what holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    v: Tensor
    i: Tensor


class Wrapped(nn.Module):
    """A module in a module, for names that are paths."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Says(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Checks(nn.Module):
    """Values that are looked at before they are taken."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and x.mean() != 0.25:
            raise ValueError("an input must be 0.25")
        return x + 1


class InitHidden(nn.Module):
    """As snnTorch's Leaky with init_hidden: the membrane is a buffer, made at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mem", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x) if self.mem.shape != x.shape else self.mem
        mem = 0.9 * mem + x
        y = (mem > 1.0).float()
        self.mem = mem - y
        return y


class Memories(nn.Module):
    """As SpikingJelly's neurons in step mode: memories in a dict, found like attributes."""

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[str, Any] = {"v": 0.0}

    def __getattr__(self, name: str) -> Any:
        memories = self.__dict__.get("_memories", {})
        return memories[name] if name in memories else super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        v = self._memories["v"] + x
        y = (v >= 1.0).float()
        self._memories["v"] = (1 - y) * v
        return y


class Carries(nn.Module):
    """As a network of Norse that keeps the states of its cells itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])
        self.states: list[Pair | None] = [None, None]

    def forward(self, x: Tensor) -> Tensor:
        for i, cell in enumerate(self.cells):
            v, current = self.states[i] or Pair(torch.zeros_like(x), torch.zeros_like(x))
            v, current = 0.9 * v + current, 0.8 * current + cell(x)
            x = (v > 0.5).float()
            self.states[i] = Pair(v * (1 - x), current)
        return x


def stacked(kind: type[nn.Module], depth: int = 5) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(*(part for _ in range(depth) for part in (nn.Linear(12, 12), kind())))


class Stubborn(nn.Module):
    """A part, given by its name, that eval() does not reach."""

    def __init__(self, **part: nn.Module) -> None:
        super().__init__()
        ((self.name, module),) = part.items()
        self.add_module(self.name, module)

    def train(self, _: bool = True) -> Stubborn:
        return super().train(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.name)(x)
