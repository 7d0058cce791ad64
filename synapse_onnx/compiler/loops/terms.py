"""Terms: the values of traced programs, each made once for all traces.

Two values that are computed by the same operators from the same inputs are one object, in whichever
trace they occur. So "the same computation" is ``is``, and step 2 of a trace of 4 steps is step 2 of
a trace of 6 steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["CONSTANT", "INPUT", "PARAMETER", "Pool", "Size", "Term", "terms_in"]

#: operators of leaves: an input by its index, a parameter by its name, a constant by its values
INPUT, PARAMETER, CONSTANT = "input", "parameter", "constant"


class Size(NamedTuple):
    """Size of the inputs of a trace."""

    steps: int
    batch: int


class Term:
    """One value: an operator and its arguments, or a leaf.

    Attributes:
        op: the operator, or the kind of the leaf.
        args: its arguments: terms, literals, and tuples of them.
        kwargs: its keyword arguments, by name.
        number: the order in which terms were made.
    """

    __slots__ = ("args", "kwargs", "number", "op")

    def __init__(
        self, op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: int
    ) -> None:
        self.op = op
        self.args = args
        self.kwargs = kwargs
        self.number = number

    def __repr__(self) -> str:
        return f"%{self.number}:{self.op}"

    @property
    def is_leaf(self) -> bool:
        """Whether it is an input, a parameter or a constant."""
        return isinstance(self.op, str)


class Pool:
    """Makes terms, and keeps the values of leaves."""

    def __init__(self) -> None:
        self._terms: dict[Any, Term] = {}
        #: values of parameters and constants
        self.values: dict[Term, Any] = {}

    def make(
        self, op: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Term:
        """Return the term of an operator and its arguments."""
        kwargs = dict(sorted((kwargs or {}).items()))
        key = (op, _key(args), tuple((name, _key(value)) for name, value in kwargs.items()))
        term = self._terms.get(key)
        if term is None:
            term = self._terms[key] = Term(op, args, kwargs, len(self._terms))
        return term


def _key(value: Any) -> Any:
    if isinstance(value, Term):
        return ("term", value.number)
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    return (type(value).__name__, repr(value))  # 0, 0.0, -0.0 and False are four literals


def terms_in(term: Term) -> Iterator[Term]:
    """Yield the terms among a term's arguments."""
    for value in (*term.args, *term.kwargs.values()):
        yield from _in(value)


def _in(value: Any) -> Iterator[Term]:
    if isinstance(value, Term):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _in(each)
