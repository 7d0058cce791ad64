"""A network whose loop over time was found: it computes its form, for any T and N."""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler.lengths import Length
from synapse_onnx.compiler.loops.form import (
    Apply,
    Entry,
    Family,
    Fixed,
    Form,
    Last,
    Layer,
    Leaf,
    Listed,
    Numbers,
    Phases,
    Reference,
    Stack,
    parts_of,
)
from synapse_onnx.compiler.loops.groups import Group, grouped
from synapse_onnx.compiler.loops.left_out import least_steps
from synapse_onnx.compiler.loops.lines import Front, front_of
from synapse_onnx.compiler.loops.numbers import STEP, Formula
from synapse_onnx.compiler.loops.pixels import through
from synapse_onnx.compiler.loops.recurrence import TICK, Loop
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.states import States, part_of
from synapse_onnx.compiler.loops.terms import INPUT, PARAMETER
from synapse_onnx.compiler.loops.whole_sequence import Steps, in_turn, over_steps
from synapse_onnx.compiler.roundings import ROUNDING, differs, largest
from synapse_onnx.ops import recurrence

__all__ = ["Looped", "Rolled"]


class Rolled(nn.Module):
    """The form as a module: ``forward(*inputs)``, each (N, ..., T) or without T.

    Its parts have the paths and parameters of the network's modules, whatever these are called. So
    it has one attribute of its own.

    Args:
        form: the form.
        layers: the layers of this package in it, by path.
        timed: of every input, whether time is its last axis.
        names: names of the inputs; none if they have none.
        length: the number of steps, if the network holds it.
    """

    def __init__(
        self,
        form: Form,
        layers: Mapping[str, nn.Module],
        timed: Sequence[bool],
        names: Sequence[str] = (),
        length: Length | None = None,
    ) -> None:
        super().__init__()
        self._looped = Looped(form, timed, length)
        for term, path in self._looped.paths.items():
            parent, _, name = path.rpartition(".")
            part_of(self, parent)._buffers[name] = form.values[term].detach()
        for path, layer in layers.items():
            parent, _, name = path.rpartition(".")
            part_of(self, parent)._modules[name] = layer
        if names:
            self.__class__ = type("Rolled", (Rolled,), {"forward": _named_forward(names)})

    def forward(self, *inputs: Tensor) -> Any:
        """Return the outputs, a tuple if there are several."""
        results = _Run(self._looped, self, inputs).outputs()
        return results[0] if len(results) == 1 else tuple(results)

    @property
    def last_values(self) -> frozenset[int]:
        """Indices of the outputs that are computed of values after the last step alone."""
        outputs = self._looped.form.outputs
        return frozenset(i for i, value in enumerate(outputs) if self._looped.is_last(value))

    @property
    def least_steps(self) -> int:
        """How many steps it takes at least; 1 if it leaves none out."""
        return least_steps(self._looped.form)

    @property
    def looped(self) -> Looped:
        """The form, its loops and states."""
        return self._looped


def _named_forward(names: Sequence[str]) -> Any:
    def forward(self: Rolled, *inputs: Tensor) -> Any:
        return Rolled.forward(self, *inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("self", *names)]
    )
    return forward


class Looped:
    """What a :class:`Rolled` computes, and what it keeps; copies of the module share it.

    Attributes:
        form: the form.
        timed: of every input, whether time is its last axis.
        paths: where the module holds the value of each parameter and constant.
        groups: the families that are computed together.
        length: the number of steps, if the network holds it.
        loops: the loop of every group that is computed step by step, after the first call.
        states: what a stream keeps.
    """

    def __init__(self, form: Form, timed: Sequence[bool], length: Length | None = None) -> None:
        self.form = form
        self.length = length
        self._held = 0 if length is None else length.value
        self.timed = tuple(timed)
        self.paths = {
            term: str(term.args[0]) if term.op == PARAMETER else f"constants.constant_{number}"
            for number, term in enumerate(
                value.term for value in parts_of(form.outputs) if isinstance(value, Leaf)
            )
            if term.op != INPUT
        }
        self.groups = grouped(form)
        self.loops: dict[Group, Loop] = {}
        self.states = States(self.timed)
        if form.order.ahead:
            self.states.refuse("a step reads inputs of later steps")
        if form.order.backwards:
            self.states.refuse("it goes through the steps backwards")
        if not form.order.takes_all or any(
            isinstance(value, Stack) and (value.start or value.stride > 1)
            for value in parts_of(form.outputs)
        ):
            self.states.refuse("it leaves steps out, which give no output")
        if not any(timed):
            self.states.refuse("no input has time, and the network holds the number of steps")

    def __deepcopy__(self, _: Any) -> Looped:
        return self

    def loop(self, group: Group) -> Loop:
        """Return the loop of a group, made at its first use."""
        if group not in self.loops:
            self.loops[group] = Loop(group, self.form.path_of(group.families))
        return self.loops[group]

    @contextlib.contextmanager
    def running(self, steps: int) -> Iterator[None]:
        """Run another number of steps than the network holds, if it holds one."""
        held, self._held = self._held, steps
        try:
            yield
        finally:
            self._held = held

    def is_last(self, value: Any) -> bool:
        """Whether a whole value is that after the last step, of a whole sequence or a chunk."""
        if isinstance(value, Apply):
            return all(map(self.is_last, (*value.args, *value.kwargs.values())))
        if isinstance(value, list):
            return all(map(self.is_last, value))
        if isinstance(value, Layer):
            return self.is_last(value.slot)
        if isinstance(value, Leaf):
            return value.term.op != INPUT or not self.timed[value.term.args[0]]
        if isinstance(value, Formula):  # no number of steps
            return not value.changes and not value.reads_steps
        return not isinstance(value, Stack)

    def steps(self, inputs: Sequence[Tensor]) -> Any:
        """Return the number of steps that the loop takes in a call."""
        lengths = (x.shape[-1] for x, timed in zip(inputs, self.timed, strict=True) if timed)
        return self.form.order.count(next(lengths, self._held))


class _Run:
    """One call: what was computed so far."""

    def __init__(self, network: Looped, root: nn.Module, inputs: Sequence[Tensor]) -> None:
        self._network = network
        self._root = root
        self._inputs = inputs
        self._steps: Any = network.steps(inputs)
        self._batch: Any = inputs[0].shape[0]
        self._wholes: dict[int, Any] = {}
        self._sequences: dict[Family, Any] = {}
        self._late: dict[Any, Tensor] = {}
        self._counted: Tensor | None = None

    def outputs(self) -> list[Any]:
        return [self._whole(value) for value in self._network.form.outputs]

    def _number(self, formula: Formula) -> Any:
        return formula.at(self._steps, self._batch)

    def _in_step(self, formula: Formula) -> Any:
        """Return a number that every step reads."""
        self._refuse_length(formula)
        return self._number(formula)

    def _refuse_length(self, formula: Formula) -> None:
        """Take note that a stream does not know T, if a step reads it."""
        if formula.reads_steps:
            self._network.states.refuse("a step depends on the number of steps")

    def _before(self) -> Tensor:
        """Return how many steps each sample of a stream has had before this call, (N,)."""
        if self._counted is None:
            states, key = self._network.states, ("", "step")
            start = torch.zeros(self._batch, dtype=torch.int64)
            if states.declaring:
                states.count(key, start)
            self._counted = states.started(self._root, key, start)
            states.ended(self._root, key, self._counted + self._steps)
        return self._counted

    def _started(self, key: Any, start: Tensor, family: Family, values: Sequence[Any]) -> Tensor:
        """Return a state of a family at the start of the call; ``start`` holds these values."""
        states = self._network.states
        if states.declaring:
            states.see(key, start, family, values)
        state = states.started(self._root, key, start)
        if not states.varies(key):
            return state
        before = self._before()  # which a stream keeps, also of a call that starts afresh
        if state is start:
            return state
        fresh = (before == 0).reshape([self._batch, *[1] * (start.dim() - 1)])
        return torch.where(fresh, start, state)

    def _numbers(self, numbers: Numbers) -> Tensor:
        """Return the number of every step, (T, 1, ...) or (T, N, 1, ...)."""
        self._refuse_length(numbers.formula)
        if numbers.batched:
            steps = torch.arange(self._steps).unsqueeze(1) + self._before()
            steps = steps.reshape([self._steps, self._batch, *[1] * (numbers.rank - 1)])
        else:
            if numbers is not TICK:
                self._network.states.refuse("a step depends on its number, without a batch")
            steps = torch.arange(self._steps).reshape([-1, *[1] * numbers.rank])
        values: Tensor = numbers.formula.at(self._steps, self._batch, steps)
        return values if values.dtype == torch.int64 else values.float()

    # -- whole values ------------------------------------------------------------------------------

    def _whole(self, value: Any) -> Any:
        if isinstance(value, Formula):
            return self._number(value)
        if isinstance(value, list):
            return [self._whole(each) for each in value]
        if not isinstance(value, Leaf | Apply | Stack | Last | Layer):
            return value
        if id(value) not in self._wholes:
            self._wholes[id(value)] = self._made(value)
        return self._wholes[id(value)]

    def _made(self, value: Any) -> Any:
        if isinstance(value, Leaf):
            if value.term.op == INPUT:
                return self._inputs[value.term.args[0]]
            parent, _, name = self._network.paths[value.term].rpartition(".")
            return part_of(self._root, parent)._buffers[name]
        if isinstance(value, Last):
            return self._sequence(value.slot)[self._steps - 1]
        if isinstance(value, Layer):
            return through(part_of(self._root, value.path), self._whole(value.slot), value.axes)
        if isinstance(value, Stack):
            parts = self._sequence(value.slot)
            is_part = value.start or value.stride > 1
            sequence = parts[value.start :: value.stride] if is_part else parts
            if self._network.form.order.stacks_backwards:
                sequence = sequence.flip(0)
            if not value.joined:
                return sequence.movedim(0, value.axis) if value.axis else sequence
            return sequence.movedim(0, value.axis).flatten(value.axis, value.axis + 1)
        front = front_of(value)
        if front is not None and (longer := self._with_line(front, value)) is not None:
            return longer
        result = value.op(
            *(self._whole(each) for each in value.args),
            **{name: self._whole(each) for name, each in value.kwargs.items()},
        )
        if _is_view(value.op) and isinstance(result, Tensor):
            # the strides of a flattened tensor, min(128, 128 N), leave N no value but some
            return result.clone(memory_format=torch.contiguous_format)
        return result

    def _with_line(self, front: Front, value: Apply) -> Tensor | None:
        """Return a sequence with the last steps of the chunk before in front, in a stream."""
        states, key = self._network.states, ("", "line", id(value))
        x = self._whole(front.source)
        if states.declaring:
            timed = x.dim() > 1 and x.shape[front.axis] == self._steps
            start = front.line(x, self._batch) if timed and self._is_by_sample(front, x) else None
            states.see_line(key, start)
            return None
        if not states.keeps(key):
            return None
        start = front.line(x, self._batch)
        line = states.started(self._root, key, start)
        longer, last = front.joined(line, x)
        states.ended(self._root, key, last)
        return None if line is start else longer  # a call of its own pads, as the network does

    def _is_by_sample(self, front: Front, x: Tensor) -> bool:
        """Whether the first axis of a sequence is that of samples, or is ordered by them.

        (N * C, T) is, and (C * N, T) is not: a stream could not start one sample afresh.
        """
        by_sample = front.by_sample(x, self._batch)
        if by_sample is None or by_sample.shape[1] == 1:
            return by_sample is not None
        turned = _Run(self._network, self._root, [each.roll(1, 0) for each in self._inputs])
        other = front.by_sample(turned._whole(front.source), self._batch)
        allowed = ROUNDING * largest(by_sample)
        return other is not None and not differs(other, by_sample.roll(1, 0), allowed).any()

    def _filled(self, value: Any, family: Family) -> Tensor:
        """Return a whole value in the shape and type of a family's."""
        value = self._whole(value)
        sizes = [self._number(s) if isinstance(s, Formula) else s for s in family.shape or ()]
        if isinstance(value, Tensor):
            return value.to(family.dtype).expand(sizes)
        return torch.full(sizes, value, dtype=family.dtype)

    def _filled_like(self, number: Any, others: Sequence[Any]) -> Tensor:
        """Return a number in the shape and type of whole values that stand for it."""
        tensors = [each for value in others if isinstance(each := self._whole(value), Tensor)]
        return torch.full_like(tensors[0], number) if tensors else torch.as_tensor(number)

    # -- sequences ---------------------------------------------------------------------------------

    def _sequence(self, slot: Any) -> Tensor:
        """Return a slot's values at all steps, (T, ...)."""
        if isinstance(slot, Numbers):
            return self._numbers(slot)
        sequence = self._slot(slot, None)
        if isinstance(sequence, Steps):
            return sequence.values
        tensor: Tensor = torch.as_tensor(sequence)
        return tensor.unsqueeze(0).expand(self._steps, *tensor.shape)

    def _slot(self, slot: Any, reader: Family | None) -> Any:
        """Return a slot over all steps: a Steps, or a value that is the same at each."""
        if isinstance(slot, Listed):
            return [self._slot(each, reader) for each in slot.slots]
        if isinstance(slot, Phases):
            return self._in_turn(slot, reader)
        if isinstance(slot, Reference):
            return Steps(self._referred(slot))
        if isinstance(slot, Fixed):
            value = self._whole(slot.value)
            if not slot.instead:
                return value
            if not isinstance(value, Tensor):  # a state that is a number after its first steps
                value = self._filled_like(value, [*slot.instead.values()])
            sequence = value.unsqueeze(0).expand(self._steps, *value.shape)
            return Steps(self._at_early_steps(sequence, slot.instead, reader))
        if isinstance(slot, Formula):
            if slot.changes and reader is not None:
                return Steps(self._numbers(Numbers.of(slot, reader)))
            return self._in_step(slot)
        return slot

    def _in_turn(self, slot: Phases, reader: Family | None) -> Steps:
        """Return at every step the value of its phase."""
        values = {phase: self._slot(each, reader) for phase, each in slot.known()}
        return in_turn(Steps(self._numbers(slot.numbers())), values)

    def _referred(self, slot: Reference) -> Tensor:
        family = slot.family.found()
        sequence = self._family(family)
        if slot.delay:
            sequence = self._delayed(sequence, slot, family)
        late = {t: value for t, value in slot.instead.items() if t >= slot.delay}
        return self._at_early_steps(sequence, late, family)

    def _delayed(self, sequence: Tensor, slot: Reference, family: Family) -> Tensor:
        """Delay a sequence; what comes before it is a state (N, ..., steps)."""
        starts = [slot.instead.get(t, 0) for t in range(slot.delay)]
        path = self._network.form.path_of([family])
        key = (path, "delayed", family, slot.delay, *map(id, starts))
        if key in self._late:
            return self._late[key]
        early = torch.stack([self._filled(start, family) for start in starts], dim=-1)
        early = self._started(key, early, family, starts)
        longer = torch.cat([early.movedim(-1, 0), sequence])
        self._network.states.ended(self._root, key, longer[self._steps :].movedim(0, -1))
        self._late[key] = longer[: self._steps]
        return self._late[key]

    def _at_early_steps(
        self, sequence: Tensor, instead: Mapping[int, Any], family: Family | None
    ) -> Tensor:
        """Put whole values in the place of a family's first steps."""
        if not instead:
            return sequence
        states = self._network.states
        self._before()  # which a stream keeps
        if states.declaring:
            states.see_early(family, sequence, list(instead.values()))
        step = torch.arange(self._steps).reshape([-1] + [1] * (sequence.dim() - 1))
        if states.streams(self._root):
            step = self._numbers(Numbers(STEP, sequence.dim() - 1, batched=True))
        for t, value in instead.items():
            other = self._whole(value)
            other = other.to(sequence.dtype) if isinstance(other, Tensor) else other
            sequence = torch.where(step == t, other, sequence)
        return sequence

    def _family(self, family: Family) -> Any:
        family = family.found()
        if family not in self._sequences:
            group = self._network.groups[family]
            node = family.node
            if isinstance(node, Entry):
                order = self._network.form.order
                steps = self._whole(node.source).movedim(node.axis, 0)
                if node.ahead:
                    later = torch.arange(self._steps) + node.ahead
                    steps = steps[later.clamp(max=self._steps - 1)]
                self._sequences[family] = steps.flip(0) if order.backwards else steps
            elif isinstance(node, Layer):
                x = self._sequence(node.slot)
                self._sequences[family] = through(part_of(self._root, node.path), x, node.axes)
            elif group.recurrent or not self._at_once(family):
                self._run(group)
        return self._sequences[family]

    def _at_once(self, family: Family) -> bool:
        """Compute a family for all steps at once; False if no rule is known for its operator."""
        node = family.node
        if node.op is operator.getitem:
            self._sequences[family] = self._family(node.args[0].family)[node.args[1]]
            return True
        args = [self._slot(slot, family) for slot in node.args]
        kwargs = {name: self._slot(slot, family) for name, slot in node.kwargs.items()}
        result = over_steps(node.op, args, kwargs)
        if result is None:
            return False
        if family.first:
            step = self._numbers(Numbers.of(STEP, family))
            for t, slot in family.first.items():
                other = self._slot(slot, family)
                other = other.values if isinstance(other, Steps) else other
                result = torch.where(step == t, other, result)
        self._sequences[family] = result
        return True

    def _run(self, group: Group) -> None:
        """Compute a group in a loop."""
        loop = self._network.loop(group)
        for family in (*loop.outputs, *(family for family, _ in loop.states)):
            if family.dtype is None:
                raise NoLoopError("a step hands on the results of an operator as a tuple")
        keys = [(loop.path, "state", loop.key, i) for i in range(len(loop.states))]
        starts = [
            self._started(key, self._filled(start, family).contiguous().clone(), family, [start])
            for key, (family, start) in zip(keys, loop.states, strict=True)
        ]
        results = recurrence(
            starts,
            [self._sequence(slot) for slot in loop.sequences],
            [self._constant(value) for value in loop.constants],
            self._steps,
            self._batch,
            loop.key,
        )
        self._sequences.update(zip(loop.outputs, results, strict=False))
        for key, state in zip(keys, results[len(loop.outputs) :], strict=True):
            self._network.states.ended(self._root, key, state)

    def _constant(self, value: Any) -> Tensor:
        if isinstance(value, Formula):
            number = self._in_step(value)
            dtype = torch.int64 if value.is_whole else torch.float32
            return torch.scalar_tensor(number, dtype=dtype)
        tensor: Tensor = self._whole(value)
        return tensor


def _is_view(op: Any) -> bool:
    """Whether an operator returns a tensor that may share the memory of its argument."""
    schema = getattr(op, "_schema", None)
    return schema is not None and any(result.alias_info for result in schema.returns)
