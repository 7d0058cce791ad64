"""The loop over time of a body: one step as a graph, what leaves it, and the Scan over the rest.

A step is written as a graph of its own. Then

- nodes that no result needs are removed;
- what no state reaches leaves the loop: what depends on a current is computed for all of time
  before the loop, unless the arithmetic keeps it in (:attr:`Arithmetic.hoists`), and what depends
  on nothing that moves once;
- a state that is what it was plus something known for all of time is a sum over time, ``CumSum``;
- the rest becomes the body of a Scan. If nothing is left there is no Scan.

With nothing kept of the current, say, CUBA's ``current_t = Add(current_kept, x_t)`` is ``x_t``
itself, and the loop hands on the voltage alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import onnx_ir as ir

from synapse_onnx.ops._writer import FLOAT, Writer
from synapse_onnx.ops.equation._arithmetic import Arithmetic, Operand
from synapse_onnx.ops.equation._declaration import Equation

__all__ = ["Feedback", "Values", "run_step", "step_of", "void_states", "write_loop"]


class Feedback(NamedTuple):
    """What is fed back to one current: spikes times a matrix (C, C), times a scale (C,)."""

    matrix: Operand
    scale: Operand


class Values(NamedTuple):
    """What a step computes with.

    Attributes:
        currents: sequences of float32, time first.
        states: what the sequence starts from.
        p: parameters, by name: operands that act on a state, or numbers.
        c: levels, by name: operands, or :data:`NEVER`.
        feedback: one of each current, or nothing.
        watched: variables of which the loop hands on the lowest value, and what that starts from.
    """

    currents: Sequence[Operand]
    states: Sequence[Operand]
    p: Mapping[str, Any]
    c: Mapping[str, Any]
    feedback: Sequence[Feedback] = ()
    watched: Mapping[str, Operand] = MappingProxyType({})


class _Carried(NamedTuple):
    """A value that the loop hands on: its name, what it starts from, before and after a step."""

    name: str
    start: ir.Value
    before: ir.Value
    after: Operand


@dataclass
class _Step:
    """One time step, written as a graph that is not part of a Scan yet."""

    graph: ir.Graph
    carried: list[_Carried]
    wanted: list[Operand]
    #: value of the step -> the sequence that it is one step of, time first
    sequences: dict[ir.Value, ir.Value]
    #: value of the step -> the same value outside of it, for what is the same in all steps
    still: dict[ir.Value, ir.Value] = field(default_factory=dict)
    #: value that left the step -> what replaces it within the loop
    inside: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def results(self) -> set[ir.Value]:
        """What is carried to the next step, or wanted of this one."""
        carried = (row.after.value for row in self.carried)
        return {*carried, *(operand.value for operand in self.wanted)}


def write_loop(
    e: Equation,
    a: Arithmetic,
    values: Values,
    wanted: Sequence[str],
    name: str,
    like: ir.Value | None = None,
) -> tuple[list[Operand], list[Operand]]:
    """Write the loop of an equation over time.

    Args:
        e: the equation.
        a: the arithmetic; where it gives spikes in every step, they are wanted, not variables.
        values: what the steps compute with.
        wanted: names of the variables that are kept of every step.
        name: of the graph of a step.
        like: a sequence to whose shape wanted values are expanded that are the same in all steps.

    Returns:
        What is wanted, of all steps, time first; and the last of what the loop hands on: spikes
        that are fed back, states, the lowest of what is watched.
    """
    step = _write_step(e, a, values, wanted, name)
    _hoist(a.w, step, a.hoists)
    return _scan(a.w, step, like)


def void_states(
    e: Equation, a: Arithmetic, values: Values, void: frozenset[str]
) -> dict[str, Operand]:
    """Write void states for all of time, by name: those that follow from no other state.

    Args:
        e: the equation.
        a: the arithmetic.
        values: what the steps compute with.
        void: names of the states of which nothing is kept.
    """
    kept = {**values.p, **dict.fromkeys((e.memory[state] for state in void), 0)}
    step = _write_step(e, a, values._replace(p=kept, feedback=()), (), "lost")
    moving = _hoist(a.w, step)
    return {
        row.name: Operand(a, _of_all_steps(a.w, row.after.value, step, None))
        for row in step.carried
        if row.name in void and row.after.value not in moving
    }


def step_of(
    e: Equation, a: Arithmetic, values: Values
) -> tuple[list[tuple[str, ir.Value, ir.Value]], ir.Graph]:
    """Write one step as a graph, to look at; return (name, before, after) of its states, and it."""
    step = _write_step(e, a, values, (), "looked_at")
    return [(row.name, row.before, row.after.value) for row in step.carried], step.graph


def _write_step(
    e: Equation, a: Arithmetic, values: Values, wanted: Sequence[str], name: str
) -> _Step:
    """Write one step as a graph; see :func:`write_loop`."""
    w, recurrent = a.w, bool(values.feedback)
    sequences = {
        ir.Value(name=f"{current}_t", type=ir.TensorType(value.dtype)): value.value
        for current, value in zip(e.currents, values.currents, strict=True)
    }
    before = {
        state.name: ir.Value(name=f"{state.name}_before", type=ir.TensorType(value.dtype))
        for state, value in zip(e.states, values.states, strict=True)
    }
    spikes = ir.Value(name="spikes_before", type=ir.TensorType(FLOAT))
    fed = [spikes] if recurrent else []
    lowest = {
        variable: ir.Value(name=f"lowest_{variable}_before", type=ir.TensorType(value.dtype))
        for variable, value in values.watched.items()
    }
    with w.subgraph(name, [*fed, *before.values(), *lowest.values(), *sequences]) as graph:
        x = {n: a.operand(value) for n, value in zip(e.currents, sequences, strict=True)}
        if recurrent:
            for current, (matrix, scale) in zip(e.currents, values.feedback, strict=True):
                total = a.op("MatMul", a.operand(spikes), matrix, name=f"{current}_fed")
                x[current] += total * scale
        x = {current: a.take(value) for current, value in x.items()}
        s = {name: a.operand(value) for name, value in before.items()}
        after, variables = run_step(e, a, x, s, values)
        if recurrent or a.spikes == "bits":
            results = [e.fire(a, SimpleNamespace(**variables), SimpleNamespace(**values.c))]
        else:
            results = [variables[variable] for variable in wanted]
        lower = {v: a.op("Min", a.operand(x), variables[v]) for v, x in lowest.items()}
    _name(graph, lower, "lowest")
    _name(graph, after, "next")
    _name(graph, variables, "t")
    carried = [
        _Carried(state.name, start.value, before[state.name], after[state.name])
        for state, start in zip(e.states, values.states, strict=True)
    ]
    carried += [
        _Carried(f"lowest_{v}", start.value, lowest[v], lower[v])
        for v, start in values.watched.items()
    ]
    if recurrent:
        carried.insert(0, _Carried("spikes", w.input("spikes", FLOAT), spikes, results[0]))
    step = _Step(graph, carried, results, sequences)
    _prune(step)
    return step


def run_step(
    e: Equation, a: Arithmetic, x: Mapping[str, Any], s: Mapping[str, Any], values: Values
) -> tuple[dict[str, Operand], dict[str, Operand]]:
    """Run one step of an equation on ONNX values.

    Args:
        e: the equation.
        a: the arithmetic.
        x: currents of the step, by name.
        s: states before the step, by name.
        values: the parameters and levels.

    Returns:
        (states after the step, variables of the step); numbers among them are constants.
    """
    after, variables = e.step(
        a, *(SimpleNamespace(**table) for table in (x, values.p, s, values.c))
    )
    return (
        {name: a.operand(value) for name, value in after.items()},
        {name: a.operand(value) for name, value in variables.items()},
    )


def _hoist(w: Writer, step: _Step, currents: bool = True) -> set[ir.Value]:
    """Compute before the loop what no state reaches, for all of time; sums of it, too.

    Every operator of a step acts on each element by itself, so that a sequence (T, N, C) takes the
    place of one step (N, C).

    Args:
        w: the writer of the body.
        step: the step.
        currents: whether what depends on a current leaves the step, too.

    Returns:
        The values of the step that depend on a state, or stay in it for another reason.
    """
    moving = {value for value in step.graph.inputs if value not in step.sequences}
    for node in list(step.graph):
        (value,) = node.outputs
        row = next((row for row in step.carried if row.after.value is value), None)
        if row is not None and _is_sum(node, row, step):
            (added,) = (x for x in node.inputs if x is not row.before)
            assert added is not None
            total = w.op("CumSum", step.sequences[added], w.number(0, ir.DataType.INT64))
            step.sequences[value] = w.op("Add", total, row.start, name=f"{row.name}_sums")
            moving.discard(row.before)
        elif any(x in moving or (x in step.sequences and not currents) for x in node.inputs):
            moving.add(value)
        else:
            inputs = [step.sequences.get(x, step.still.get(x, x)) for x in node.inputs]  # type: ignore[arg-type]
            outside = w.op(
                node.op_type,
                *inputs,
                name=(value.name or "").removesuffix("_t"),
                dtype=value.dtype,
                **node.attributes,
            )
            of_time = any(x in step.sequences for x in node.inputs)
            (step.sequences if of_time else step.still)[value] = outside
    for value in [value for value in (*step.sequences, *step.still) if value.producer()]:
        inside = step.still.get(value)
        if inside is None:  # one step of a sequence comes into the loop
            inside = ir.Value(name=value.name, type=value.type)
            step.sequences[inside] = step.sequences[value]
        step.inside[value] = inside
        value.replace_all_uses_with(inside)
    for value in reversed(step.inside):
        step.graph.remove(value.producer(), safe=True)  # type: ignore[arg-type]
    return moving


def _is_sum(node: ir.Node, row: _Carried, step: _Step) -> bool:
    """Whether a state is ``Add(state_before, x_t)``, x a sequence, and read by nothing else."""
    if node.op_type != "Add" or len(row.before.uses()) != 1 or row.before in step.results:
        return False
    return row.before in node.inputs and any(x in step.sequences for x in node.inputs)


def _scan(
    w: Writer, step: _Step, like: ir.Value | None = None
) -> tuple[list[Operand], list[Operand]]:
    """Write the loop over what is left of a step.

    Args:
        w: the writer of the body.
        step: the step, after :func:`_hoist`.
        like: a sequence to whose shape wanted values are expanded that are the same in all steps.

    Returns:
        What is wanted, of all steps; and the last of every value that is carried.
    """
    _prune(step)
    moving = {value for node in step.graph for value in node.outputs}
    moving |= {row.before for row in step.carried}
    within = [
        row
        for row in step.carried
        if row.after.value in moving or row.before.uses() or row.before in step.results
    ]
    traced = list(dict.fromkeys(x.value for x in step.wanted if x.value in moving))
    last = {row.name: _at_the_end(w, row, step) for row in step.carried if row not in within}
    traces = {
        x.value: _of_all_steps(w, x.value, step, like) for x in step.wanted if x.value not in moving
    }
    if within or traced:
        inside = [step.inside.get(row.after.value, row.after.value) for row in within]
        inputs = [x for x in step.sequences if x.producer() is None]
        # a Scan needs a sequence, to know how many steps there are
        read = [x for x in inputs if x.uses() or x in inside] or inputs[:1]
        step.graph.inputs.clear()
        step.graph.inputs.extend([*(row.before for row in within), *read])
        outputs = w.scan(
            step.graph,
            [row.start for row in within],
            [step.sequences[x] for x in read],
            [*inside, *traced],
            [
                *(f"{row.name}_last" for row in within),
                *(f"{(x.name or '').removesuffix('_t')}_trace" for x in traced),
            ],
        )
        last |= dict(zip((row.name for row in within), outputs, strict=False))
        traces |= dict(zip(traced, outputs[len(within) :], strict=True))
    return (
        [Operand(x.a, traces[x.value], x.inverted) for x in step.wanted],
        [Operand(row.after.a, last[row.name]) for row in step.carried],
    )


def _of_all_steps(w: Writer, value: ir.Value, step: _Step, like: ir.Value | None) -> ir.Value:
    """Return a value that is computed before the loop, over time."""
    if value in step.sequences:
        return step.sequences[value]
    value = step.still.get(value, value)
    return value if like is None else w.op("Expand", value, w.op("Shape", like))


def _at_the_end(w: Writer, row: _Carried, step: _Step) -> ir.Value:
    """Write the last of a state that no step reads, in its shape."""
    value = row.after.value
    if value in step.sequences:
        return w.op("Gather", step.sequences[value], w.number(-1, ir.DataType.INT64))
    shape = w.op("Shape", row.start)
    return w.op("Expand", step.still.get(value, value), shape, name=f"{row.name}_last")


def _prune(step: _Step) -> None:
    """Remove the nodes that no other one and no result reads."""
    for node in reversed(step.graph):
        if not any(value.uses() or value in step.results for value in node.outputs):
            step.graph.remove(node, safe=True)


def _name(graph: ir.Graph, operands: Mapping[str, Operand], suffix: str) -> None:
    """Name the values of a step after the variables and states that they are."""
    for name, operand in operands.items():
        producer = operand.value.producer()
        if producer is not None and producer.graph is graph:
            operand.value.name = f"{name}_{suffix}"
