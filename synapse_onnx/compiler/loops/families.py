"""Families are found by walking through traces of several sizes at once.

The traces are those of T = 5, 6 and 7 steps, say, and one of another batch size. Where all have the
same operator, its arguments are walked through in the same way. Where a stack has T parts, its
parts are a family: one value a step and trace. The arguments of a family's operator are looked at
over all steps and traces again: they are literals, whole values, or families themselves, maybe of
an earlier step. That goes on until nothing new turns up.

The time of a value is the last step that it reads of any input. So ``mem[3]`` is found to be of
step 3, and where step 4 reads it, the delay is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from synapse_onnx.compiler.loops.alike import merge_alike
from synapse_onnx.compiler.loops.first_steps import settle_first_steps
from synapse_onnx.compiler.loops.form import (
    Apply,
    Entry,
    Family,
    Fixed,
    Form,
    Last,
    Leaf,
    Listed,
    Phases,
    Reference,
    Stack,
)
from synapse_onnx.compiler.loops.held import hold
from synapse_onnx.compiler.loops.last_values import in_shorter_traces, sums
from synapse_onnx.compiler.loops.members import (
    EARLY,
    IrregularError,
    agree,
    by_size,
    identity,
    members_of,
    read_ahead,
)
from synapse_onnx.compiler.loops.numbers import Formula, fit
from synapse_onnx.compiler.loops.phases import period_of
from synapse_onnx.compiler.loops.reading import CAT, STACK, Reading
from synapse_onnx.compiler.loops.refusals import NoLoopError, obstacle
from synapse_onnx.compiler.loops.stacks import grows, not_the_steps, steps_of_parts
from synapse_onnx.compiler.loops.terms import Pool, Size, Term, terms_in
from synapse_onnx.compiler.loops.times import Cones, Times, is_swapped

__all__ = ["find_form"]


def find_form(
    readings: Mapping[Size, Reading],
    pool: Pool,
    times: Mapping[Size, Times] | None = None,
    shorter: Callable[[Size], Reading] | None = None,
) -> Form:
    """Return the form that all traces have in common.

    Args:
        readings: traces of at least three lengths and the same batch size, the shortest first, and
            then one of another batch size.
        pool: the pool of their terms.
        times: the times of their terms; by default what they read of sequences tells them.
        shorter: gives traces of fewer steps, which tell what late outputs are in them.

    Raises:
        NoLoopError: they have none.
    """
    times = times or {size: Times(reading, size) for size, reading in readings.items()}
    return _Finder(readings, pool, times, shorter).find()


class _Finder:
    def __init__(
        self,
        readings: Mapping[Size, Reading],
        pool: Pool,
        times: Mapping[Size, Times],
        shorter: Callable[[Size], Reading] | None,
    ) -> None:
        self._readings = readings
        self._shorter = shorter
        self._pool = pool
        self._sizes = list(readings)
        batch = self._sizes[0].batch
        self._longer = [size for size in self._sizes if size.batch == batch]
        self._longest = self._longer[-1]
        self._times = times
        self._family_of: dict[tuple[Size, Term], tuple[Family, int]] = {}
        self._wholes: dict[tuple[int, ...], Any] = {}
        self._terms: dict[int, Mapping[Size, Term]] = {}
        self._cones = Cones()
        self._references: list[Reference] = []
        self._unexpanded: list[Family] = []
        self._expanding = False

    def find(self) -> Form:
        outputs = {size: reading.outputs for size, reading in self._readings.items()}
        counts = {size: len(values) for size, values in outputs.items()}
        if len(set(counts.values())) > 1:
            raise NoLoopError(
                "it returns more tensors for more steps; return one with all steps, such as "
                "torch.stack(outputs, dim), or give axes='TNC' or 'NTC' if time is another axis"
            )
        number = counts[self._longest]
        # a stack tells which values belong together; a last value alone is harder
        stacked = [outputs[self._longest][i].op in (STACK, CAT) for i in range(number)]
        results: dict[int, Any] = {}
        for i in sorted(range(number), key=lambda i: not stacked[i]):
            results[i] = self._whole({size: outputs[size][i] for size in self._sizes})
            self._expand_all()
        return self._form([results[i] for i in range(number)])

    def _form(self, outputs: list[Any]) -> Form:
        self._expand_all()
        merge_alike(outputs)
        settle_first_steps(outputs, self._family_at)
        hold(outputs)
        reading = self._readings[self._longest]
        return Form(outputs, self._pool.values, reading.places, reading.paths)

    def _family_at(self, value: Any) -> tuple[Family, int] | None:
        """Return the family and the step that a whole value is, in all traces; else None."""
        terms = self._terms.get(id(value), {})
        found = [self._family_of.get((size, term)) for size, term in terms.items()]
        known = [(family.found(), step) for family, step in filter(None, found)]
        return known[0] if len(known) == len(found) > 0 and len(set(known)) == 1 else None

    def _fail(
        self, reason: str, term: Any = None, kind: type[NoLoopError] = NoLoopError
    ) -> NoLoopError:
        place = self._readings[self._longest].places.get(term, "") if term is not None else ""
        return kind(reason, place)

    # -- whole values ------------------------------------------------------------------------------

    def _whole(self, values: Mapping[Size, Any]) -> Any:
        """Return the whole value that is this term, literal or tuple in each trace."""
        first = values[self._sizes[0]]
        kinds = {type(value) for value in values.values()}
        if len(kinds) > 1 and kinds & {Term, tuple}:
            raise self._fail("a value is a number in one trace and a tensor in another")
        if isinstance(first, tuple):
            if len({len(value) for value in values.values()}) != 1:
                raise self._fail("a list has another length where T is another")
            return [
                self._whole({size: value[i] for size, value in values.items()})
                for i in range(len(first))
            ]
        if not isinstance(first, Term):
            return self._fitted({(size, 0): value for size, value in values.items()})
        key = tuple(values[size].number for size in self._sizes)
        if key not in self._wholes:
            whole = self._wholes[key] = self._whole_term(values)
            self._terms[id(whole)] = dict(values)
        return self._wholes[key]

    def _whole_term(self, values: Mapping[Size, Term]) -> Any:
        terms = list(values.values())
        first = terms[0]
        longer = [values[size] for size in self._longer]
        if len({term.op for term in terms}) != 1:
            return self._last(values)
        self._check(longer[-1], in_step=False)
        if first.is_leaf:
            if len(set(terms)) != 1:
                raise self._fail("it reads another parameter where T is another")
            return Leaf(first)
        if len(set(longer)) > 1:
            members = [self._family_of.get((size, values[size])) for size in self._sizes]
            known = [member for member in members if member is not None]
            if len(known) == len(members):
                families = {id(family.found()) for family, _ in known}
                backs = {
                    size.steps - 1 - step
                    for size, (_, step) in zip(self._sizes, known, strict=True)
                }
                if len(families) == len(backs) == 1:
                    return self._last_of(known[0][0].found(), backs.pop(), longer[-1])
            if any(longer[0].number in self._cones.of(term) for term in longer[1:]):
                return self._last(values)
            if sums(values, self._times, EARLY):
                return self._last(values)
        if first.op in (STACK, CAT) and grows(values):
            return self._stacked(values)
        if len({len(term.args) for term in terms}) != 1:
            raise self._fail(
                "an operator has another number of arguments in each trace", longer[-1]
            )
        if len({tuple(term.kwargs) for term in terms}) != 1:
            raise self._fail("an operator has other arguments in each trace", longer[-1])
        try:
            args = [
                self._whole({size: term.args[i] for size, term in values.items()})
                for i in range(len(first.args))
            ]
            kwargs = {
                name: self._whole({size: term.kwargs[name] for size, term in values.items()})
                for name in first.kwargs
            }
        except NoLoopError as error:
            raise self._placed(error, longer[-1]) from error
        return Apply(first.op, args, kwargs)

    def _placed(self, error: NoLoopError, term: Term) -> NoLoopError:
        place = self._readings[self._longest].places.get(term, "")
        return error if error.place else type(error)(str(error), place)

    def _stacked(self, values: Mapping[Size, Term]) -> Any:
        first = values[self._longest]
        steps = steps_of_parts(values, self._times)
        if steps is None:
            raise self._fail(not_the_steps(values), first)
        start, stride = steps
        parts = {
            (size, start + stride * i): part
            for size, term in values.items()
            for i, part in enumerate(term.args[0])
        }
        slot = self._slot(parts)
        self._expand_all()
        return Stack(slot, first.args[1], first.op is CAT, start, stride)

    def _last(self, values: Mapping[Size, Term]) -> Any:
        """Return the last value of a family."""
        longest = values[self._longest]
        members = in_shorter_traces(values, self._longer, self._cones)
        members = members or sums(values, self._times, EARLY)
        if not members:
            raise self._fail(
                "an output is computed in another way where T is another, and does not follow from "
                "one step to the next",
                longest,
            )
        slot = self._slot(members)
        self._expand_all()
        if isinstance(slot, Phases):
            return Last(slot)
        if not isinstance(slot, Reference):
            raise self._fail("an output is the same at every step but the first ones", longest)
        return self._last_of(slot.family.found(), slot.delay, longest)

    def _last_of(self, family: Family, delay: int, term: Term) -> Last:
        """Return the value that a family had some steps before the last one.

        With fewer steps than that it is what a step that reads the family as late reads instead.
        """
        if delay == 0:
            return Last(Reference(family))
        self._expand_all()
        for known in self._references:
            same = known.family.found() is family and known.delay == delay
            if same and known.instead.keys() >= set(range(delay)):
                return Last(Reference(family, delay, {t: known.instead[t] for t in range(delay)}))
        outputs = [id(each) for each in self._readings[self._longest].outputs]
        if self._shorter is not None and id(term) in outputs:
            i = outputs.index(id(term))
            sizes = {t: {s: Size(t + 1, s.batch) for s in self._sizes} for t in range(delay)}
            few = {
                t: {size: self._shorter(each).outputs[i] for size, each in of_step.items()}
                for t, of_step in sizes.items()
            }
            return Last(Reference(family, delay, {t: self._whole(few[t]) for t in few}))
        raise self._fail(
            f"an output is a value of {delay} step{'s' * (delay > 1)} before the last one, and "
            f"nothing says what it is in a shorter sequence; return all steps, and take the last "
            f"one outside",
            term,
        )

    def _fitted(self, values: Mapping[tuple[Size, int], Any]) -> Any:
        try:
            return fit(values)
        except ValueError as error:
            raise self._fail(f"a number is {error}") from error

    # -- slots -------------------------------------------------------------------------------------

    def _slot(self, values: Mapping[tuple[Size, int], Any]) -> Any:
        """Return what a step reads: a literal, a formula, a whole value or a family's value."""
        latest = values[max(values, key=lambda key: (key[0] == self._longest, key[1]))]
        steps = by_size(values)
        if isinstance(latest, tuple):
            lengths = {len(v) if isinstance(v, tuple) else -1 for v in values.values()}
            if len(lengths) != 1:
                raise self._fail("a step reads a list whose length changes from step to step")
            return Listed(
                [self._slot({key: v[i] for key, v in values.items()}) for i in range(len(latest))]
            )
        if not isinstance(latest, Term):
            if any(isinstance(value, Term) for value in values.values()):
                found = self._fixed(steps) or self._phases(steps)
                if found is None:
                    raise self._fail("a value is a tensor at one step and a number at a later one")
                return found
            return self._fitted(values)
        fixed = self._fixed(steps)
        return self._reference(steps) if fixed is None else fixed

    def _phases(self, steps: Mapping[Size, Mapping[int, Any]]) -> Phases | None:
        """Return what steps read in turn; None if they do not read so."""
        period = period_of(steps, self._times, EARLY)
        if period is None:
            return None
        slots = []
        for phase in range(period):
            values = {
                (size, t): value
                for size, found in steps.items()
                for t, value in found.items()
                if t % period == phase
            }
            slots.append(self._slot(values) if values else None)
        kinds = (Reference, Fixed, Formula, Phases, int, float, type(None))
        if all(isinstance(slot, kinds) for slot in slots):
            return Phases(slots)
        return None

    def _fixed(self, steps: Mapping[Size, Mapping[int, Any]]) -> Fixed | None:
        """Return the whole value that all steps read, but for the first; None if they do not."""
        for early in range(EARLY):
            if sum(t >= early for t in steps[self._longest]) < 2:
                return None
            if not all(
                len({identity(v) for t, v in values.items() if t >= early}) <= 1
                for values in steps.values()
            ):
                continue
            last = {size: values[max(values)] for size, values in steps.items()}
            for size in self._sizes:
                last.setdefault(size, steps[self._longest][max(steps[self._longest])])
            instead = {
                t: self._whole(self._at(steps, t))
                for t in range(early)
                if any(t in values for values in steps.values())
            }
            return Fixed(self._whole(last), instead)
        return None

    def _at(self, steps: Mapping[Size, Mapping[int, Any]], t: int) -> dict[Size, Any]:
        """Return what every trace reads at a step; one that has none there reads the longest's."""
        present = [values[t] for values in steps.values() if t in values]
        default = steps.get(self._longest, {}).get(t, present[0])
        return {size: steps.get(size, {}).get(t, default) for size in self._sizes}

    def _reference(self, steps: Mapping[Size, Mapping[int, Any]]) -> Reference | Phases:
        try:
            delay, regular, early = members_of(steps, self._times, self._longest)
        except IrregularError as error:
            found = self._phases(steps)
            if found is not None:
                return found
            reason, term = error.args
            raise self._fail(reason, term, error.refusal) from error
        family = self._family(regular, early, delay)
        for (size, t), term in regular.items():
            self._family_of.setdefault((size, term), (family, t - delay))
            if (size, t - delay) not in family.members:
                family.members[size, t - delay] = term
                if family not in self._unexpanded:
                    self._unexpanded.append(family)
        parts = by_size(early)
        instead = {t: self._whole(self._at(parts, t)) for t in sorted({t for _, t in early})}
        reference = Reference(family, delay, instead)
        self._references.append(reference)
        return reference

    def _family(
        self,
        regular: dict[tuple[Size, int], Term],
        early: dict[tuple[Size, int], Any],
        delay: int,
    ) -> Family:
        """Return the family of these values, merged with those that they belong to already."""
        known: dict[tuple[Size, int], Family] = {}
        for (size, t), term in regular.items():
            if (size, term) in self._family_of:
                known[size, t] = self._family_of[size, term][0].found()
        if not known:
            return Family()
        counts = Counter(map(id, known.values()))
        by_id = {id(family): family for family in known.values()}
        values = {(size, t - delay): term for (size, t), term in regular.items()}
        ordered = [by_id[number] for number, _ in counts.most_common()]
        # 0.5 * v is the decay of each step, and by chance t / T * v of one
        family = next((each for each in ordered if agree(each.members, values)), Family())
        for other in ordered:
            if other is family.found():
                continue
            keys = [key for key, each in known.items() if each is other]
            if all(t == delay for _, t in keys):
                # equal by chance at the first step, where both begin with zeros
                early.update({key: regular.pop(key) for key in keys})
            elif agree(family.members, other.members) and agree(values, other.members):
                self._merge(family, other)
        return family.found()

    def _merge(self, family: Family, other: Family) -> None:
        for key, term in other.members.items():
            family.members[key] = term
            self._family_of[key[0], term] = (family, key[1])
        other.merged = family
        if other in self._unexpanded:
            self._unexpanded.remove(other)
        if family not in self._unexpanded:
            self._unexpanded.append(family)

    # -- what a step of a family is ----------------------------------------------------------------

    def _expand_all(self) -> None:
        if self._expanding:  # by a caller further up
            return
        self._expanding = True
        try:
            while self._unexpanded:
                family = self._unexpanded.pop()
                if family.merged is None:
                    self._expand(family)
        finally:
            self._expanding = False

    def _expand(self, family: Family) -> None:
        members = family.members
        # of a state that is a number at some steps, a step at which it is none tells what it is
        last = max(
            members,
            key=lambda key: (key[0] == self._longest, len([*terms_in(members[key])]), key[1]),
        )
        latest = members[last]
        self._check(latest, in_step=True)
        try:
            self._give_shape(family)
            ahead = read_ahead(members, self._times)
            if ahead is not None:
                family.node = self._entry(members, ahead)
                return
            if any(
                len(m.args) != len(latest.args) or m.kwargs.keys() != latest.kwargs.keys()
                for m in members.values()
            ):
                raise self._fail("an operator has another number of arguments at each step", latest)
            swapped = {
                key for key in members if is_swapped(self._times, key, members[key], last, latest)
            }
            args = [
                self._slot({k: m.args[1 - i if k in swapped else i] for k, m in members.items()})
                for i in range(len(latest.args))
            ]
            kwargs = {
                name: self._slot({key: m.kwargs[name] for key, m in members.items()})
                for name in latest.kwargs
            }
        except NoLoopError as error:
            raise self._placed(error, latest) from error
        family.node = Apply(latest.op, args, kwargs)

    def _check(self, term: Term, *, in_step: bool) -> None:
        reason = obstacle(term, in_step=in_step)
        if reason:
            raise self._fail(reason, term)

    def _give_shape(self, family: Family) -> None:
        kinds = {
            (size, 0): kind
            for (size, _), term in family.members.items()
            if (kind := self._readings[size].kinds.get(term)) is not None
        }
        if kinds:
            shape, family.dtype = next(iter(kinds.values()))
            family.shape = [
                self._fitted({key: kind[0][i] for key, kind in kinds.items()})
                for i in range(len(shape))
            ]

    def _entry(self, members: Mapping[tuple[Size, int], Term], ahead: int) -> Entry:
        sources: dict[Size, Term] = {}
        for (size, _), member in members.items():
            if sources.setdefault(size, member.args[0]) is not member.args[0]:
                raise self._fail("the steps read several sequences in turn", member)
        for size in self._sizes:
            sources.setdefault(size, next(iter(sources.values())))
        axis = next(iter(members.values())).args[1]
        return Entry(self._whole(sources), axis, ahead)
