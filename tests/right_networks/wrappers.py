"""What users put around a module that maps (N, C, T) to (N, C', T); each keeps those sizes.

A wrapper takes the module and returns the one to use in its place, often the same one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synapse_onnx._layer import Deployable

Wrapper = Callable[[nn.Module, Random], nn.Module]


class Call(nn.Module):
    """Calls a module by a function ``how(module, x)``."""

    def __init__(self, inner: nn.Module, how: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.inner, x)


class Star(nn.Module):
    """Passes on whatever it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Keywords(nn.Module):
    """Has more arguments, with defaults."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *, gain: float = 0.5, mask: Tensor | None = None) -> Any:
        return self.inner(x) * gain if mask is None else self.inner(x) * mask


class Named(nn.Module):
    """Keeps modules in containers, and under several names."""

    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__()
        self.first = inner
        self.second = inner
        self.table = nn.ModuleDict({"one": inner, "two": nn.Sequential(inner)})
        self.several = nn.ModuleList([inner])
        self.how = how

    def forward(self, x: Tensor) -> Any:
        if self.how == "table":
            return self.table["two"](x)
        return self.several[0](x) if self.how == "list" else self.second(x)


class Unused(nn.Module):
    """Runs a module once more, for nothing."""

    def __init__(self, inner: nn.Module, other: nn.Module, before: bool) -> None:
        super().__init__()
        self.inner, self.other, self.before = inner, other, before

    def forward(self, x: Tensor) -> Any:
        if self.before:
            self.other(x + 1)
            return self.inner(x)
        y = self.inner(x)
        _ = self.other(x * 2)
        return y


def layers(module: nn.Module) -> list[nn.Module]:
    """The layers of this package in a module, one of each."""
    found = [part for part in module.modules() if isinstance(part, Deployable)]
    inner = {id(p) for part in found for p in part.modules() if p is not part}
    return [part for part in found if id(part) not in inner]


def _hooked(module: nn.Module, rng: Random) -> nn.Module:
    """Change what goes into or comes out of a layer or the whole, by hooks."""
    real = [part for part in layers(module) if not getattr(part, "complex", False)]
    target = rng.choice([module, *real])
    for kind in rng.sample(["out", "in", "seen", "in place", "keywords", "stored"], 2):
        if kind == "out":
            target.register_forward_hook(lambda m, i, o: mapped(o, lambda y: 0.5 * y))
        elif kind == "in":
            target.register_forward_pre_hook(lambda m, i: mapped(i, lambda y: 2 * y))
        elif kind == "seen":
            shapes: list[Any] = []
            target.register_forward_hook(lambda m, i, o, seen=shapes: seen.append(type(o)))
        elif kind == "in place":
            target.register_forward_hook(lambda m, i, o: mapped(o, lambda y: y.mul_(0.5)))
        elif kind == "keywords":
            target.register_forward_pre_hook(
                lambda m, a, k: (mapped(a, lambda y: y + 0.25), k), with_kwargs=True
            )
        else:
            target.register_forward_hook(lambda m, i, o: setattr(m, "last", o))
    return module


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple | list):
        return tuple(mapped(each, function) for each in value)
    return function(value)


def _subclassed(module: nn.Module, rng: Random) -> nn.Module:
    """Give a module, or a layer in it, a subclass that goes on with ``super().forward``."""
    target = rng.choice([module, *layers(module)])
    base: Any = type(target)
    form = rng.choice(["after", "before", "clone"])

    def forward(self: nn.Module, *args: Any) -> Any:
        if form == "before":
            args = mapped(args, lambda x: x * 0.5)
        y = base.forward(self, *args) if form == "clone" else super(kind, self).forward(*args)
        return mapped(y, torch.clone if form == "clone" else lambda x: x * 0.5 + 0.25)

    kind = type(f"My{base.__name__}", (base,), {"forward": forward})
    target.__class__ = kind
    return module


def _functional(module: nn.Module, rng: Random) -> nn.Module:
    """Call a module by ``torch.func.functional_call``, where torch can."""
    if any(isinstance(part, nn.DataParallel) for part in module.modules()):
        return module
    buffers, copies = rng.random() < 0.5, rng.random() < 0.3

    def how(inner: nn.Module, x: Tensor) -> Any:
        given = dict(inner.named_parameters())
        if copies:
            given = {name: value.clone() for name, value in given.items()}
        if buffers:
            given |= dict(inner.named_buffers())
        return torch.func.functional_call(inner, given, (x,))

    return Call(module, how)


def _changed_in_place(module: nn.Module, rng: Random) -> nn.Module:
    """Change the input before or after the call, or the output."""
    form = rng.choice(["before", "after", "output", "slice"])

    def how(inner: nn.Module, x: Tensor) -> Any:
        if form == "before":
            x.mul_(2)
        elif form == "slice":
            x[:, 0] = 1
        y = inner(x)
        if form == "after":
            x.zero_()
        return y.add_(0.25) if form == "output" else y

    return Call(module, how)


def _unused(module: nn.Module, rng: Random) -> nn.Module:
    other = module if rng.random() < 0.3 else copy.deepcopy(module)
    return Unused(module, other, rng.random() < 0.5)


def _compiled(module: nn.Module, rng: Random) -> nn.Module:
    if rng.random() < 0.5:
        module.compile(backend="eager")
        return module
    compiled: Any = torch.compile(module, backend="eager")
    return compiled


def _in_a_mode(module: nn.Module, rng: Random) -> nn.Module:
    mode = rng.choice([torch.no_grad, torch.inference_mode])

    def how(inner: nn.Module, x: Tensor) -> Any:
        with mode():
            return inner(x)

    return Call(module, how)


def _forward_itself(module: nn.Module, rng: Random) -> nn.Module:
    return Call(module, lambda inner, x: inner.forward(x))


def _checkpointed(module: nn.Module, rng: Random) -> nn.Module:
    return Call(module, lambda inner, x: checkpoint(inner, x, use_reentrant=False))


def _trained(module: nn.Module, rng: Random) -> nn.Module:
    """Turn gradients on, as after a training."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return module


WRAPPERS: dict[str, Wrapper] = {
    "hooks": _hooked,
    "subclass": _subclassed,
    "functional_call": _functional,
    "in place": _changed_in_place,
    "unused result": _unused,
    "torch.compile": _compiled,
    "two names": lambda m, rng: Named(m, rng.choice(["table", "list", "name"])),
    "*args": lambda m, rng: Star(m),
    "keywords": lambda m, rng: Keywords(m),
    "DataParallel": lambda m, rng: nn.DataParallel(m),
    "grad mode": _in_a_mode,
    "forward() itself": _forward_itself,
    "checkpoint": _checkpointed,
    "requires_grad": _trained,
}
