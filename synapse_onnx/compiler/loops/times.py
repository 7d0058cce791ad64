"""When a value of a trace is computed: the last step of any sequence that it depends on."""

from __future__ import annotations

from synapse_onnx.compiler.loops.reading import CAT, FULL, SELECT, STACK, Reading
from synapse_onnx.compiler.loops.terms import Size, Term, terms_in

__all__ = ["Cones", "Times"]


class Times:
    """The time of every term of one trace."""

    def __init__(self, reading: Reading, size: Size) -> None:
        self._reading = reading
        self._size = size
        self._times: dict[Term, int | None] = {}

    def of(self, term: Term) -> int | None:
        """Return the last step that a term reads of any sequence; None of one that reads none.

        What is made of all steps, such as their stack, is a sequence again, and has no time.
        """
        todo = [term]
        while todo:
            last = todo[-1]
            if last not in self._times:
                missing = [inner for inner in self._inner(last) if inner not in self._times]
                if missing:
                    todo += missing
                    continue
                self._times[last] = self._computed(last)
            todo.pop()
        return self._times[term]

    def _inner(self, term: Term) -> list[Term]:
        """Return the terms whose times decide on a term's."""
        if term.is_leaf or term.op is FULL or self.is_step(term):
            return []
        return list(terms_in(term))

    def _computed(self, term: Term) -> int | None:
        if self.is_step(term):
            return int(term.args[2])
        found = {time for each in self._inner(term) if (time := self._times[each]) is not None}
        if term.op in (STACK, CAT) and len(found) >= self._size.steps - 1:
            return None
        return max(found, default=None)

    def is_step(self, term: Term) -> bool:
        """Whether a term is one step of a sequence."""
        if term.op is not SELECT:
            return False
        source, axis, _ = term.args
        size: int = self._reading.shape(source)[axis]
        return size == self._size.steps


class Cones:
    """What terms are computed from."""

    def __init__(self) -> None:
        self._cones: dict[Term, frozenset[int]] = {}

    def of(self, term: Term) -> frozenset[int]:
        """Return the numbers of all terms that a term is computed from."""
        if term not in self._cones:
            seen: set[int] = set()
            todo = [term]
            while todo:
                for inner in terms_in(todo.pop()):
                    if inner.number not in seen:
                        seen.add(inner.number)
                        todo.append(inner)
            self._cones[term] = frozenset(seen)
        return self._cones[term]
