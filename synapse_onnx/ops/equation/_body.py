"""The ONNX body of an op of an equation: which loops it holds, and how it chooses one.

That of floats is one loop, tried in a form that needs finite numbers (:mod:`._finite`). In fixed
point there are two, ::

    s, last_current, last_voltage = If(fits) <
        then_branch = narrow () => ( ... ) { ... Scan<body = narrow_step ( ... ) ... },
        else_branch = wide () => ( ... ) { ... Scan<body = wide_step ( ... ) ... }
    >

in 32 bits where the currents, parameters and states of the very call prove that every state fits,
and in 64 bits otherwise. What the nodes of a file need decides what else is there (:mod:`._omits`):
loops for graded spikes, loops without the states of which nothing is kept, for streams a single
step without any loop, and for decays of few bits a third loop, which is tried first
(:mod:`._short`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import onnx_ir as ir

from synapse_onnx.ops._writer import FLOAT, INT64, Writer
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.equation._arithmetic import Arithmetic, Narrow, Operand, Short, Spikes
from synapse_onnx.ops.equation._bounds import NARROW_LIMIT, WHOLE_LIMIT, Bounds, all_of, finite
from synapse_onnx.ops.equation._finite import Finite, witnesses
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._loop import Values, run_step, void_states, write_loop
from synapse_onnx.ops.equation._omits import BINARY, GRADED, SHORT, never, settled, summed, without
from synapse_onnx.ops.equation._short import may_be_short, try_short
from synapse_onnx.ops.equation._values import narrow_values, write_values

__all__ = ["write_body"]

#: name of a branch, and what writes the outputs of the op
_Branch = tuple[str, Callable[[], Sequence[ir.Value]]]


def write_body(op: Interface, w: Writer) -> Sequence[ir.Value]:
    """Write the body of an op and return the values of its outputs; see the module's docstring."""
    return _Body(op, w).write()


class _Body:
    """Writes one body."""

    def __init__(self, op: Interface, w: Writer) -> None:
        self.op, self.e, self.w = op, op.e, w
        # counts are neither, and need one loop
        self.graded = GRADED not in w.omitted and not op.e.counts
        self.binary = BINARY not in w.omitted or op.e.counts
        #: what some nodes leave out, the most first: what suits a node without two states suits one
        #: without either
        self.special = sorted(
            _in_few_kinds(op, {omits - {GRADED, BINARY, SHORT} for omits in w.omits})
            - {frozenset()},
            key=lambda omits: (-len(omits), sorted(omits)),
        )
        self.values = write_values(op, w)
        self.a = self._arithmetic("either")
        #: what loops for finite floats leave out, and which states show that all are
        self.tried = self._tried_loops()

    def write(self) -> Sequence[ir.Value]:
        """Write the body."""
        if not (self.op.fixed and self.w.streaming and self.op.kind != "recurrent"):
            return self._any_length()
        # bounds are what a loop of one step spends its time on; only those in fixed point have them
        return self._choose(
            self._is_single(), ("single", self._single), ("several", self._any_length)
        )

    def _arithmetic(self, spikes: Spikes) -> Arithmetic:
        """Return the arithmetic of floats, or of 64 bits."""
        dtype = INT64 if self.op.fixed else FLOAT
        return Arithmetic(self.w, dtype, spikes, loihi=self.op.regime == "loihi")

    @property
    def _in_steps(self) -> Spikes:
        """How spikes are written that are known step by step, as floats."""
        return "either" if self.graded and self.binary else "graded" if self.graded else "binary"

    @property
    def _has_bounds(self) -> bool:
        """Whether states of integers are bounded: nothing bounds the spikes that are fed back."""
        return self.op.fixed and self.e.is_bounded and self.op.kind != "recurrent"

    # -- choices ---------------------------------------------------------------------------------

    def _choose(self, condition: Operand, yes: _Branch, no: _Branch) -> Sequence[ir.Value]:
        return self.w.choose(condition.value, yes, no, self.op.outputs)

    def _any_length(self) -> Sequence[ir.Value]:
        """Write what computes any number of steps, for spikes of the kinds that there are."""
        if self.op.kind != "spikes":
            return self._all_nodes(self._in_steps)
        if not (self.graded and self.binary):
            return self._all_nodes("bits" if self.binary else "graded")
        graded = ("graded", partial(self._all_nodes, "graded"))
        if self.op.fixed and self.special:
            return self._all_nodes("bits", (self.a.is_graded, graded))
        if self._has_bounds:
            self._fits(self.values)  # before the choice, for both branches
        return self._choose(self.a.is_graded, graded, ("binary", partial(self._all_nodes, "bits")))

    def _all_nodes(self, spikes: Spikes, *cases: tuple[Operand, _Branch]) -> Sequence[ir.Value]:
        """Write cases, those of nodes that leave something out, and that of all others."""
        # graded spikes in fixed point have no loops that leave anything out
        special = [] if self.op.fixed and spikes == "graded" else self.special
        special = [omits for omits in special if omits not in self.tried]
        branches = [(_name(omits), self._leaving_out(omits, spikes)) for omits in special]
        every = [*cases, *zip(map(self._suits, special), branches, strict=True)]
        default: _Branch = ("all", partial(self._loops, self.values, spikes))
        if self.tried:
            default = ("tried", partial(self._try_finite, spikes))
        if every and self._has_bounds:
            self._sizes(self.values)  # before the choices, for all branches
        if self.op.fixed and len(every) > 1:
            return self._in_turn(every, default)
        return self._nested(every, default)

    def _leaving_out(
        self, omits: frozenset[str], spikes: Spikes
    ) -> Callable[[], Sequence[ir.Value]]:
        """Return what writes the loops of nodes that leave something out."""
        values = without(self.op, self.values, omits)
        has_limit = any(never(level) in omits for level in self.e.constants)
        return partial(
            self._loops, values, spikes, f"{_name(omits)}_", self.values if has_limit else None
        )

    def _nested(
        self, cases: Sequence[tuple[Operand, _Branch]], default: _Branch
    ) -> Sequence[ir.Value]:
        """Write every case in the else branch of the one before."""
        if not cases:
            return default[1]()
        (condition, branch), *others = cases
        return self._choose(condition, branch, ("other", partial(self._nested, others, default)))

    def _in_turn(
        self, cases: Sequence[tuple[Operand, _Branch]], default: _Branch
    ) -> Sequence[ir.Value]:
        """Write cases one after the other, each of which leaves the results of the others alone.

        For constants may settle all conditions. ONNX Runtime 1.32 then inlines the branches
        (https://github.com/microsoft/onnxruntime/pull/18105), and of a settled ``If`` in another it
        loses the names that a third subgraph in both reads.
        """
        # of the right types, and replaced by the one case that is taken
        results: Sequence[ir.Value] = [
            self.values.currents[0].value, *(state.value for state in self.values.states)
        ]  # fmt: skip
        left: Operand | None = None
        for condition, branch in cases:
            taken = condition if left is None else left & condition
            left = ~condition if left is None else left & ~condition
            results = self._choose(taken, branch, ("as_before", partial(list, results)))
        assert left is not None
        return self._choose(left, default, ("as_before", partial(list, results)))

    def _suits(self, omits: frozenset[str]) -> Operand:
        """Write whether a node leaves out that much: for all of its neurons."""
        a, p = self.a, self.values.p
        bounds = Bounds(self.w, self.values.currents[0].value)
        conditions = []
        known = settled(self.e).items()
        distances = {name: p[parameter] - at for name, (parameter, at) in known if name in omits}
        for name, distance in distances.items():
            most = a.op("ReduceL1", distance, keepdims=0)
            conditions.append(a.op("Equal", most, 0, name=name))
        for state in sorted(omits & set(self.op.states)):
            kept = p[self.e.memory[state]]
            # of floats no maximum, which may overlook NaN
            most = bounds.largest(kept) if self.op.fixed else a.op("ReduceL1", kept, keepdims=0)
            conditions.append(a.op("Equal", most, 0, name=f"no_{state}"))
        for state in summed(self.op, omits):
            lost = bounds.largest(p[self.e.memory[state]] - DECAY_ONE)
            conditions.append(a.op("Equal", lost, 0))
        for name, level in self.values.c.items():
            if never(name) in omits:
                conditions.append(level >= WHOLE_LIMIT)
        if not self.op.fixed and omits not in self.tried:  # zero times infinity is no zero
            starts = zip(self.op.states, self.values.states, strict=True)
            void = omits & set(self.op.states)
            lost_states = void_states(self.e, a, self.values, void)
            lost_states |= {f"start of {name}": state for name, state in starts if name in omits}
            conditions += [finite(a, list(lost_states.values()))] if lost_states else []
        return all_of(conditions)

    # -- loops -----------------------------------------------------------------------------------

    def _loops(
        self, values: Values, spikes: Spikes, prefix: str = "", plain: Values | None = None
    ) -> Sequence[ir.Value]:
        """Write the loop over time, or in fixed point two and the choice.

        Args:
            values: what the steps compute with.
            spikes: how they give spikes.
            prefix: what names of graphs begin with.
            plain: what they compute with where a state passes a level that ``values`` leaves out.
        """
        a = self._arithmetic(spikes)
        if not self._has_bounds:
            return self._over_time(a, values, f"{prefix}step")

        def narrow() -> Sequence[ir.Value]:
            n = Narrow(self.w, spikes)
            return self._over_time(n, narrow_values(self.op, n, values), f"{prefix}narrow_step")

        def wide(values: Values, name: str) -> Sequence[ir.Value]:
            return self._over_time(a, values, f"{prefix}{name}_step")

        def below_all_levels() -> Sequence[ir.Value]:
            if plain is None:
                return wide(values, "wide")
            return self._choose(
                self._fits(values, WHOLE_LIMIT),
                ("wide", partial(wide, values, "wide")),
                ("plain", partial(wide, plain, "plain")),
            )

        def in_integers() -> Sequence[ir.Value]:
            branches = ("narrow", narrow), ("wide", below_all_levels)
            return self._choose(self._fits(values), *branches)

        if spikes != "bits" or not may_be_short(self.op, values) or SHORT in self.w.omitted:
            return in_integers()
        short, starts = Short(self.w, spikes), self._sizes(values)[-1]
        of_states, finite = self._bounds_of(values), self._finite(values)
        bits, last, exact = try_short(
            self.op, short, values, of_states, starts, finite, f"{prefix}short_step"
        )
        as_tried = partial(self._outputs, short, values, [bits], last)
        return self._choose(exact, ("as_tried", as_tried), ("in_integers", in_integers))

    def _sizes(self, values: Values) -> list[SimpleNamespace]:
        """Write bounds of currents, parameters and states, from their numbers."""
        bounds = Bounds(self.w, values.currents[0].value)
        currents = zip(self.e.currents, values.currents, strict=True)
        states = zip(self.op.states, values.states, strict=True)
        return [
            SimpleNamespace(**{name: bounds.largest(x, self.a.scale) for name, x in currents}),
            *(
                SimpleNamespace(**{name: bounds.largest(value) for name, value in table})
                for table in (values.p.items(), states)
            ),
        ]

    def _bounds_of(self, values: Values) -> dict[str, Operand]:
        """Write bounds of the states, for all of the sequence."""
        x, p, s = self._sizes(values)
        bounds = Bounds(self.w, values.currents[0].value)
        of_states = self.e.bounds(bounds, x, p, s, SimpleNamespace(**values.c))
        for state, bound in of_states.items():
            bound.value.name = f"bound_of_{state}"
        return of_states

    def _finite(self, values: Values) -> Operand:
        """Write whether all currents, and parameters that are floats, are finite."""
        real = [values.p[parameter.name] for parameter in self.op.table if parameter.real]
        return finite(self.a, [*values.currents, *real])

    def _fits(self, values: Values, limit: int = NARROW_LIMIT) -> Operand:
        """Write whether all states stay below a limit, for all of the sequence."""
        of_states = self._bounds_of(values)
        fits = [bound < limit for bound in dict.fromkeys(of_states.values())]
        return all_of([*fits, self._finite(values)])

    def _tried_loops(self) -> dict[frozenset[str], list[str]]:
        """Return what loops for finite floats leave out, and which states show that all are."""
        cases = (*self.special, frozenset[str]())
        shown = {omits: witnesses(self.op, omits) for omits in cases}
        every = shown[frozenset()]
        if not every:  # there is no reset, or nothing shows that all are finite
            return {}
        # a loop without any product takes what shows it of all
        return {omits: states or every for omits, states in shown.items() if states is not None}

    def _try_finite(self, spikes: Spikes) -> Sequence[ir.Value]:
        """Write loops for finite floats, and the loop of all for where they are not."""
        a, wanted = Finite(self.w, FLOAT, spikes), self._wanted
        like = None if self.op.spiking else self.values.currents[0].value
        carried = (*self.op.carried, *self.op.states)

        def loop(omits: frozenset[str]) -> Sequence[ir.Value]:
            values = without(self.op, self.values, omits)
            name = f"{_name(omits)}_finite_step" if omits else "finite_step"
            traces, last = write_loop(self.e, a, values, wanted, name, like)
            after = dict(zip(carried, last, strict=True))
            starts = zip(self.op.states, self.values.states, strict=True)
            void = [start for state, start in starts if state in omits]
            known = finite(a, [*(after[state] for state in self.tried[omits]), *void])
            return [x.value for x in (*traces, *last, known)]

        def loops(cases: Sequence[frozenset[str]]) -> Sequence[ir.Value]:
            omits, *others = cases
            if not others:
                return loop(omits)
            branches = (_name(omits), partial(loop, omits)), ("other", partial(loops, others))
            in_steps = spikes == "bits" or self.op.kind == "recurrent"
            results = ["spikes"] if in_steps else wanted
            names = [f"tried_{name}" for name in (*results, *(f"last_{x}" for x in carried))]
            return self.w.choose(self._suits(omits).value, *branches, [*names, "finite"])

        *results, known = (Operand(a, value) for value in loops(list(self.tried)))
        traces, last = results[: -len(carried)], results[-len(carried) :]
        as_tried = partial(self._outputs, a, self.values, traces, last)
        exact = partial(self._loops, self.values, spikes)
        return self._choose(known, ("as_tried", as_tried), ("exact", exact))

    def _over_time(self, a: Arithmetic, values: Values, name: str) -> Sequence[ir.Value]:
        """Write one loop, and the outputs of the op from what it gives."""
        like = None if self.op.spiking else values.currents[0].value
        return self._outputs(a, values, *write_loop(self.e, a, values, self._wanted, name, like))

    @property
    def _names(self) -> Sequence[str]:
        """Names of the variables that the outputs follow from."""
        return self.e.fires if self.op.spiking else self.e.traces

    @property
    def _wanted(self) -> list[str]:
        """Names of the variables that a loop keeps of every step: the others follow from them."""
        return list(dict.fromkeys(self.e.follows.get(name, (name,))[0] for name in self._names))

    def _variables(self, traces: Sequence[Operand]) -> dict[str, Operand]:
        """Write the variables that the outputs follow from, of what a loop keeps."""
        known = dict(zip(self._wanted, traces, strict=True))
        for name in self._names:
            if name not in known:
                variable, parameter = self.e.follows[name]
                known[name] = known[variable] - self.values.p[parameter]
        return {name: known[name] for name in self._names}

    def _outputs(
        self, a: Arithmetic, values: Values, traces: Sequence[Operand], last: Sequence[Operand]
    ) -> Sequence[ir.Value]:
        """Write the outputs of the op from what a loop gives."""
        if a.spikes == "bits":
            sequences = [a.spikes_of(traces[0])]
        elif self.op.kind == "spikes":
            variables = SimpleNamespace(**self._variables(traces))
            sequences = [self.e.fire(a, variables, SimpleNamespace(**values.c))]
        elif self.op.kind == "dynamics":
            sequences = [a.give(trace) for trace in self._variables(traces).values()]
        else:
            sequences = list(traces)
        fed = len(self.op.carried)
        states = [self.a.cast(state, self.a.dtype) for state in last[fed:]]
        return [x.value for x in (*sequences, *last[:fed], *states)]

    # -- single steps ----------------------------------------------------------------------------

    def _is_single(self) -> Operand:
        """Write whether there is one time step: ``Equal(Size(x), Max(Size(state), int64_1))``.

        An empty batch has no size that tells of its steps. ONNX Runtime does not settle ``Size``
        when it loads a model, not even where all sizes are known.
        """
        x, state = self.values.currents[0], self.values.states[0]
        sizes = [self.a.op("Size", value) for value in (x, state)]
        return self.a.op("Equal", sizes[0], self.a.op("Max", sizes[1], 1))

    def _single(self) -> Sequence[ir.Value]:
        """Write one step in 64 bits, without loop and bounds."""
        a = self._arithmetic(self._in_steps)
        x = {
            name: a.take(a.op("Gather", current, a.operand(0), name=f"{name}_now"))
            for name, current in zip(self.e.currents, self.values.currents, strict=True)
        }
        s = dict(zip(self.op.states, self.values.states, strict=True))
        after, variables = run_step(self.e, a, x, s, self.values)
        if self.op.spiking:
            c = SimpleNamespace(**self.values.c)
            now = [self.e.fire(a, SimpleNamespace(**variables), c)]
        else:
            now = [a.give(variables[name]) for name in self.e.traces]
        time = self.w.ints(0, name="time_axis")
        sequences = [self.w.op("Unsqueeze", value.value, time) for value in now]
        return [*sequences, *(after[name].value for name in self.op.states)]


def _in_few_kinds(op: Interface, kinds: set[frozenset[str]]) -> set[frozenset[str]]:
    """Return what nodes leave out, of floats what all of them do where their void states are one.

    Each kind more would be a branch within a branch, and ONNX Runtime 1.32 crashes where three of
    them are settled. Where void states differ, they alone count.
    """
    if op.fixed or len(kinds) < 2:
        return kinds
    void = {kind & set(op.states) for kind in kinds}
    return {frozenset.intersection(*kinds)} if len(void) == 1 else void


def _name(omits: frozenset[str]) -> str:
    """Name loops after what they leave out: ``no_current``, ``never_threshold_sum_of_voltage``."""
    return "_".join(
        name if name.startswith(("never_", "sum_of_", "zero_", "one_")) else f"no_{name}"
        for name in sorted(omits)
    )
