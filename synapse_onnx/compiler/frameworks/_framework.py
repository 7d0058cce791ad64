"""What a framework is to the compiler, and how the frameworks of a network are found."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._discovery import public_modules
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = [
    "Framework", "in_plain_torch", "is_known", "reset_states", "sequence_module", "start_states",
]  # fmt: skip


def _nothing(_: nn.Module) -> None:
    """Stand for what a framework does not need."""


def _no(_: nn.Module) -> bool:
    """Stand for a framework of single steps."""
    return False


@dataclass(frozen=True)
class Framework:
    """One framework, recognised by the package of its classes; we never import it.

    Attributes:
        name: its package, "spikingjelly".
        reset: forgets what a module of it keeps of one sequence; called for every module, parts
            before what holds them. Where a framework's users do not reset a module before every
            sequence, it does nothing.
        start: gives a module the states of one that was just made, whatever it was used for.
        takes_sequences: whether a module takes whole sequences, and no single steps.
        in_plain_torch: a context in which its code runs operators of torch alone, in the current
            thread, so that they can be counted and traced.
    """

    name: str
    reset: Callable[[nn.Module], None] = _nothing
    start: Callable[[nn.Module], None] = _nothing
    takes_sequences: Callable[[nn.Module], bool] = _no
    in_plain_torch: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def is_imported(self) -> bool:
        """Whether the user's program has imported it."""
        return self.name in sys.modules

    def owns(self, module: nn.Module) -> bool:
        """Whether a module's class, or one that it derives from, is defined in this framework."""
        return any(kind.__module__.split(".")[0] == self.name for kind in type(module).__mro__)


class _DetachedData(FunctionMode):
    """Reads ``x.data`` as ``x.detach()``."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        if function == Tensor.data.__get__:  # type: ignore[attr-defined]  # made at each access
            return args[0].detach()
        return function(*args, **kwargs)


@functools.cache
def _all_frameworks() -> tuple[Framework, ...]:
    """Return every framework, by the names of their files, which are looked for once."""
    package = __name__.rpartition(".")[0]
    names = public_modules(importlib.import_module(package).__path__)
    return tuple(importlib.import_module(f"{package}.{name}").FRAMEWORK for name in names)


@contextlib.contextmanager
def in_plain_torch() -> Iterator[None]:
    """Let user code and the frameworks that were imported run operators of torch alone.

    That holds in this thread. ``x.data``, which a tracer cannot follow, is ``x.detach()``.
    The caller's random numbers stay as they are: Rockpool draws some that it multiplies by 0.
    """
    with torch.random.fork_rng(devices=[]), contextlib.ExitStack() as stack:
        stack.enter_context(_DetachedData())
        for framework in _all_frameworks():
            if framework.is_imported:
                stack.enter_context(framework.in_plain_torch())
        yield


def is_known(network: nn.Module) -> bool:
    """Whether a network has modules of these frameworks."""
    imported = [framework for framework in _all_frameworks() if framework.is_imported]
    return any(each.owns(module) for each in imported for module in nn.Module.modules(network))


def reset_states(network: nn.Module) -> None:
    """Forget what the modules of frameworks keep of one sequence, in place.

    Frameworks whose users reset their networks before each sequence alone: others' states are not
    of one sequence, and what depends on them cannot be exported.
    """
    for framework, module in _owned(network):
        framework.reset(module)


def start_states(network: nn.Module) -> None:
    """Give the modules of frameworks the states of fresh ones, in place."""
    for framework, module in _owned(network):
        framework.start(module)


def sequence_module(network: nn.Module) -> tuple[str, nn.Module] | None:
    """Return path and module of what takes whole sequences: a part of a chain, or all; or None.

    Parts of other modules are not looked at: code may give them sequences of one step.
    """
    own = [framework for framework in _all_frameworks() if framework.owns(network)]
    if any(framework.takes_sequences(network) for framework in own):
        return "", network
    if isinstance(network, nn.Sequential) and (
        own or type(network).forward is nn.Sequential.forward
    ):
        for name, part in network.named_children():
            found = sequence_module(part)
            if found is not None:
                return f"{name}.{found[0]}".rstrip("."), found[1]
    return None


def _owned(network: nn.Module) -> Iterator[tuple[Framework, nn.Module]]:
    """Yield the modules of frameworks, parts before what holds them."""
    frameworks = _all_frameworks()
    # not network.modules(), which Rockpool replaces
    for module in reversed([module for _, module in nn.Module.named_modules(network)]):
        for framework in frameworks:
            if framework.owns(module):
                yield framework, module
