"""What a stream keeps of loops from chunk to chunk, and what it starts from.

A stream starts a state from one number. A state that starts from several, as the bias that a
synapse gives before the first input, starts from 0, and gets its values at the first step: a stream
counts the steps of each sample::

    start                 ->  where(steps before == 0, start, carried)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from synapse_onnx._layer import Stateful
from synapse_onnx.compiler.loops.form import Family, Last, Leaf, Numbers, Stack, parts_of
from synapse_onnx.compiler.loops.numbers import STEP
from synapse_onnx.compiler.loops.terms import INPUT

__all__ = ["Memory", "States", "part_of"]


class Memory(Stateful):
    """States of a loop that a stream keeps from chunk to chunk."""

    is_layer = False

    def load(self, name: str, start: Tensor) -> Tensor:
        """Return the state that a call starts from, which is ``start`` if none is kept."""
        if self.carried is not None:
            return self.carried[name]
        kept: Tensor = getattr(self, f"{name}_state")
        return kept if self.persistent_state and kept.shape == start.shape else start


def part_of(root: nn.Module, path: str, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """Return the part of a module at a path; what does not exist is made, the last of a kind."""
    part = root
    names = [name for name in path.split(".") if name]
    for i, name in enumerate(names):
        inner = part._modules.get(name)
        if inner is None:  # not by attribute: a module may be called "forward"
            inner = part._modules[name] = kind() if i == len(names) - 1 else nn.Module()
        part = inner
    return part


class States:
    """The states of the loops of one network; a key is (path of a module, kind, ...).

    Args:
        timed: of every input of the network, whether it has time.

    Attributes:
        obstacle: why the network cannot stream, if it cannot.
        declaring: whether calls still show what the states are.
    """

    def __init__(self, timed: Sequence[bool]) -> None:
        self.obstacle = ""
        self.declaring = True
        self._timed = timed
        #: what is kept from call to call -> the path of its memory, and its name there
        self._places: dict[Any, tuple[str, str]] = {}
        #: what each state starts from, in the calls so far
        self._starts: dict[Any, Tensor] = {}
        self._varying: set[Any] = set()
        self._untimed: set[Any] = set()

    def refuse(self, reason: str) -> None:
        """Take note that the network cannot stream."""
        self.obstacle = self.obstacle or reason

    def see(self, key: Any, start: Tensor, family: Family, values: Sequence[Any]) -> None:
        """Take note of what a state of a family starts from: whole values of the form."""
        self._starts[key] = start.detach().clone()
        first = start.reshape(-1)[:1]
        if not self._inputs(values) and start.dim() and bool((start == first).all()):
            return
        self._varying.add(key)
        self._check_early(f"what {key[0] or 'the loop'} starts from", family, values)

    def see_early(self, family: Family | None, sequence: Tensor, values: Sequence[Any]) -> None:
        """Take note of whole values that a family has at its first steps, in a sequence."""
        rank = len(family.shape or ()) if family is not None else 0
        if rank != sequence.dim() - 1:
            self.refuse("a value differs at the first steps, and has other axes than the rest")
        self._check_early("a value at the first steps", family, values)

    def _check_early(self, what: str, family: Family | None, values: Sequence[Any]) -> None:
        if any(each is None or self._timed[each] for each in self._inputs(values)):
            self.refuse(f"{what} is computed of the whole sequence")
        elif family is None or not Numbers.of(STEP, family).batched:
            self.refuse(f"{what} has no batch")

    @staticmethod
    def _inputs(values: Sequence[Any]) -> set[int | None]:
        """Return the inputs that whole values are computed of; None for a loop's own values."""
        parts = [each for each in parts_of(list(values)) if isinstance(each, Leaf | Stack | Last)]
        return {
            int(each.term.args[0]) if isinstance(each, Leaf) else None
            for each in parts
            if not isinstance(each, Leaf) or each.term.op == INPUT
        }

    def see_line(self, key: Any, start: Tensor | None) -> None:
        """Take note of steps that are put before a sequence; None where they are no steps."""
        if start is None:
            self._untimed.add(key)
            self._starts.pop(key, None)
        elif key not in self._untimed:
            self._starts[key] = start

    @property
    def kept(self) -> bool:
        """Whether a stream keeps any state."""
        return bool(self._places)

    def keeps(self, key: Any) -> bool:
        """Whether a stream keeps a state."""
        return _place_of(key) in self._places

    def count(self, key: Any, start: Tensor) -> None:
        """Take note of a count of steps, which starts from 0."""
        self._starts[key] = start.detach().clone()

    def streams(self, root: nn.Module) -> bool:
        """Whether this call goes on where another one ended, by a count of steps."""
        memory, _ = self._memory(root, ("", "step"))
        return memory is not None and (memory.carried is not None or memory.persistent_state)

    def varies(self, key: Any) -> bool:
        """Whether a state starts from several numbers, put in at the first step."""
        return key in self._varying

    def declare(self, root: nn.Module) -> None:
        """Name what the calls so far started from, so that a stream can keep it."""
        self.declaring = False
        for key, start in self._starts.items():
            path, kind, *_ = _place_of(key)
            place = f"{path}.{kind}"
            memory = part_of(root, place, Memory)
            if not isinstance(memory, Memory):
                self.obstacle = f"a module is called {place}, as its states would be"
                continue
            name = str(len(memory.state_starts))
            first = start.reshape(-1)[:1]
            one = first.item() if len(first) and key not in self._varying else 0
            memory.register_state(name, start.dtype, start=one)
            self._places[_place_of(key)] = (place, name)
        self._starts.clear()

    def started(self, root: nn.Module, key: Any, start: Tensor) -> Tensor:
        """Return a state at the start of a call: ``start`` itself, or what a stream carries."""
        memory, name = self._memory(root, key)
        return start if memory is None else memory.load(name, start)

    def ended(self, root: nn.Module, key: Any, state: Tensor) -> None:
        """Keep a state for the next chunk of a stream."""
        memory, name = self._memory(root, key)
        if memory is not None:
            memory.save_states(**{name: state})

    def _memory(self, root: nn.Module, key: Any) -> tuple[Memory | None, str]:
        path, name = self._places.get(_place_of(key), ("", ""))
        memory = part_of(root, path) if path else None
        return (memory, name) if isinstance(memory, Memory) else (None, "")


def _place_of(key: Any) -> tuple[Any, ...]:
    """Return a key with the path where its state is kept: that of the outermost module is loop."""
    path, *rest = key
    return (path or "loop", *rest)
