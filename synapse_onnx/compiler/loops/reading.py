"""From a traced program to terms, in which equal computations are written in one way.

What changes no value is left out: copies, casts to the same type, dropout in evaluation, checks.
What has several spellings gets one::

    x.unbind(0)[3], x.split(1)[3].squeeze(0), x[3:4].squeeze(0)     ->   select(x, 0, 3)
    cat([a.unsqueeze(0), b.unsqueeze(0)])                            ->   stack([a, b])
    y = zeros(2, 3); y[0] = a; y[1] = b                              ->   stack([a, b])
    zeros_like(x), x.new_zeros(...), torch.zeros(...)                ->   full(shape, 0.0)

The last is more than taste: a state that begins as ``zeros_like(x[0])`` does not depend on step 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.program import Leaf, Program, line_of
from synapse_onnx.compiler.loops.terms import CONSTANT, INPUT, PARAMETER, Pool, Term
from synapse_onnx.compiler.loops.windows import windows

__all__ = [
    "CAT",
    "COMMUTATIVE",
    "FULL",
    "SELECT",
    "SELECT_SCATTER",
    "SLICE",
    "STACK",
    "Reading",
    "read",
]  # fmt: skip

aten = torch.ops.aten

SELECT = aten.select.int
STACK = aten.stack.default
CAT = aten.cat.default
FULL = aten.full.default
SELECT_SCATTER = aten.select_scatter.default
SLICE = aten.slice.Tensor

#: operators whose arguments may be swapped
COMMUTATIVE = {aten.add.Tensor, aten.mul.Tensor}

#: operators that return their first argument
_COPIES = {
    aten.detach.default, aten.clone.default, aten.alias.default, aten.contiguous.default,
    aten.lift_fresh_copy.default, aten.lift_fresh.default, aten.detach_.default,
}  # fmt: skip

#: operators that may join axes
_FLATTENING = {aten.reshape.default, aten.flatten.using_ints}

#: operators that make a tensor of one value -> that value, of their arguments
_FILLED: Mapping[Any, Callable[[tuple[Any, ...]], Any]] = {
    aten.zeros_like.default: lambda _: 0.0,
    aten.ones_like.default: lambda _: 1.0,
    aten.full_like.default: lambda args: args[1],
    aten.new_zeros.default: lambda _: 0.0,
    aten.new_ones.default: lambda _: 1.0,
    aten.new_full.default: lambda args: args[2],
    aten.zeros.default: lambda _: 0.0,
    aten.ones.default: lambda _: 1.0,
    aten.full.default: lambda args: args[1],
    # what is not set is never read, or the outputs would be random
    aten.empty_like.default: lambda _: 0.0,
    aten.new_empty.default: lambda _: 0.0,
    aten.empty.memory_format: lambda _: 0.0,
}  # fmt: skip

#: operators that draw random numbers, all of them finite
_RANDOM = {
    aten.rand.default, aten.rand_like.default, aten.randn.default, aten.randn_like.default,
}  # fmt: skip

#: keyword arguments that change no value on the CPU
_IGNORED = ("device", "pin_memory", "layout", "memory_format")


@dataclass
class Reading:
    """A traced program as terms.

    Attributes:
        outputs: the terms of its outputs, without those that are None.
        kinds: (shape, type) of every term that is a tensor.
        places: the line of the user's code that computes a term.
        paths: the module that computes a term.
    """

    outputs: list[Any] = field(default_factory=list)
    kinds: dict[Term, tuple[tuple[int, ...], torch.dtype]] = field(default_factory=dict)
    places: dict[Term, str] = field(default_factory=dict)
    paths: dict[Term, str] = field(default_factory=dict)

    def shape(self, term: Term) -> tuple[int, ...]:
        """Return the shape of a term."""
        return self.kinds[term][0]


def read(program: Program, pool: Pool, steps: int, order: Order) -> Reading:
    """Read a program of so many steps without in-place operators."""
    return _Reader(program, pool, steps, order).read()


class _Reader:
    def __init__(self, program: Program, pool: Pool, steps: int, order: Order) -> None:
        self._steps = steps
        self._order = order
        self._program = program
        self._pool = pool
        self._reading = Reading()
        self._values: dict[fx.Node, Any] = {}
        #: select_scatter chains: the last term -> (axis, index -> what was written there)
        self._written: dict[Term, tuple[int, dict[int, Any]]] = {}
        #: a product in two axes -> the stack of its steps
        self._flattened: dict[Term, Term] = {}
        self._rules: Mapping[Any, Callable[..., Any]] = {
            SELECT: self._select,
            aten.unbind.int: self._unbind,
            aten.split.Tensor: self._split,
            aten.split_with_sizes.default: self._split,
            aten.chunk.default: self._split,
            SLICE: self._slice,
            aten.squeeze.dim: self._squeeze,
            aten.squeeze.dims: self._squeeze,
            aten.unsqueeze.default: self._unsqueeze,
            aten.cat.default: self._cat,
            aten.stack.default: self._stack,
            aten.view.default: self._reshape,
            aten.reshape.default: self._reshape,
            aten._unsafe_view.default: self._reshape,
            aten.view_as.default: self._reshape_as,
            aten.reshape_as.default: self._reshape_as,
            aten.expand.default: self._expand,
            aten.copy.default: self._copy,
            aten._to_copy.default: self._cast,
            aten.to.dtype: self._cast,
            aten.to.device: self._cast,
            aten.to.dtype_layout: self._cast,
            aten.to.other: self._cast,
            SELECT_SCATTER: self._select_scatter,
            aten.dropout.default: self._dropout,
            aten.item.default: self._item,
            aten._local_scalar_dense.default: self._item,
            aten.mul.Tensor: self._mul,
            aten.addmm.default: self._addmm,
            aten.mm.default: self._mm,
            aten.matmul.default: self._mm,
            operator.getitem: self._getitem,
        }

    def read(self) -> Reading:
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                leaf = self._leaf(self._program.leaves[node])
                self._values[node] = self._seen(leaf, node.meta.get("val"))
            elif node.op != "output":
                self._call(node)
        results = self._value(self._program.results)
        self._reading.outputs = [result for result in results if result is not None]
        return self._reading

    def _leaf(self, leaf: Leaf) -> Term:
        if leaf.kind == INPUT:
            return self._pool.make(INPUT, (leaf.name,))
        if leaf.kind == PARAMETER:
            term = self._pool.make(PARAMETER, (leaf.name,))
        else:
            assert leaf.value is not None
            tensor = leaf.value
            content = tensor.detach().contiguous().numpy().tobytes()
            term = self._pool.make(CONSTANT, (str(tensor.dtype), tuple(tensor.shape), content))
        self._pool.values.setdefault(term, leaf.value)
        return term

    def _value(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self._values[value]
        if isinstance(value, list | tuple):
            return tuple(map(self._value, value))
        return value

    def _seen(self, term: Any, value: Any) -> Any:
        if isinstance(value, Tensor) and isinstance(term, Term):
            shape = tuple(int(size) for size in value.shape)
            self._reading.kinds[term] = (shape, value.dtype)
        return term

    def _call(self, node: fx.Node) -> None:
        op: Any = node.target
        if "_assert" in str(op) or "sym_constrain" in str(op):
            return
        args = self._value(node.args)
        kwargs = {k: self._value(v) for k, v in node.kwargs.items() if k not in _IGNORED}
        value = node.meta.get("val")
        result = None
        if op in _COPIES:
            result = args[0]
        elif op in _FILLED and isinstance(value, Tensor):
            shape = tuple(int(size) for size in value.shape)
            fill = _number_of(_FILLED[op](args), value.dtype)
            result = self._pool.make(FULL, (shape, fill), {"dtype": value.dtype})
        elif op in self._rules:
            result = self._rules[op](node, args, kwargs)
        if result is None:
            result = self._pool.make(op, args, kwargs)
        self._values[node] = self._seen(result, value)
        if isinstance(result, Term) and result not in self._reading.places:
            self._reading.places[result] = line_of(node)
            self._reading.paths[result] = _path(node)

    # -- rules: each returns the term, or None to keep the operator ------------------------------

    def _shape(self, term: Term) -> tuple[int, ...]:
        return self._reading.shape(term)

    def _derived(self, op: Any, args: tuple[Any, ...], like: Term, shape: list[int]) -> Term:
        term = self._pool.make(op, args)
        self._reading.kinds[term] = (tuple(shape), self._reading.kinds[like][1])
        return term

    def _step_of(self, source: Term, axis: int, index: int) -> Any:
        """Return what a sequence has at an index: what was put there, or a select."""
        size = self._shape(source)[axis]
        while source.op is SELECT_SCATTER and source.args[2] % len(self._shape(source)) == axis:
            target, part, _, written = source.args
            if (written - index) % size == 0:
                return part
            source = target
        if source.op is SLICE and source.args[1] == axis and self._order.takes_all:
            whole, _, start, _, stride = (*source.args, 1)[:5]
            if self._shape(whole)[axis] == self._steps:  # x[1:][t] is x[t + 1]
                return self._step_of(whole, axis, start + stride * (index % size))
        if source.op is STACK and source.args[1] == axis:
            parts = source.args[0]
            index %= len(parts)
            turned = self._order.stacks_backwards and len(parts) == self._steps
            return parts[len(parts) - 1 - index if turned else index]
        shape = list(self._shape(source))
        del shape[axis]
        index %= size
        if self._order.backwards and size == self._steps:
            index = size - 1 - index
        if not self._order.takes_all and size == self._steps:
            taken = self._order.taken(index, size)
            if taken is not None:
                source, index = self._part(source, axis), taken
        return self._derived(SELECT, (source, axis, index), source, shape)

    def _part(self, source: Term, axis: int) -> Term:
        """Return the steps of a sequence that the loop takes."""
        shape = list(self._shape(source))
        shape[axis] = self._order.count(shape[axis])
        return self._derived(SLICE, (source, axis, *self._order.part), source, shape)

    def _unsqueezed(self, source: Term, axis: int) -> Term:
        shape = list(self._shape(source))
        shape.insert(axis, 1)
        return self._derived(aten.unsqueeze.default, (source, axis), source, shape)

    def _select(self, _: fx.Node, args: Any, __: Any) -> Any:
        source, axis, index = args
        return self._step_of(source, axis % len(self._shape(source)), index)

    def _unbind(self, _: fx.Node, args: Any, __: Any) -> Any:
        source, axis = args[0], (args[1] if len(args) > 1 else 0) % len(self._shape(args[0]))
        return tuple(self._step_of(source, axis, i) for i in range(self._shape(source)[axis]))

    def _split(self, node: fx.Node, args: Any, _: Any) -> Any:
        source = args[0]
        axis = (args[2] if len(args) > 2 else 0) % len(self._shape(source))
        parts = node.meta["val"]
        if any(part.shape[axis] != 1 for part in parts):
            return None
        return tuple(
            self._unsqueezed(self._step_of(source, axis, i), axis) for i in range(len(parts))
        )

    def _slice(self, _: fx.Node, args: Any, __: Any) -> Any:
        source: Term = args[0]
        given: list[Any] = list(args[1:])
        axis, start, end, step = given + [0, None, None, 1][len(given) :]
        axis = int(axis or 0) % len(self._shape(source))
        size = self._shape(source)[axis]
        start, end, step = slice(start, end, step).indices(size)
        if (start, step) == (0, 1) and end >= size:
            return source
        if size == self._steps and self._order.is_part(start, end, step, size):
            return self._part(source, axis)
        if end - start == 1:
            return self._unsqueezed(self._step_of(source, axis, start), axis)
        along, written = self._written.get(source, (axis, {}))
        indices = range(start, end, step)
        if along == axis and len(indices) > 1 and all(i in written for i in indices):
            return self._stacked(tuple(written[i] for i in indices), axis)
        return None

    def _squeeze(self, _: fx.Node, args: Any, __: Any) -> Any:
        source, axis = args
        if isinstance(axis, tuple):
            if len(axis) != 1:
                return None
            axis = axis[0]
        rank = len(self._shape(source))
        axis %= rank
        if source.op is aten.unsqueeze.default and source.args[1] == axis:
            return source.args[0]
        shape = list(self._shape(source))
        if shape[axis] == 1:
            del shape[axis]
        return self._derived(aten.squeeze.dim, (source, axis), source, shape)

    def _unsqueeze(self, _: fx.Node, args: Any, __: Any) -> Any:
        return self._unsqueezed(args[0], args[1] % (len(self._shape(args[0])) + 1))

    def _cat(self, node: fx.Node, args: Any, _: Any) -> Any:
        axis = (args[1] if len(args) > 1 else 0) % len(node.meta["val"].shape)
        parts = args[0]
        if all(p.op is aten.unsqueeze.default and p.args[1] == axis for p in parts):
            return self._stacked(tuple(part.args[0] for part in parts), axis)
        return self._pool.make(CAT, (self._ordered(parts), axis))

    def _stack(self, node: fx.Node, args: Any, _: Any) -> Any:
        axis = (args[1] if len(args) > 1 else 0) % len(node.meta["val"].shape)
        return self._stacked(args[0], axis)

    def _stacked(self, parts: tuple[Any, ...], axis: int) -> Term:
        return self._pool.make(STACK, (self._ordered(parts), axis))

    def _ordered(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the parts of a stack in the order of the loop's steps."""
        turned = self._order.stacks_backwards and len(parts) == self._steps
        return parts[::-1] if turned else parts

    def _reshape(self, node: fx.Node, args: Any, _: Any) -> Any:
        shape = tuple(node.meta["val"].shape)
        if self._shape(args[0]) == shape:
            return args[0]
        stack = self._flattened.get(args[0])
        if stack is not None and self._shape(stack) == shape:
            return stack
        return self._pool.make(aten.reshape.default, args)

    def _reshape_as(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        return self._reshape(node, (args[0], tuple(node.meta["val"].shape)), kwargs)

    def _expand(self, node: fx.Node, args: Any, _: Any) -> Any:
        return args[0] if self._shape(args[0]) == tuple(node.meta["val"].shape) else None

    def _copy(self, _: fx.Node, args: Any, __: Any) -> Any:
        kinds = self._reading.kinds
        return args[1] if kinds[args[0]] == kinds[args[1]] else None

    def _cast(self, node: fx.Node, args: Any, _: Any) -> Any:
        dtype = node.meta["val"].dtype
        if dtype == self._reading.kinds[args[0]][1]:
            return args[0]
        return self._pool.make(aten._to_copy.default, (args[0],), {"dtype": dtype})

    def _select_scatter(self, node: fx.Node, args: Any, _: Any) -> Any:
        target, part, axis, index = args
        shape = tuple(node.meta["val"].shape)
        axis %= len(shape)
        along, before = self._written.get(target, (axis, {}))
        if along != axis:
            return None
        written = {**before, index % shape[axis]: part}
        if len(written) == shape[axis]:
            return self._stacked(tuple(written[i] for i in range(len(written))), axis)
        term = self._pool.make(SELECT_SCATTER, args)
        self._written[term] = (axis, written)
        return term

    def _dropout(self, _: fx.Node, args: Any, __: Any) -> Any:
        return None if args[2] else args[0]

    def _item(self, _: fx.Node, args: Any, __: Any) -> Any:
        """Return the number that is the same in every call; a term of another one."""
        number = self._known(args[0])
        return number.item() if isinstance(number, Tensor) else number

    def _mul(self, node: fx.Node, args: Any, _: Any) -> Any:
        """Leave noise of strength 0 out, which Rockpool adds to all its neurons."""
        for one, other in (args, args[::-1]):
            if isinstance(one, Term) and one.op in _RANDOM and self._is_zero(other):
                value = node.meta["val"]
                shape = tuple(int(size) for size in value.shape)
                return self._pool.make(FULL, (shape, 0.0), {"dtype": value.dtype})
        return None

    def _addmm(self, _: fx.Node, args: Any, kwargs: Any) -> Any:
        bias, matrix, sequence = args
        if kwargs or self._shape(bias) not in ((), (1,)):
            return None
        return self._windowed(matrix, sequence, bias)

    def _mm(self, _: fx.Node, args: Any, __: Any) -> Any:
        return self._windowed(args[0], args[1], None)

    def _windowed(self, matrix: Term, sequence: Term, bias: Term | None) -> Any:
        """Write a product with windows of weights as sums over earlier steps; else None."""
        steps, flat = self._steps, sequence
        if matrix.op is not STACK or self._shape(matrix) != (steps, steps) or matrix.args[1]:
            return None
        if len(self._shape(flat)) != 2:  # a product for each sample
            return None
        if flat.op in _FLATTENING and self._shape(flat.args[0])[0] == steps:
            sequence = flat.args[0]  # x.flatten(1), whose rows have a batch as well
        rows = windows(matrix.args[0], lambda vector, i: self._step_of(vector, 0, i))
        if rows is None or self._order.backwards:
            return None
        like = self._step_of(sequence, 0, 0)
        shape = list(self._shape(like))
        zero = self._pool.make(FULL, (tuple(shape), 0.0), {"dtype": self._reading.kinds[like][1]})
        self._reading.kinds[zero] = self._reading.kinds[like]
        sums = []
        for t, row in enumerate(rows):
            total: Term | None = None
            for ago, weight in rows[-1].items():  # before the first step there are zeros
                x = self._step_of(sequence, 0, t - ago) if ago <= t else zero
                part = self._derived(aten.mul.Tensor, (x, row.get(ago, weight)), like, shape)
                sums_up = total is not None
                args = (total, part)
                total = self._derived(aten.add.Tensor, args, like, shape) if sums_up else part
            if bias is not None:
                total = self._derived(aten.add.Tensor, (total, bias), like, shape)
            sums.append(total)
        stack = self._derived(STACK, (tuple(sums), 0), like, [steps, *shape])
        if sequence is flat:
            return stack
        sizes = list(self._shape(flat))
        result = self._derived(aten.reshape.default, (stack, tuple(sizes)), like, sizes)
        self._flattened[result] = stack
        return result

    def _is_zero(self, value: Any) -> bool:
        """Whether a value is a constant 0: a literal, or one number computed of constants."""
        known = self._known(value)
        return known is not None and not isinstance(known, bool) and bool(known == 0)

    def _known(self, value: Any) -> Any:
        """Return the number that a value has in every call; None if it is none."""
        if not isinstance(value, Term):
            return value if isinstance(value, int | float) else None
        if self._reading.kinds[value][0] not in ((), (1,)) or value.op == INPUT:
            return None
        if value.is_leaf:
            return self._pool.values.get(value)
        if value.op is FULL:
            return value.args[1]
        args = [self._known(each) for each in value.args]
        if value.kwargs or any(each is None for each in args):
            return None
        return value.op(*args)

    def _getitem(self, _: fx.Node, args: Any, __: Any) -> Any:
        return args[0][args[1]] if isinstance(args[0], tuple) else None


def _number_of(value: Any, dtype: torch.dtype) -> Any:
    """Return a literal in the kind of a type: zeros of integers are 0, of floats 0.0."""
    if isinstance(value, Term):
        return value
    if dtype == torch.bool:
        return bool(value)
    return float(value) if dtype.is_floating_point else int(value)


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(stack.values())), "")
