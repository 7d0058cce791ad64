"""Which values share memory, so that a change of one is written as new values of all of them.

torch writes a program anew for that, which takes three times as long as its trace. Here it is done
while a network runs on numbers, which tells what shares memory::

    row = out[t]                  row = select(out, 0, t)
    row += mem             ->     row_1 = add(row, mem)
                                  out_1 = select_scatter(out, row_1, 0, t)
    y = out * 2                   y = mul(out_1, 2)

A view that is read after a change of its memory is taken anew from what has become of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["Memories", "SharedError", "id_of_memory", "memory_of", "returning"]

aten = torch.ops.aten

#: operators whose result is their first argument
_ITSELF = {
    aten.detach.default, aten.alias.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device,
    aten.to.other, aten.contiguous.default, aten.lift_fresh.default,
}  # fmt: skip

#: operators whose result has the values of their first argument, in the same order
_RESHAPED = {
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
    aten._unsafe_view.default, aten.view_as.default, aten.reshape_as.default,
}  # fmt: skip

#: operators that take a part of their first argument -> those that put a part in its place
_PARTS = {
    aten.select.int: aten.select_scatter.default,
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}

#: operators that cut their first argument along an axis
_CUTS = {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default}

#: writes an operator: its arguments, and a tensor like its result -> its node
Write = Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], fx.Node]


class SharedError(Exception):
    """A change of memory cannot be written as new values."""


@dataclass
class _Memory:
    """Memory that values share.

    Attributes:
        storage: itself, so that no other memory gets its number.
        bases: the values that own it: those of operators, inputs and parameters.
        version: how often it was changed.
    """

    storage: Any
    bases: list[_View] = field(default_factory=list)
    version: int = 0


@dataclass
class _View:
    """A value, and how it is taken from another one with the same memory.

    Attributes:
        memory: its memory; None if that is unknown.
        node: what has computed it, when the memory was of this ``version``.
        like: a tensor of its shape and type.
        place: its sizes, its strides and its offset in the memory.
        source: the value that it is a view of; None if it owns its memory.
        call: the operator that takes it from its source, with arguments after the first.
        part: which result of the operator it is, and where this begins along an axis.
    """

    memory: _Memory | None
    node: fx.Node
    like: Any
    place: Any
    source: _View | None = None
    call: tuple[Any, tuple[Any, ...], Mapping[str, Any]] = (None, (), {})
    part: tuple[int, int] | None = None
    version: int = 0


class Memories:
    """The memories of all values of a network that runs.

    Args:
        write: adds an operator to the program.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._memories: dict[int, _Memory] = {}
        self._views: dict[int, tuple[weakref.ref[Tensor], _View]] = {}

    def node_of(self, value: Tensor) -> fx.Node | None:
        """Return what computes a value as it is now; None if that is unknown.

        Raises:
            SharedError: it has the memory of another value, and how is unknown: ``weight.data``.
        """
        view = self._view_of(value)
        return None if view is None else self._current(view)

    def own(self, value: Tensor, node: fx.Node, like: Any) -> None:
        """Note a value that has memory of its own."""
        number = id_of_memory(value)
        memory = None
        if number is not None:
            memory = self._memories.setdefault(number, _Memory(memory_of(value)))
        view = _View(memory, node, like, _place(value))
        if memory is not None:
            memory.bases.append(view)
            view.version = memory.version
        self._know(value, view)

    def result(
        self, value: Tensor, node: fx.Node, like: Any, call: Any, part: tuple[int, Any] | None
    ) -> None:
        """Note a result of an operator.

        Args:
            value: the result.
            node: its node.
            like: a tensor of its shape and type.
            call: the operator, its arguments, and the nodes of these and of those with names.
            part: which of several results it is, and tensors like all of them.

        Raises:
            SharedError: it shares memory in a way that is not known.
        """
        op, args, (nodes, kwargs) = call
        number = id_of_memory(value)
        if number is None or number not in self._memories:
            self.own(value, node, like)
            return
        view = self._view_of(args[0]) if isinstance(args[0], Tensor) else None
        if view is None or view.memory is not self._memories[number]:
            raise SharedError  # of another argument, or of one in a list
        place: tuple[int, int] | None = None
        if part is not None:
            if op != aten.unbind.int and op not in _CUTS:
                raise SharedError
            axis = _axis(op, nodes[1:], kwargs)
            start = 0 if op == aten.unbind.int else sum(x.shape[axis] for x in part[1][: part[0]])
            place = (part[0], start)
        call = (op, tuple(nodes[1:]), kwargs)
        memory = view.memory
        taken = _View(memory, node, like, _place(value), view, call, place, memory.version)
        self._know(value, taken)

    def change(self, value: Tensor, node: fx.Node) -> None:
        """Note that the memory of a value was changed, so that the value is that of a node.

        Raises:
            SharedError: what became of other values cannot be written.
        """
        view = self._view_of(value)
        if view is None or view.memory is None or len(view.memory.bases) != 1:
            raise SharedError
        base, updated = view, node
        while base.source is not None:
            updated = self._put_back(base, updated, base.source)
            base = base.source
        memory = view.memory
        memory.version += 1
        for each, now in ((base, updated), (view, node)):
            each.node, each.version = now, memory.version

    def _view_of(self, value: Tensor) -> _View | None:
        known, view = self._views.get(id(value), (None, None))
        if known is not None and known() is value:
            return view
        number = id_of_memory(value)
        if number is None or number not in self._memories:
            return None
        place = _place(value)
        for base in self._memories[number].bases:  # weight.data
            if base.place == place:
                self._know(value, base)
                return base
        raise SharedError

    def _know(self, value: Tensor, view: _View) -> None:
        self._views[id(value)] = (weakref.ref(value), view)

    def _current(self, view: _View) -> fx.Node:
        if view.memory is None or view.version == view.memory.version:
            return view.node
        assert view.source is not None  # what owns the memory is as new as it
        op, args, kwargs = view.call
        source = self._current(view.source)
        if view.part is None:
            view.node = self._write(op, (source, *args), kwargs, view.like)
        else:  # a cut is a slice, a row a selection: one result is needed
            view.node = self._part_of(view, source)
        view.version = view.memory.version
        return view.node

    def _part_of(self, view: _View, source: fx.Node) -> fx.Node:
        op, args, kwargs = view.call
        assert view.part is not None
        index, start = view.part
        axis = _axis(op, args, kwargs)
        if op == aten.unbind.int:
            return self._write(aten.select.int, (source, axis, index), {}, view.like)
        stop = start + view.like.shape[axis]
        return self._write(aten.slice.Tensor, (source, axis, start, stop), {}, view.like)

    def _put_back(self, view: _View, updated: fx.Node, source: _View) -> fx.Node:
        """Return what a value is after a view of it became something else."""
        op, args, kwargs = view.call
        before, like = self._current(source), source.like
        shape = list(like.shape)
        if op in _PARTS:
            return self._write(_PARTS[op], (before, updated, *args), kwargs, like)
        if op == aten.unbind.int and view.part is not None:
            axis, index = _axis(op, args, kwargs), view.part[0]
            return self._write(_PARTS[aten.select.int], (before, updated, axis, index), {}, like)
        if op in _CUTS and view.part is not None:
            axis, start = _axis(op, args, kwargs), view.part[1]
            where = (axis, start, start + view.like.shape[axis])
            return self._write(_PARTS[aten.slice.Tensor], (before, updated, *where), {}, like)
        if op == aten.narrow.default and isinstance(args[1], int):
            axis, start, length = args
            start += shape[axis] if start < 0 else 0
            where = (axis, start, start + length)
            return self._write(_PARTS[aten.slice.Tensor], (before, updated, *where), {}, like)
        if op == aten.permute.default:
            axes = [axis % len(shape) for axis in args[0]]
            inverse = [axes.index(axis) for axis in range(len(axes))]
            return self._write(op, (updated, inverse), {}, like)
        if op in (aten.transpose.int, aten.t.default):
            return self._write(op, (updated, *args), kwargs, like)
        if op in _RESHAPED:
            return self._write(aten.reshape.default, (updated, shape), {}, like)
        if op in _ITSELF and (view.place == source.place and view.like.dtype == like.dtype):
            return updated
        raise SharedError


def returning(op: Any) -> Any:
    """Return the operator that returns what another one makes of its first argument, or None."""
    schema = op._schema
    changed = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    if changed != [True] + [False] * (len(changed) - 1) or len(schema.returns) != 1:
        return None
    namespace, _, name = schema.name.partition("::")
    if namespace != "aten" or not name.endswith("_"):
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, op._overloadname, None)


def id_of_memory(value: Tensor) -> int | None:
    """Return what all views of a tensor have in common; None if that is unknown."""
    memory = memory_of(value)
    return None if memory is None else memory._cdata


def memory_of(value: Tensor) -> Any:
    """Return the memory of a tensor; None if it has none of the usual kind."""
    if value.layout is not torch.strided:
        return None
    with torch._C.DisableTorchFunction():
        return value.untyped_storage()


def _place(value: Tensor) -> Any:
    if value.layout is not torch.strided:
        return None
    with torch._C.DisableTorchFunction():
        return tuple(value.shape), value.stride(), value.storage_offset()


def _axis(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the axis along which an operator cuts its argument."""
    place = 0 if op == aten.unbind.int else 1
    axis: int = args[place] if len(args) > place else kwargs.get("dim", 0)
    return axis
