"""The number of steps where code holds it: ``for t in range(self.num_steps)``.

Such a network takes one number of steps alone, and its traces can be made for others all the same:
the number is set on a copy. It is an attribute of a module, a default of ``forward``, or a global
name that ``forward`` reads, as ``num_steps`` of snnTorch's tutorials.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from synapse_onnx._layer import Deployable
from synapse_onnx.compiler import copies
from synapse_onnx.compiler.counting import count_operators

__all__ = ["Length", "held_lengths"]

#: an attribute of a larger value counts something else
_MOST = 10_000


@dataclass(frozen=True)
class Length:
    """A number of steps that a network holds.

    Attributes:
        paths: paths of the modules that hold it.
        name: its name: of an attribute, or of a default or global name of ``forward``.
        value: the number.
        in_forward: whether ``forward`` holds it.
    """

    paths: tuple[str, ...]
    name: str
    value: int
    in_forward: bool = False

    def given(self, network: nn.Module, steps: int) -> nn.Module:
        """Return a copy of a network that runs so many steps."""
        copied = copies.copied(network)
        modules = dict(nn.Module.named_modules(copied))
        for module in (modules[path] for path in self.paths):
            if self.in_forward:
                module.__dict__["forward"] = MethodType(
                    _with_number(type(module).forward, self.name, steps), module
                )
            else:
                module.__dict__[self.name] = steps
        return copied


def held_lengths(
    network: nn.Module, inputs: Callable[[int], Sequence[Any]], values: Collection[int] = ()
) -> list[Length]:
    """Return the numbers in a network that it runs more operators for if they are larger.

    The number of layers may be one of them, too: it is found out later that layers have no common
    step.

    Args:
        network: a network.
        inputs: gives inputs of so many steps.
        values: the numbers that count; all if there are none.
    """
    candidates = (each for each in _candidates(network) if not values or each.value in values)
    return [length for length in candidates if _counts(length, network, inputs)]


def _counts(length: Length, network: nn.Module, inputs: Callable[[int], Sequence[Any]]) -> bool:
    few, more = (count_operators(length.given(network, n), inputs(n)) for n in (2, 3))
    return few is not None and more is not None and more > few


def _candidates(network: nn.Module) -> list[Length]:
    """Return every number that forward() may read; modules that hold it alike hold one."""
    paths: dict[tuple[str, int, bool], list[str]] = {}
    for path, module in nn.Module.named_modules(network):
        kind = type(module)
        if kind.__module__.partition(".")[0] == "torch" or isinstance(module, Deployable):
            continue
        read = _names_read(kind)
        for name, value in vars(module).items():
            if name in read and _is_number(value):
                paths.setdefault((name, value, False), []).append(path)
        forward = kind.forward
        if not isinstance(forward, FunctionType) or "forward" in vars(module):
            continue
        held: dict[str, Any] = {
            name: parameter.default
            for name, parameter in inspect.signature(forward).parameters.items()
        }
        held |= {n: forward.__globals__[n] for n in _names(forward) if n in forward.__globals__}
        for name, value in held.items():
            if _is_number(value):
                paths.setdefault((name, value, True), []).append(path)
    return [Length(tuple(held), *key) for key, held in paths.items()]


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 < value <= _MOST


def _names_read(kind: type) -> set[str]:
    """Return the names that the methods of a class read, but for its constructor."""
    functions = [
        function
        for each in kind.__mro__
        if each.__module__.partition(".")[0] not in ("torch", "builtins")
        for name, function in vars(each).items()
        if isinstance(function, FunctionType) and name != "__init__"
    ]
    return {name for function in functions for name in _names(function)}


def _names(function: FunctionType) -> set[str]:
    names: set[str] = set()
    todo = [function.__code__]
    while todo:  # a comprehension may be code of its own
        code = todo.pop()
        names.update(code.co_names)
        todo += [each for each in code.co_consts if isinstance(each, CodeType)]
    return names


def _with_number(function: FunctionType, name: str, number: int) -> FunctionType:
    """Return a function with another default, or another value of a global name."""
    parameters = list(inspect.signature(function).parameters.values())
    made = FunctionType(
        function.__code__,
        function.__globals__ | {name: number},
        function.__name__,
        tuple(
            number if p.name == name else p.default
            for p in parameters
            if p.default is not p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ),
        function.__closure__,
    )
    defaults = function.__kwdefaults__
    made.__kwdefaults__ = defaults and {k: number if k == name else v for k, v in defaults.items()}
    return made
