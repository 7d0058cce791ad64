"""States that a step module is given and returns: ``y, state = cell(x, state)``.

They are arguments of ``forward`` behind its inputs, called so, and the last values that it returns.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import nn

from synapse_onnx.errors import InputError

__all__ = ["Given", "Handed", "Hands"]

#: the inputs of every step, by name
Given = Sequence[Mapping[str, Any]]

#: names of arguments that are states
_STATE = re.compile(r"(\w+_)?(state|hidden|hx|cx|hc|mem|syn|volt(age)?|carry|memory)s?(_\w+)?\d*")

#: names that are states where their default is None
_PERHAPS = re.compile(r"(spk|[chisuvz])(_\w+)?\d*")

_Kind = inspect.Parameter


class Hands(Enum):
    """What of a step's result the next step is given: nothing, its last values, or all of it."""

    NOTHING = 0
    LAST = 1
    ALL = 2


@dataclass(frozen=True)
class Handed:
    """The arguments of a step module, of which some may be states.

    Attributes:
        names: the arguments of ``forward`` that are called like states.
        needed: those of them that have no default; None is given at the first step.
        inputs: the signature of ``forward`` without them.
        open: its other arguments whose default is None.
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]
    inputs: inspect.Signature
    open: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module) -> Handed:
        """Read the signature of a module's ``forward``."""
        parameters = list(inspect.signature(module.forward).parameters.values())
        named = all(p.kind in (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY) for p in parameters)
        states = [p for p in parameters[1:] if named and _is_state(p)]
        rest = [p for p in parameters if p not in states]
        return cls(
            tuple(p.name for p in states),
            tuple(p.name for p in states if p.default is _Kind.empty),
            inspect.Signature(rest),
            tuple(p.name for p in rest[1:] if p.default is None),
        )

    def run(self, module: nn.Module, given: Given, hands: Hands) -> list[Any]:
        """Run steps one after the other, and return what each returns."""
        results: list[Any] = []
        for inputs in given:
            states = self._states(results[-1], hands) if results else {}
            if self.names:
                results.append(module(**inputs, **{**dict.fromkeys(self.needed), **states}))
            else:
                bound = inspect.BoundArguments(self.inputs, dict(inputs))
                results.append(module(*bound.args, **bound.kwargs))
        return results

    def outputs(self, result: Any, hands: Hands) -> Any:
        """Return what a step returns without the states that it hands on.

        A cell that returns nothing else has its states as outputs, as torch's cells do.
        """
        if hands is not Hands.LAST or not isinstance(result, tuple | list):
            return result
        outputs = result[: -len(self.names)] or result
        return outputs[0] if len(outputs) == 1 else outputs

    def _states(self, result: Any, hands: Hands) -> dict[str, Any]:
        if hands is Hands.NOTHING:
            return {}
        if hands is Hands.ALL:
            return {self.names[0]: result}
        values = result if isinstance(result, tuple | list) else (result,)
        if len(values) < len(self.names):
            raise InputError(
                f"over_time: forward() is given the states {', '.join(self.names)}, and does not "
                f"return as many; return its output, and then its states in this order"
            )
        return dict(zip(self.names, values[-len(self.names) :], strict=True))


def _is_state(parameter: inspect.Parameter) -> bool:
    optional = parameter.default is None
    if not optional and parameter.default is not _Kind.empty:
        return False
    name = parameter.name
    return bool(_STATE.fullmatch(name)) or (optional and bool(_PERHAPS.fullmatch(name)))
