"""What a step module keeps between calls, seen by running a copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from synapse_onnx.compiler import copies
from synapse_onnx.compiler.steps.handed import Given, Handed, Hands
from synapse_onnx.compiler.steps.held import Name, Start, changed, marks
from synapse_onnx.errors import InputError, SynapseError

__all__ = ["Learned"]

#: steps that are run to see how a module hands on its states
_FEW = 4

#: factors of a state that tell whether it is read
_FACTORS = (0.0, 64.0, -64.0)

_REMEDY = (
    "put it into a module whose forward(x) keeps the state as an attribute: "
    "y, self.state = self.cell(x, self.state)"
)


@dataclass
class Learned:
    """What is known of a step module; copies of it share this.

    Attributes:
        start: what it held at the start.
        axes: axes of its sequences.
        handed: its arguments.
        states: what its calls change.
        others: what only its calls in training change: statistics.
        hands: how it is given its states; None before the first call.
    """

    start: Start
    axes: str
    handed: Handed
    states: set[Name] = field(default_factory=set)
    others: set[Name] = field(default_factory=set)
    hands: Hands | None = None

    def __deepcopy__(self, _: Any) -> Learned:
        return self

    def see(self, module: nn.Module, given: Given, late: AbstractSet[Name] = frozenset()) -> None:
        """Run a copy in evaluation mode: what its calls change there are states.

        ``late`` are names of what a call has changed that were not known to be states.

        Raises:
            InputError: the module cannot be copied, or whether it hands on its states cannot be
                told, or it holds states of an earlier call.
        """
        step = copies.copied(module).eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copied = [_each(torch.clone, inputs) for inputs in given]
            copied = copied if len(copied) >= _FEW else (copied * _FEW)[:_FEW]
            self.start.put(step, self.states | late)
            if self.hands is None:
                self.hands = self._hands(step, copied[:_FEW])
            before = marks(step)
            self.handed.run(step, copied, self.hands)
            self.states |= changed(step, before)
            for name in sorted(self.states & self.start.stale):
                self._check_stale(module, copied[:_FEW], self.hands, name)

    def _check_stale(self, module: nn.Module, given: Given, hands: Hands, name: Name) -> None:
        """Refuse a state that an earlier call left; what is written before it is read is none.

        Raises:
            InputError: other values of it give other results.
        """
        results = []
        for factor in (1.0, *_FACTORS):
            step = copies.copied(module).eval()
            self.start.put(step, self.states)
            self.start.put(step, {name}, factor)
            results.append(self.handed.run(step, given, hands))
        if not all(_is_same(results[0], other) for other in results[1:]):
            raise InputError(
                f"over_time: {name} is a state, and holds what an earlier call computed; reset the "
                f"module before over_time()"
            )

    def _hands(self, step: nn.Module, given: Given) -> Hands:
        """Return how a module hands on its states, by running it in every way.

        One sample tells more than many: of a pair (h, c) two samples could be taken.

        Raises:
            InputError: several ways are possible, and give other results.
        """
        handed = self.handed
        if isinstance(step, nn.RNNCellBase):
            return Hands.ALL
        first: Given = [_each(lambda x: x[:1] if x.dim() else x, inputs) for inputs in given]
        one, plain = first, _Trial(step, handed, first, Hands.NOTHING)
        if plain.error is not None:  # it may take so many samples alone
            one, plain = given, _Trial(step, handed, given, Hands.NOTHING)
        if not handed.names:
            self._check_open(plain, given)
            return Hands.NOTHING
        last = _Trial(step, handed, one, Hands.LAST)
        if len(handed.names) == 1 and isinstance(last.first, tuple | list) and len(last.first) > 1:
            whole = _Trial(step, handed, one, Hands.ALL)
            if whole.error is None and last.error is None:
                raise InputError(
                    f"over_time: whether {handed.names[0]} is the last value that forward() "
                    f"returns, or all of them, cannot be told; {_REMEDY}"
                )
            if whole.error is None:
                return Hands.ALL
        if last.error is not None:
            if plain.error is None and plain.kept:
                return Hands.NOTHING  # snnTorch's init_hidden forbids to be given a state
            raise _failed(handed, last.error) from last.error
        if plain.error is not None or not plain.kept:
            return Hands.LAST
        if _is_same(plain.results, last.results):
            return Hands.NOTHING  # what it is given is what it keeps
        raise InputError(
            f"over_time: forward() returns {', '.join(handed.names)}, and its parts keep states of "
            f"their own ({', '.join(sorted(map(str, plain.kept))[:3])}); whether it is to be given "
            f"what it returned cannot be told; {_REMEDY}"
        )

    def _check_open(self, plain: _Trial, given: Given) -> None:
        """Refuse arguments that may be states of a module that keeps none.

        Raises:
            InputError: there are.
        """
        missing = [name for name in self.handed.open if name not in given[0]]
        several = isinstance(plain.first, tuple | list) and len(plain.first) > 1
        if missing and several and not plain.kept:
            raise InputError(
                f"over_time: the module keeps no state, and whether {missing[0]} of forward() is "
                f"one cannot be told; call it state, or {_REMEDY}"
            )


class _Trial:
    """A run of a copy.

    Attributes:
        results: what every step returned.
        first: what a first step returns.
        kept: what the calls changed in it.
        error: why it failed.
    """

    def __init__(self, step: nn.Module, handed: Handed, given: Given, hands: Hands) -> None:
        self.results: list[Any] = []
        self.first: Any = None
        self.error: Exception | None = None
        trial = copies.copied_value(step)
        before = marks(trial)
        try:
            self.first = handed.run(copies.copied_value(step), given[:1], hands)[0]
            self.results = handed.run(trial, given, hands)
        except Exception as error:  # of any class: it is the user's code
            self.error = error
        self.kept = changed(trial, before)


def _failed(handed: Handed, error: Exception) -> Exception:
    """Return why a module fails, of which no call gives results."""
    if not handed.needed or isinstance(error, SynapseError):
        return error
    reason = str(error).strip().partition("\n")[0]
    return InputError(
        f"over_time: forward() fails where {' and '.join(handed.needed)} is None, as at the first "
        f"step ({type(error).__name__}: {reason}); let it begin with a state of its own there"
    )


def _each(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = pytree.tree_map_only(Tensor, function, dict(inputs))
    return result


def _is_same(one: Any, other: Any) -> bool:
    """Whether two results are equal to the last bit, in structure and values."""
    leaves, structure = pytree.tree_flatten(one)
    others, other_structure = pytree.tree_flatten(other)
    return structure == other_structure and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(leaves, others, strict=True)
    )
