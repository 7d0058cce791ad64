"""What calls changed in a module: its tensors, numbers and generators, found in every attribute."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["changes", "is_same"]

#: attributes in attributes that are looked at: a list in a dict in an object in a module is three
_DEPTH = 8


#: where a module holds its tensors and parts
_OF_TORCH = {"_parameters", "_buffers", "_modules"}

#: where classes come from whose text shows all that an object holds: itertools.count
_SHOWN_WHOLE = {"itertools"}

#: name, and the two values; two None where one copy lacks it
_Change = tuple[str, Any, Any]


def changes(one: nn.Module, other: nn.Module) -> Iterator[_Change]:
    """Yield what differs between two copies of a module: its name, as ``lif.mem``, and the values.

    Everything is compared that a copy has of its own: parameters, buffers and plain attributes,
    with what lists, dicts, tuples and objects in them hold. What both copies share is not.
    """
    yield from _changes("", one, other, set(), _DEPTH)


def is_same(a: Any, b: Any) -> bool:
    """Whether two tensors, arrays or numbers are equal to the last bit, where NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if (a.shape, a.dtype, a.layout, a.device) != (b.shape, b.dtype, b.layout, b.device):
            return False
        if a.is_quantized or a.layout != torch.strided or a.device.type == "meta":
            return str(a) == str(b)
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())  # noqa: PLR0124
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    return bool(a == b) or bool(a != a and b != b)  # noqa: PLR0124


def _changes(name: str, a: Any, b: Any, seen: set[int], depth: int) -> Iterator[_Change]:
    if a is b or id(a) in seen or depth < 0:
        return
    if type(a) is not type(b):
        yield name, a, b
        return
    if isinstance(a, Tensor | np.ndarray | int | float | complex | str | bytes):
        if isinstance(a, Tensor):
            seen.add(id(a))  # Rockpool keeps a state as a buffer and in a list of its own
        if not is_same(a, b):
            yield name, a, b
        return
    generator = _generator_state(a)
    if generator is not None:
        if generator != _generator_state(b):
            yield name, a, b
        return
    if type(a).__module__ in _SHOWN_WHOLE:
        if repr(a) != repr(b):
            yield name, a, b
        return
    seen.add(id(a))
    ours, others = dict(_parts(name, a)), dict(_parts(name, b))
    for part in (*ours, *(part for part in others if part not in ours)):
        if part not in ours or part not in others:
            yield part, None, None
        else:
            yield from _changes(part, ours[part], others[part], seen, depth - 1)


def _generator_state(value: Any) -> Any:
    """Return the state of a generator of random numbers; None for another object."""
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    return None


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a container or object, with their names."""
    before = f"{name}." if name else ""
    if isinstance(value, nn.Module):
        named = set()
        # by its path in torch first, whatever else holds it
        for key, held in sorted(vars(value).items(), key=lambda item: item[0] not in _OF_TORCH):
            if isinstance(held, dict):
                # buffers, submodules, and what frameworks keep so, go by the name of an attribute
                for inner, part in held.items():
                    plain = isinstance(inner, str) and _attribute(value, inner) is part
                    plain = plain and inner not in named  # 0.0 may be one object in two dicts
                    named.update([inner] if plain else [])
                    yield f"{before}{inner}" if plain else f"{before}{key}[{inner!r}]", part
            else:
                yield f"{before}{key}", held
    elif isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip((f"{before}{field}" for field in value._fields), value, strict=True)
    elif isinstance(value, list | tuple | deque):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(value))
    elif hasattr(value, "__dict__"):
        yield from ((f"{before}{key}", part) for key, part in vars(value).items())
    elif hasattr(value, "__self__"):
        yield name, value.__self__
    else:
        for key in getattr(type(value), "__slots__", ()):
            if hasattr(value, key):
                yield f"{before}{key}", getattr(value, key)


def _attribute(module: nn.Module, name: str) -> Any:
    try:
        return getattr(module, name, None)
    except Exception:  # a property of the user's that raises
        return None
