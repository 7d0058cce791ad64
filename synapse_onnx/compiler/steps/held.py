"""What the parts of a step module hold between calls, and how it is put back.

A state is a buffer, or a plain attribute: a tensor, a number, or a list, tuple or dictionary of
them. Which of them are states is seen when the module runs: its calls change them.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from synapse_onnx.compiler import copies
from synapse_onnx.compiler._changes import is_same
from synapse_onnx.compiler.frameworks import start_states

__all__ = ["Name", "Start", "changed", "marks"]

#: values and containers that a state may be of
_LEAVES = (Tensor, bool, int, float, complex, str, type(None))
_CONTAINERS = (dict, list, tuple, collections.deque)

#: attributes that every module has
_OF_TORCH = frozenset(vars(nn.Module()))

#: what a norm learns in training
_STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})

#: what a module does not hold
_NOTHING = object()


class Name(NamedTuple):
    """A buffer or attribute: the path of its module, and its name there."""

    path: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}.{self.name}" if self.path else self.name


def _held(module: nn.Module) -> Iterator[tuple[Name, Any, bool]]:
    """Yield name, value, and whether it is a buffer, of all that may be a state.

    Modules of torch's own keep none: a norm's statistics are no state of a sequence.
    """
    for path, part in module.named_modules():
        if type(part).__module__.startswith("torch."):
            continue
        norm = isinstance(part, nn.modules.batchnorm._NormBase)
        for store in (part._buffers, vars(part)):
            for name, value in list(store.items()):
                plain = store is not part._buffers
                if (plain and name in _OF_TORCH) or (norm and name in _STATISTICS):
                    continue
                if _is_plain(value):
                    yield Name(path, name), value, not plain


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor, a number, or a container of them alone."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, _CONTAINERS):
        return all(map(_is_plain, value))
    return isinstance(value, _LEAVES) and not (isinstance(value, Tensor) and is_lazy(value))


# -- how they start --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What a step module held at the start.

    Attributes:
        values: every value that may be a state, and whether it is a buffer.
        stale: names of those that an earlier call computed: they have a graph.
    """

    values: dict[Name, tuple[Any, bool]]
    stale: frozenset[Name]

    @classmethod
    def of(cls, module: nn.Module) -> Start:
        """Read what a module holds; the states of frameworks are those of fresh modules.

        Raises:
            InputError: the module cannot be copied.
        """
        copied = copies.copied(module)
        before = marks(copied)
        start_states(copied)
        graphs = {
            name
            for name, value, _ in _held(module)
            if any(isinstance(x, Tensor) and x.grad_fn for x in pytree.tree_leaves(value))
        }
        return cls(
            {name: (value, buffer) for name, value, buffer in _held(copied)},
            frozenset(graphs - changed(copied, before)),
        )

    def put(self, module: nn.Module, names: AbstractSet[Name], factor: float = 1.0) -> None:
        """Give a module the values of the start, of these names; tensors times a factor."""
        parts = dict(module.named_modules())
        for name in names:
            part = parts[name.path]
            plain: dict[str, Any] = part.__dict__
            before = part._buffers.pop(name.name, plain.pop(name.name, None))
            value, buffer = self.values.get(name, (_NOTHING, False))
            if value is not _NOTHING:
                (part._buffers if buffer else plain)[name.name] = _fresh(value, before, factor)

    @contextlib.contextmanager
    def put_for_a_trace(self, module: nn.Module, names: AbstractSet[Name]) -> Iterator[None]:
        """Give a module these values, and then its own again: a tracer sees no state change.

        torch 2.13 writes what is assigned to a buffer of the traced module into the program, even
        if it has another shape than the buffer. So the module, whose buffers the traced one has,
        gets a dictionary of its own.
        """
        buffers = module._buffers
        parts = dict(module.named_modules())
        before = {path: (dict(parts[path]._buffers), dict(vars(parts[path]))) for path, _ in names}
        vars(module)["_buffers"] = dict(buffers)
        try:
            self.put(module, names)
            yield
        finally:
            vars(module)["_buffers"] = buffers
            for path, name in names:
                for store, old in zip(
                    (parts[path]._buffers, vars(parts[path])), before[path], strict=True
                ):
                    store.pop(name, None)
                    if name in old:
                        store[name] = old[name]


def _fresh(value: Any, like: Any, factor: float) -> Any:
    """Return a copy of a start value, where the module is now, and in its type."""

    def copied(leaf: Tensor) -> Tensor:
        if isinstance(like, Tensor):
            kept = not (leaf.is_floating_point() and like.is_floating_point())
            leaf = leaf.to(like.device, leaf.dtype if kept else like.dtype)
        return leaf.clone() if factor == 1 else leaf * factor

    return pytree.tree_map_only(Tensor, copied, value)


# -- what calls change -----------------------------------------------------------------------------


def marks(module: nn.Module) -> dict[Name, list[Any]]:
    """Return by what it shows whether a value is changed: a later call compares it."""
    return {name: _mark(value) for name, value, _ in _held(module)}


def changed(module: nn.Module, before: dict[Name, list[Any]]) -> set[Name]:
    """Return the names of what is not as it was when ``before`` was marked."""
    held = {name: value for name, value, _ in _held(module)}
    after = {name: _mark(value) for name, value in held.items()}
    return {
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not _same(before[name], after[name])
    }


def _mark(value: Any) -> list[Any]:
    leaves, structure = pytree.tree_flatten(value)
    found: list[Any] = [structure]
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            found.append(leaf)
        elif leaf.is_inference():  # counts no changes
            found.append((leaf, leaf.clone()))
        else:
            found.append((leaf, leaf._version))
    return found


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(_is_unchanged, one, other))


def _is_unchanged(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        (tensor, version), (later, now) = one, other
        if tensor is not later:
            return False
        return torch.equal(version, now) if isinstance(version, Tensor) else bool(version == now)
    return is_same(one, other)
