"""What a step function does besides computing its results, which no file can hold."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from synapse_onnx.errors import InputError

__all__ = ["check_side_effects"]

#: how deep lists, dictionaries and objects around a function are looked into
_DEPTH = 4

#: what no call changes, or what is too large to look into
_OPAQUE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def check_side_effects(
    name: str, fn: Callable[..., Any], x: Any, states: Mapping[str, Tensor]
) -> None:
    """Run a step function twice on the same values, and look at what it changes.

    Args:
        name: what errors call it.
        fn: the function.
        x: the current of a step, or a tuple of them.
        states: the states before it.

    Raises:
        InputError: it changes its arguments or what is around it, or gives other results.
    """
    results = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for _ in range(2):
            given = pytree.tree_map(torch.clone, (x, dict(states)))
            before, around = pytree.tree_leaves(given), dict(_around(fn))
            versions = [value._version for value in before]
            results.append(fn(*given))
            if [value._version for value in before] != versions:
                raise InputError(
                    f"step {name}: the function changes its arguments in place; compute new "
                    f"tensors, as in v = v + x instead of v += x"
                )
            for place, mark in _around(fn):
                if around.get(place, mark) != mark:
                    raise InputError(
                        f"step {name}: the function changes {place} at every call, and a file "
                        f"keeps nothing but the states; make it a state, or leave it out"
                    )
    if not all(map(_is_same, *map(pytree.tree_leaves, results))):
        raise InputError(
            f"step {name}: the function gives other results for the same input and states, so it "
            f"draws random numbers or keeps something between calls; make that a state or an input"
        )


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    return bool(one == other)


def _around(fn: Any) -> Iterator[tuple[str, Any]]:
    """Yield (place, mark) of what a function can read besides its arguments."""
    if isinstance(fn, nn.Module):
        yield from _marks("self", fn, _DEPTH)
        fn = type(fn).forward
    if isinstance(fn, types.MethodType):
        yield from _marks("self", fn.__self__, _DEPTH)
        fn = fn.__func__
    if not isinstance(fn, types.FunctionType):
        yield from _marks("self", fn, _DEPTH)
        return
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield from _marks(name, cell.cell_contents, _DEPTH)
        except ValueError:  # it has no value yet
            continue
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            yield from _marks(name, fn.__globals__[name], _DEPTH)


def _marks(place: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield (place, mark) of a value and of what it holds; a mark changes with the value."""
    if isinstance(value, Tensor):
        yield place, (id(value), value._version)
    elif isinstance(value, bool | int | float | complex | str | bytes | type(None)):
        yield place, repr(value)
    elif isinstance(value, _OPAQUE) or depth == 0:
        yield place, id(value)
    elif isinstance(value, list | tuple | set | frozenset | dict):
        yield place, (id(value), len(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _marks(f"{place}[{key!r}]", each, depth - 1)
    else:
        yield place, id(value)
        for key, each in getattr(value, "__dict__", {}).items():
            yield from _marks(f"{place}.{key}", each, depth - 1)
