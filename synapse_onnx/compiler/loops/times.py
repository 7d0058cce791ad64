"""When a value of a trace is computed: the last step of any sequence that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from synapse_onnx.compiler.loops.reading import CAT, COMMUTATIVE, FULL, SELECT, STACK, Reading
from synapse_onnx.compiler.loops.terms import Size, Term, terms_in

__all__ = ["Cones", "FirstSeen", "Times", "Undriven", "first_seen", "is_swapped"]


class Times:
    """The time of every term of one trace.

    Where steps read sequences some steps ahead, that of a term is so much earlier than what it
    reads. The last steps read the last one again, and have one time::

        now = x[t] + x[min(t + 1, T - 1)]           steps 0, 1, ..., T - 2, T - 1
                                                    times 0, 1, ..., T - 2, T - 2
    """

    def __init__(self, reading: Reading, size: Size, ahead: int = 0) -> None:
        self._reading = reading
        self._size = size
        self.ahead = ahead
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

    @property
    def latest(self) -> int:
        """The last step of which the time is its own."""
        return self._size.steps - 1 - self.ahead

    def is_at(self, term: Term, t: int) -> bool:
        """Whether a term is computed at a step."""
        return self.of(term) == min(t, self.latest)

    def is_read(self, term: Term, t: int, ahead: int) -> bool:
        """Whether a term is the step of a sequence that step t reads so many steps ahead."""
        index = min(t + ahead, self._size.steps - 1)
        return self.is_step(term) and bool(term.args[2] == index)

    def _inner(self, term: Term) -> list[Term]:
        """Return the terms whose times decide on a term's."""
        if term.is_leaf or term.op is FULL or self.is_step(term):
            return []
        return list(terms_in(term))

    def _computed(self, term: Term) -> int | None:
        if self.is_step(term):
            return int(term.args[2]) - self.ahead
        found = {time for each in self._inner(term) if (time := self._times[each]) is not None}
        if term.op in (STACK, CAT) and len(found) >= self._size.steps - 1:
            return None
        return max(found, default=None)

    def is_step(self, term: Term) -> bool:
        """Whether a term is one step of a sequence."""
        if term.op is not SELECT:
            return False
        source, axis, _ = term.args
        if source not in self._reading.kinds:
            return False  # of a longer trace, whose value stands for one that this has not
        size: int = self._reading.shape(source)[axis]
        return size == self._size.steps


class FirstSeen(Times):
    """The time of every term of one trace, where no step reads a sequence.

    A static image is read at every step, and no index tells which one it is. What step 3 computes
    is computed in a trace of 4 steps, and in none that is shorter.
    """

    def __init__(self, reading: Reading, size: Size, first: Mapping[Term, int]) -> None:
        super().__init__(reading, size)
        self._first = first

    def of(self, term: Term) -> int | None:
        """Return the step before which no term of this kind is computed; None of a stack."""
        if term.op in (STACK, CAT) and len(term.args[0]) >= self._size.steps - 1:
            return None
        return None if term.is_leaf or term.op is FULL else self._first.get(term)

    def is_step(self, term: Term) -> bool:
        """Whether a term is one step of a sequence: none is."""
        return False


class Undriven(Times):
    """The time of every term of one trace in which some read no sequence, though there is one.

    A threshold that decays by itself is computed at step 3 in a trace of 4 steps, and in none that
    is shorter.
    """

    def __init__(self, reading: Reading, size: Size, first: Mapping[Term, int]) -> None:
        super().__init__(reading, size)
        self._seen = FirstSeen(reading, size, first)

    def of(self, term: Term) -> int | None:
        """Return the last step that a term reads, or before which none of its kind is computed."""
        time = super().of(term)
        return self._seen.of(term) if time is None else time


def first_seen(readings: Iterable[Reading]) -> dict[Term, int]:
    """Return the step at which each term is computed, by traces of 1, 2, 3 ... steps."""
    first: dict[Term, int] = {}
    for step, reading in enumerate(readings):
        todo = [term for term in reading.outputs if isinstance(term, Term)]
        while todo:
            term = todo.pop()
            if term not in first:
                first[term] = step
                todo += terms_in(term)
    return first


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


def is_swapped(
    times: Mapping[Size, Times],
    key: tuple[Size, int],
    member: Term,
    last: tuple[Size, int],
    latest: Term,
) -> bool:
    """Whether a state that begins as a number has swapped the arguments of a step.

    ``0.9 * mem + x`` is ``add(x, 0.0)`` while mem is the number 0, and later ``add(_, x)``.
    """
    if (
        member.op not in COMMUTATIVE
        or isinstance(member.args[1], Term)
        or not isinstance(member.args[0], Term)
        or not all(isinstance(arg, Term) for arg in latest.args)
    ):
        return False
    size, t = key
    alone, (one, other) = member.args[0], latest.args
    time = times[size].of(alone)
    both = [times[last[0]].of(arg) for arg in (one, other)]
    fits = [
        None not in (time, each) and t - time == last[1] - each  # type: ignore[operator]
        for each in both
    ]
    if fits[0] != fits[1]:
        return fits[1]
    return alone.op is other.op and alone.op is not one.op
