"""Loops in both directions in one network: those that go backwards, over sequences turned around.

A form has one order of time. So what a backward loop reads of a sequence is written as what a
forward one reads of the sequence that is turned around, and its steps are then in order::

    for t in range(T):
        forth, back = cell(x[t], forth), cell(x[T - 1 - t], back)      x.flip(0)[t]
        backs.append(back)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from synapse_onnx.compiler.loops.reading import SELECT, STACK, Reading
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.terms import Pool, Term, terms_in

__all__ = ["turned_around"]

#: how many steps at the ends of a sequence may read others than the rest, by delays
_ENDS = 3

#: the first and the last step that a term reads of any sequence
_Span = tuple[int, int]


def turned_around(reading: Reading, pool: Pool, steps: int) -> Reading:
    """Return a reading whose backward loops go over sequences that are turned around.

    Raises:
        NoLoopError: it has none.
    """
    return _Turned(reading, pool, steps).read()


class _Turned:
    def __init__(self, reading: Reading, pool: Pool, steps: int) -> None:
        self._reading, self._pool, self._steps = reading, pool, steps
        self._spans: dict[Term, _Span | None] = {}
        self._plain: dict[Term, Term] = {}
        self._turned: dict[Term, Term] = {}
        #: stacks of a backward loop -> whether their parts are in the order of the loop
        self._stacks: dict[Term, bool] = {}
        #: terms of backward loops alone
        self._own: set[Term] = set()

    def read(self) -> Reading:
        outputs = [each for each in self._reading.outputs if isinstance(each, Term)]
        for output in outputs:
            self._span(output)
        forth: set[Term] = set()
        for stack in [term for term in self._spans if self._is_stack(term)]:
            in_order = self._direction(stack)
            if in_order is not None:
                self._stacks[stack] = in_order
            cone = self._own if in_order is not None else forth
            for part in stack.args[0]:
                self._collect(part, cone)
        if not self._stacks:
            raise NoLoopError("no loop goes backwards")
        self._own -= forth
        self._reading.outputs = [
            self._as_plain(each) if isinstance(each, Term) else each
            for each in self._reading.outputs
        ]
        return self._reading

    # -- what goes backwards -----------------------------------------------------------------------

    def _is_step(self, term: Term) -> bool:
        if term.op is not SELECT:
            return False
        return bool(self._reading.shape(term.args[0])[term.args[1]] == self._steps)

    def _is_stack(self, term: Term) -> bool:
        return term.op is STACK and len(term.args[0]) == self._steps

    def _span(self, term: Term) -> _Span | None:
        """Return which steps a term reads; None of one that reads none, or is a sequence."""
        if term not in self._spans:
            spans = [self._span(each) for each in terms_in(term)]
            found = [span for span in spans if span is not None]
            span: _Span | None = None
            if self._is_step(term):
                span = (term.args[2], term.args[2])
            elif found and not self._is_stack(term):
                span = (min(a for a, _ in found), max(b for _, b in found))
            self._spans[term] = span
        return self._spans[term]

    def _direction(self, stack: Term) -> bool | None:
        """Return whether a stack is in the order of a backward loop; None of a forward one."""
        parts = [self._spans.get(part) for part in stack.args[0]]
        spans = [span for span in parts if span is not None]
        if len(spans) < self._steps:
            return None
        later = [first for first, _ in spans[_ENDS:]]
        if all(a > b for a, b in itertools.pairwise(later)):
            return True  # x[T - 1], then x[T - 2] and so on
        sooner = [first for first, _ in spans[:-_ENDS]]
        to_the_end = all(last == self._steps - 1 for _, last in spans)
        rising = all(a < b for a, b in itertools.pairwise(sooner))
        return False if to_the_end and rising else None

    def _collect(self, term: Any, cone: set[Term]) -> None:
        """Add what a step computes of steps to a set."""
        todo = [term]
        while todo:
            each = todo.pop()
            if each in cone or self._spans.get(each) is None:
                continue
            cone.add(each)
            todo += [] if self._is_step(each) else list(terms_in(each))

    # -- the terms of both ways --------------------------------------------------------------------

    def _as_plain(self, term: Term) -> Term:
        """Return what a term of all steps, or of a forward loop, is."""
        if term not in self._plain:
            if term in self._own:
                result = self._as_turned(term)
            elif term in self._stacks:
                parts = tuple(map(self._as_turned, term.args[0]))
                in_order = self._stacks[term]
                args = (parts if in_order else parts[::-1], *term.args[1:])
                result = self._made(term, STACK, args, {})
                result = result if in_order else self._flipped(result, term.args[1])
            else:
                result = self._with(term, self._as_plain)
            self._plain[term] = result
        return self._plain[term]

    def _as_turned(self, term: Term) -> Term:
        """Return what a term of a backward loop is in a forward one."""
        if term not in self._turned:
            if self._spans.get(term) is None:
                result = self._as_plain(term)
            elif self._is_step(term):
                source, axis, i = term.args
                flipped = self._flipped(self._as_plain(source), axis)
                result = self._made(term, SELECT, (flipped, axis, self._steps - 1 - i), {})
            else:
                result = self._with(term, self._as_turned)
            self._turned[term] = result
        return self._turned[term]

    def _with(self, term: Term, change: Callable[[Term], Term]) -> Term:
        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(changed, value))
            return change(value) if isinstance(value, Term) else value

        if term.is_leaf:
            return term
        kwargs = {name: changed(value) for name, value in term.kwargs.items()}
        return self._made(term, term.op, changed(term.args), kwargs)

    def _flipped(self, source: Term, axis: int) -> Term:
        flip = torch.ops.aten.flip.default
        if source.op is flip and source.args[1] == (axis,):
            return source.args[0]  # type: ignore[no-any-return]
        return self._made(source, flip, (source, (axis,)), {})

    def _made(self, like: Term, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term:
        """Make a term of the kind of another one, and of its line."""
        term, reading = self._pool.make(op, args, kwargs), self._reading
        parts: tuple[dict[Term, Any], ...] = (reading.kinds, reading.places, reading.paths)
        for known in parts:
            if like in known:
                known.setdefault(term, known[like])
        return term
