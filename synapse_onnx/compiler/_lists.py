"""Lists of a frozen network's tensors, as code of the user's knows them.

A frozen layer holds integers in buffers that were parameters, and weight norm has left it, so that
``sum(p.abs().sum() for p in self.parameters())`` in ``forward`` would be of other tensors. While
the network runs, such a list has the names, shapes and types of before: a tensor of the layer where
it has the same one, and else a blank one. Code may ask for their sizes and types;
``next(self.parameters()).dtype`` is float32. :mod:`_watch` refuses to compute with blank ones.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import stateless

from synapse_onnx._layer import Deployable
from synapse_onnx.compiler._frames import is_users

__all__ = ["held", "is_same_module", "listed_as_before", "remember_lists"]

#: what a list of each kind is made of
_KINDS = {"named_parameters": "_parameters", "named_buffers": "_buffers"}

#: modules of the frames between a list and the code that asks for it: parameters() calls
#: named_parameters()
_BETWEEN = ("functools", "torch.nn.modules.module")

#: name of the attribute in which a frozen layer keeps what it listed before
_BEFORE = "_listed_before"


class _Entry(NamedTuple):
    """A tensor that a layer listed before it was frozen."""

    name: str
    kind: str
    identity: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def without_identity(self) -> tuple[Any, ...]:
        """What two layers with the same list have in common."""
        return self.name, self.kind, self.shape, self.dtype


def remember_lists(frozen: Deployable, before: Deployable, numbers: dict[int, int]) -> None:
    """Keep with a frozen layer which tensors it listed before, if that has changed.

    ``numbers`` tell tensors of a network apart, which layers may share: one dictionary a network.
    """
    entries = _entries(before, numbers)
    frozen.__dict__.pop(_BEFORE, None)  # of a network that was frozen twice
    if [each.without_identity for each in _entries(frozen, {})] != [
        each.without_identity for each in entries
    ]:
        frozen.__dict__[_BEFORE] = entries


def _entries(layer: nn.Module, numbers: dict[int, int]) -> tuple[_Entry, ...]:
    # negative: no tensor has such an id
    return tuple(
        _Entry(
            name,
            kind,
            -1 - numbers.setdefault(id(tensor), len(numbers)),
            tensor.shape,
            tensor.dtype,
        )
        for kind in _KINDS
        for name, tensor in getattr(layer, kind)(remove_duplicate=False)
    )


#: is told of a blank tensor: its layer, its name there, and itself
OnBlank = Callable[[nn.Module, str, Tensor], None]


def _nobody(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Let blank tensors pass: a trace will find them, if they are read."""


#: who is told of blank tensors, of every thread that runs such a network
_running: dict[int, OnBlank] = {}
_lock = threading.Lock()
_plain = {kind: getattr(nn.Module, kind) for kind in _KINDS}
_plain_functional_call: Any = stateless._functional_call

#: attribute of a blank tensor
_HOLDER = "_synapse_onnx_holder"


@contextlib.contextmanager
def listed_as_before(on_blank: OnBlank = _nobody) -> Iterator[None]:
    """Let frozen layers list their tensors as before to code in frames that are the user's.

    ``on_blank(layer, name, tensor)`` is told of every blank tensor of a list.
    """
    thread = threading.get_ident()
    with _lock:
        outer = _running.get(thread)
        _running[thread] = on_blank
        for kind in _KINDS:
            setattr(nn.Module, kind, functools.partialmethod(_list, kind))
        stateless._functional_call = _functional_call  # type: ignore[assignment]
    try:
        yield
    finally:
        with _lock:
            if outer is None:
                del _running[thread]
            else:
                _running[thread] = outer
            for kind, function in _plain.items() if not _running else ():
                setattr(nn.Module, kind, function)
                stateless._functional_call = _plain_functional_call


def _functional_call(module: nn.Module, tensors: dict[str, Tensor], *args: Any, **how: Any) -> Any:
    """Stand for what ``torch.func.functional_call`` calls: a layer keeps what it holds itself.

    Its lists have a blank tensor in the place of a weight that has become integers.

    A layer under two names would hold what it was given ever after: torch puts its tensor back, and
    then, for the other name, what it found there meanwhile (pytorch #164759).
    """
    given = {n: tensor for n, tensor in tensors.items() if not _is_own(module, n, tensor)}
    layers = (part for part in nn.Module.modules(module) if isinstance(part, Deployable))
    parts = [part for layer in layers for part in nn.Module.modules(layer)]
    tables: list[dict[str, Any]] = [
        table for part in parts for table in (part._parameters, part._buffers)
    ]
    before = [dict(table) for table in tables]
    try:
        return _plain_functional_call(module, given, *args, **how)
    finally:
        replaced = set(map(id, given.values()))
        for table, kept in zip(tables, before, strict=True):
            table.update((n, kept[n]) for n, t in table.items() if id(t) in replaced and n in kept)


def _is_own(module: nn.Module, name: str, tensor: Tensor) -> bool:
    """Whether a tensor is the blank one that a module's own list has under this name."""
    layer, own = vars(tensor).get(_HOLDER, (None, ""))
    if layer is None or not f".{name}".endswith(f".{own}"):
        return False
    try:
        part = module.get_submodule(name[: -len(own)].rstrip("."))
    except AttributeError:
        return False
    return is_same_module(part, layer)


def is_same_module(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are one: a tracer hands out proxies, which share what it holds."""
    return vars(one) is vars(other)


def held(module: nn.Module, path: str) -> Tensor | None:
    """Return the parameter or buffer at a path below a module; None without one."""
    owner, _, name = path.rpartition(".")
    try:
        part = module.get_submodule(owner)
    except AttributeError:  # dropout is removed
        return None
    tensor: Tensor | None = part._parameters.get(name)
    return part._buffers.get(name) if tensor is None else tensor


def _list(self: nn.Module, kind: str, /, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
    """Stand for ``named_parameters`` or ``named_buffers``."""
    on_blank = _running.get(threading.get_ident())
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if on_blank is not None and frame is not None and is_users(frame):
        return _listed(self, kind, on_blank, *args, **kwargs)
    result: Iterator[tuple[str, Tensor]] = _plain[kind](self, *args, **kwargs)
    return result


def _listed(
    module: nn.Module,
    kind: str,
    on_blank: OnBlank,
    prefix: str = "",
    recurse: bool = True,
    remove_duplicate: bool = True,
) -> Iterator[tuple[str, Tensor]]:
    """Yield what ``named_parameters`` or ``named_buffers`` would have yielded before."""
    seen: set[int] = set()
    for name, identity, tensor in _tensors(module, prefix, kind, recurse, on_blank):
        if identity not in seen or not remove_duplicate:
            seen.add(identity)
            yield name, tensor


def _tensors(
    module: nn.Module,
    path: str,
    kind: str,
    recurse: bool,
    on_blank: OnBlank,
) -> Iterator[tuple[str, int, Tensor]]:
    start = f"{path}." if path else ""
    before: tuple[_Entry, ...] | None = module.__dict__.get(_BEFORE)
    if before is not None and isinstance(module, Deployable):
        for entry in before:
            if entry.kind == kind and (recurse or "." not in entry.name):
                tensor = _tensor_of(module, entry)
                if tensor is None:
                    tensor = torch.zeros(entry.shape, dtype=entry.dtype)
                    tensor.__dict__[_HOLDER] = module, entry.name  # for functional_call
                    on_blank(module, entry.name, tensor)
                yield start + entry.name, entry.identity, tensor
        return
    for name, tensor in getattr(module, _KINDS[kind]).items():
        if tensor is not None:
            yield start + name, id(tensor), tensor
    for name, child in module._modules.items() if recurse else ():
        if child is not None:
            yield from _tensors(child, start + name, kind, recurse, on_blank)


def _tensor_of(layer: Deployable, entry: _Entry) -> Tensor | None:
    """Return the tensor that a layer has under a name; None where it has another form by now."""
    tensor = held(layer, entry.name)
    same = tensor is not None and tensor.shape == entry.shape and tensor.dtype == entry.dtype
    return tensor if same else None
